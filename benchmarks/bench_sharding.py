"""Sharding by the stage's own code: its speed on two CPUs beside one, its memory at ten times more.

    DEPTH_SAMPLES=<folder of real frames> python -m benchmarks.bench_sharding
    python -m benchmarks.bench_sharding --parts speed --frames 480 --rounds 2   # one part, shorter
    python -m benchmarks.bench_sharding --parts memory --small-frames 20000

``speed``: 640x480 frames (JPEG and 16-bit PNG), so that a task's time is reading and packing them.
One Ray with two CPUs runs the stage again and again; where it may have one, a task that sleeps
holds the other. Beside it the same shards by plain processes without Ray: what the machine itself
gains from a second CPU, which the stage is measured by. All four in turn, in the other order every
second round; each into a store of its own, after a few frames that warm its processes. Frames per
second count from the first task's start to the last one's end; listing comes before.

``memory``: small frames, a tenth of them and then all, by a process of its own with a Ray of its
own: what the second run adds is what the number of frames costs.
"""

import argparse
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.pairs import make_pairs
from benchmarks.process_memory import Sampled
from benchmarks.target import print_target
from cluster.local_store import LocalStore
from cluster.monitor import MonitorHandle
from cluster.services import Services
from cluster.session import SessionConfig, open_session
from cluster.tracking import TrackingConfig
from densedepth.data.encode import encode_depth_png
from densedepth.data.nyu import NyuDenseDepth
from densedepth.sample import Frame
from stages.shard import ShardConfig, run
from stages.shard_writer import ShardWriter

NUM_DIFFERENT = 64
NUM_TEST = 4
FRAMES_A_TASK = 60
SMALL_PX = (24, 32)
SMALL_FRAMES_A_TASK = 256
MIN_SHARE = 0.9
"""Of what plain processes gain by a second CPU, the stage's tasks must gain so much."""
MAX_GROWTH = 1.25
"""What "flat" means: a growth of the peak at ten times the frames that noise can make."""


class Clock:
    """Takes what a run tells MLflow and the display; notes when shards begin and end."""

    def __init__(self) -> None:
        self.times_s: list[float] = []

    def progress(self, *arguments: object) -> None:
        """Note the time."""
        self.times_s.append(time.perf_counter())

    def track(self, *arguments: object) -> None:
        """Take parameters and metrics."""


def write_frames(root: Path, num_frames: int, originals: Sequence[tuple[bytes, bytes]]) -> None:
    """Write a raw data set in DenseDepth's layout whose files are links to a few different ones."""
    place = root / "data/originals"
    place.mkdir(parents=True)
    for n, files in enumerate(originals):
        for extension, data in zip(("jpg", "png"), files, strict=True):
            (place / f"{n}.{extension}").write_bytes(data)
    for split, count in (("nyu2_train", num_frames), ("nyu2_test", NUM_TEST)):
        lines = []
        for n in range(count):
            room = root / f"data/{split}/room_{n // 500:04d}_out"
            if not n % 500:
                room.mkdir(parents=True)
            for extension in ("jpg", "png"):
                os.link(place / f"{n % len(originals)}.{extension}", room / f"{n}.{extension}")
            base = f"data/{split}/{room.name}/{n}"
            lines.append(f"{base}.jpg,{base}.png\n")
        (root / f"data/{split}.csv").write_text("".join(lines))


def small_frames() -> list[tuple[bytes, bytes]]:
    """Make a few small pictures with 8-bit depth, as files."""
    rng, made = np.random.default_rng(0), []
    for _ in range(NUM_DIFFERENT):
        small = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
        depth = np.linspace(20, 250, SMALL_PX[0] * SMALL_PX[1]).reshape(SMALL_PX)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "small.jpg"
            small.resize(SMALL_PX[::-1]).save(path, quality=95)
            png = encode_depth_png((depth + rng.integers(0, 5)).astype(np.uint8))
            made.append((path.read_bytes(), png))
    return made


def shard(root: Path, samples_per_shard: int, max_frames: int | None = None) -> tuple[int, float]:
    """Run the stage into a new store; return the frames and the seconds from task to task."""
    config = ShardConfig(
        format="nyu_densedepth",
        root=str(root),
        options={"val_fraction": 0.0},
        samples_per_shard=samples_per_shard,
        max_frames=max_frames,
    )
    clock = Clock()
    with tempfile.TemporaryDirectory() as scratch:
        store, monitor = LocalStore(Path(scratch) / "store"), MonitorHandle(clock, remote=False)
        shards = run(config, Services(store, monitor, "shard.x", "x", "", Path(scratch)))
    num_frames = sum(split.num_samples for split in shards.splits.values())
    return num_frames, clock.times_s[-1] - clock.times_s[0]


# Speed -------------------------------------------------------------------------------------------


def measure_speed(root: Path, num_frames: int, rounds: int) -> None:
    """Shard real-sized frames on one CPU and on two, with Ray and without, and compare."""
    write_frames(
        root, num_frames, [(p.jpeg, encode_depth_png(p.depth_units)) for p in make_pairs(64)]
    )
    speeds: dict[tuple[str, int], list[float]] = {}
    print(f"{num_frames} frames, {FRAMES_A_TASK} a task; frames/s of each run")
    with ray_of_two(), plain(1) as one, plain(2) as two:

        def by_stage(num_cpus: int) -> float:
            with one_cpu_held() if num_cpus == 1 else nothing():
                shard(root, samples_per_shard=2, max_frames=16)
                count, seconds = shard(root, FRAMES_A_TASK)
            return count / seconds

        def by_processes(num_cpus: int) -> float:
            return shard_plainly(root, one if num_cpus == 1 else two, num_frames)

        runs: list[tuple[str, int, Callable[[int], float]]] = [
            ("plain processes", 1, by_processes),
            ("plain processes", 2, by_processes),
            ("the stage", 1, by_stage),
            ("the stage", 2, by_stage),
        ]
        for number in range(rounds):
            for who, num_cpus, measured in runs if number % 2 == 0 else runs[::-1]:
                speed = measured(num_cpus)
                speeds.setdefault((who, num_cpus), []).append(speed)
                print(f"  round {number + 1}  {who:16} {num_cpus} CPUs {speed:8.1f}", flush=True)
    gain: dict[str, float] = {}
    for who in ("plain processes", "the stage"):
        one_cpu, two_cpus = speeds[who, 1], speeds[who, 2]
        ratios = [b / a for a, b in zip(one_cpu, two_cpus, strict=True)]
        gain[who] = statistics.median(ratios)
        print(
            f"{who:16} 1 CPU {statistics.median(one_cpu):7.1f}, 2 CPUs "
            f"{statistics.median(two_cpus):7.1f} frames/s; two beside one, median of pairs: "
            f"{gain[who]:.2f} times ({min(ratios):.2f} to {max(ratios):.2f})"
        )
    share = gain["the stage"] / gain["plain processes"]
    print_target("gain of a second CPU, share of plain processes'", share, MIN_SHARE, at_least=True)


@contextmanager
def ray_of_two() -> Iterator[None]:
    """Have a Ray with two CPUs."""
    with tempfile.TemporaryDirectory() as folder:
        tracking = TrackingConfig(uri=f"sqlite:///{folder}/mlflow.db")
        with open_session(SessionConfig(num_cpus=2, object_store_mb=80), tracking):
            yield


@contextmanager
def one_cpu_held() -> Iterator[None]:
    """Keep one of Ray's CPUs from the tasks; the process that holds it sleeps."""
    import ray

    with tempfile.TemporaryDirectory() as folder:
        held, released = Path(folder) / "held", Path(folder) / "released"
        task = ray.remote(hold).options(num_cpus=1).remote(held, released)
        while not held.exists():
            time.sleep(0.05)
        try:
            yield
        finally:
            released.touch()
            ray.get(task)


def hold(held: Path, released: Path) -> None:
    """Sleep until a file is there."""
    held.touch()
    while not released.exists():
        time.sleep(0.1)


@contextmanager
def nothing() -> Iterator[None]:
    """Do nothing."""
    yield


@contextmanager
def plain(num_processes: int) -> Iterator[ProcessPoolExecutor]:
    """Have processes that have imported what they need."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(num_processes, mp_context=context) as pool:
        yield pool


def shard_plainly(root: Path, pool: ProcessPoolExecutor, num_frames: int) -> float:
    """Write the same shards by processes that know nothing of Ray; return frames per second."""
    reader = NyuDenseDepth(str(root), val_fraction=0.0)
    frames = reader.list_frames("train").frames
    parts = [frames[n : n + FRAMES_A_TASK] for n in range(0, len(frames), FRAMES_A_TASK)]
    with tempfile.TemporaryDirectory() as folder:
        writer = ShardWriter(LocalStore(Path(folder) / "store"), reader)
        list(pool.map(writer_process, [writer] * 4, [[frame] for frame in frames[:4]]))
        start_s = time.perf_counter()
        list(pool.map(writer_process, [writer] * len(parts), parts))
        return num_frames / (time.perf_counter() - start_s)


def writer_process(writer: ShardWriter, frames: Sequence[Frame]) -> None:
    """Do what one of the stage's tasks does."""
    writer.write("train", frames)


# Memory ------------------------------------------------------------------------------------------


def measure_memory(root: Path, num_frames: int) -> None:
    """Shard a tenth of some small frames, then all, and compare the peaks."""
    originals = small_frames()
    counts = (num_frames // 10, num_frames)
    for count in counts:
        write_frames(root / str(count), count, originals)
    command = [sys.executable, "-m", "benchmarks.bench_sharding", "--run-small"]
    command += [str(root / str(count)) for count in counts]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.returncode)
    found = [json.loads(line) for line in done.stdout.splitlines()[-len(counts) :]]
    print(f"small frames, {SMALL_FRAMES_A_TASK} a task; largest memory of a process in MB")
    print(("{:>10}" + "{:>11}" * 4).format("frames", "frames/s", "stage", "a task", "listing"))
    for got in found:
        row = "{frames:>10}{speed:>11.0f}{stage:>11.0f}{task:>11.0f}{listing:>11.0f}"
        print(row.format(**got), flush=True)
    for what in ("stage", "task"):
        growth = found[1][what] / found[0][what]
        print_target(f"{what}'s memory at ten times the frames, times", growth, MAX_GROWTH)


def run_small(roots: Sequence[Path]) -> None:
    """Shard small frames by this process and its tasks, one data set after the other."""
    with ray_of_two():
        shard(roots[0], samples_per_shard=4, max_frames=64)  # imports are there before the peaks
        for root in roots:
            with Sampled() as sampled:
                num_frames, seconds = shard(root, SMALL_FRAMES_A_TASK)
            got = {"frames": num_frames, "speed": num_frames / seconds, **sampled.peaks_mb}
            print(json.dumps(got), flush=True)


def main() -> None:
    """Measure the parts that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", nargs="+", choices=("speed", "memory"))
    parser.add_argument("--frames", type=int, default=960, help="of the part speed")
    parser.add_argument("--rounds", type=int, default=3, help="of the part speed")
    parser.add_argument("--small-frames", type=int, default=100_000, help="of the part memory")
    parser.add_argument("--run-small", nargs="+", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run_small:
        run_small(options.run_small)
        return
    for part in options.parts or ("speed", "memory"):
        with tempfile.TemporaryDirectory() as folder:
            if part == "speed":
                measure_speed(Path(folder), options.frames, options.rounds)
            else:
                measure_memory(Path(folder), options.small_frames)


if __name__ == "__main__":
    main()
