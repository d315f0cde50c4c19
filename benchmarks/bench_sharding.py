"""Sharding by the stage's own code: its memory at ten times the frames, its speed on two CPUs.

    python -m benchmarks.bench_sharding [--frames 100000] [--size 32x24]

Frames are small pictures in DenseDepth's layout, hard links to a few files. Each run is a process
of its own with a Ray of its own; memory is the sum of the proportional sizes (PSS) of that process
and all that it started, sampled twice a second, Ray's own services aside.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.target import print_target

NUM_DIFFERENT = 64
NUM_TEST = 64
SAMPLES_PER_SHARD = 256
MAX_GROWTH = 1.25
"""What "flat" means: a growth of the peak at ten times the frames that noise can make."""


class Quiet:
    """Takes what a run tells MLflow and the display."""

    def progress(self, *arguments: object) -> None:
        """Take progress."""

    def track(self, *arguments: object) -> None:
        """Take parameters and metrics."""


def write_frames(root: Path, num_frames: int, size_px: tuple[int, int]) -> None:
    """Write a raw data set whose files are links to a few different ones."""
    height_px, width_px = size_px
    rng = np.random.default_rng(0)
    place = root / "data/originals"
    place.mkdir(parents=True)
    for n in range(NUM_DIFFERENT):
        small = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
        small.resize((width_px, height_px)).save(place / f"{n}.jpg", quality=95)
        depth = np.linspace(20, 250, width_px * height_px).reshape(height_px, width_px)
        Image.fromarray((depth + rng.integers(0, 5)).astype(np.uint8)).save(place / f"{n}.png")
    for split, count in (("nyu2_train", num_frames), ("nyu2_test", NUM_TEST)):
        lines = []
        for n in range(count):
            room = root / f"data/{split}/room_{n // 500:04d}_out"
            if not n % 500:
                room.mkdir(parents=True)
            for extension in ("jpg", "png"):
                os.link(place / f"{n % NUM_DIFFERENT}.{extension}", room / f"{n}.{extension}")
            base = f"data/{split}/{room.name}/{n}"
            lines.append(f"{base}.jpg,{base}.png\n")
        (root / f"data/{split}.csv").write_text("".join(lines))


def run_once(root: Path, num_cpus: int) -> dict[str, float]:
    """Shard a data set in this process and by its tasks; return seconds and peaks in MB."""
    import ray

    from cluster.local_store import LocalStore
    from cluster.monitor import MonitorHandle
    from cluster.services import Services
    from stages.shard import ShardConfig, run

    project = str(Path(__file__).resolve().parent.parent)
    ray.init(
        address="local",
        num_cpus=num_cpus,
        include_dashboard=False,
        object_store_memory=80 * 2**20,
        runtime_env={"env_vars": {"PYTHONPATH": project, "PYTHONWARNINGS": "ignore"}},
        log_to_driver=False,
        logging_level="error",
    )
    config = ShardConfig(
        format="nyu_densedepth",
        root=str(root),
        options={"val_fraction": 0.0},
        samples_per_shard=SAMPLES_PER_SHARD,
    )
    with tempfile.TemporaryDirectory() as scratch:
        store, monitor = LocalStore(Path(scratch) / "store"), MonitorHandle(Quiet(), remote=False)
        # Processes and imports are there before the clock and the memory's peak are taken.
        warm = config.model_copy(update={"max_frames": 64, "samples_per_shard": 4})
        run(warm, Services(store, monitor, "shard.warm", "warm", "", Path(scratch)))
        peaks: dict[str, float] = {}
        with Sampled(lambda: memory_mb(os.getpid()), peaks):
            started = time.perf_counter()
            shards = run(config, Services(store, monitor, "shard.x", "x", "", Path(scratch)))
            seconds = time.perf_counter() - started
        num_frames = sum(split.num_samples for split in shards.splits.values())
    ray.shutdown()
    return {"seconds": seconds, "frames": num_frames, **peaks}


class Sampled:
    """Keeps the highest of several measurements while a block runs."""

    def __init__(self, measure: Callable[[], Mapping[str, float]], peaks: dict[str, float]) -> None:
        self.measure, self.peaks = measure, peaks
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self._sample)

    def __enter__(self) -> None:
        self.thread.start()

    def __exit__(self, *error: object) -> None:
        self.stop.set()
        self.thread.join()

    def _sample(self) -> None:
        while not self.stop.wait(0.5):
            for name, value in self.measure().items():
                self.peaks[name] = max(self.peaks.get(name, 0.0), value)


def memory_mb(parent: int) -> dict[str, float]:
    """PSS in MB: of the stage's own process, of the largest task's, of the process that lists."""
    found = {"stage": pss_mb(parent), "task": 0.0, "listing": 0.0}
    for process in Path("/proc").iterdir():
        try:
            if not process.name.isdigit() or not is_below(int(process.name), parent):
                continue
            title = (process / "cmdline").read_bytes().decode(errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if title.startswith("ray::write_jobs"):
            found["listing"] = max(found["listing"], pss_mb(int(process.name)))
        elif title.startswith("ray::_write_shard"):
            found["task"] = max(found["task"], pss_mb(int(process.name)))
    return found


def is_below(process: int, ancestor: int) -> bool:
    """Whether a process was started by another, or by one that was."""
    while process > 1:
        stat = Path(f"/proc/{process}/stat").read_text()
        process = int(stat.rpartition(")")[2].split()[1])
        if process == ancestor:
            return True
    return False


def pss_mb(process: int) -> float:
    """Proportional size of a process in MB."""
    try:
        text = Path(f"/proc/{process}/smaps_rollup").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return next(int(line.split()[1]) for line in text.splitlines() if line[:4] == "Pss:") / 1024


def measure(root: Path, num_cpus: int) -> dict[str, float]:
    """Run ``run_once`` in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.bench_sharding", "--run", str(root)]
    done = subprocess.run(
        [*command, "--cpus", str(num_cpus)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=100_000)
    parser.add_argument("--size", default="32x24", help="WIDTHxHEIGHT of the frames")
    parser.add_argument("--runs", type=int, default=3, help="pairs of runs on one and two CPUs")
    parser.add_argument("--run", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--cpus", type=int, default=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        print(json.dumps(run_once(options.run, options.cpus)))
        return
    width_px, height_px = (int(n) for n in options.size.split("x"))
    print(f"{options.size} frames, {SAMPLES_PER_SHARD} a shard")
    heads = ("frames", "CPUs", "frames/s", "stage MB", "task MB", "listing MB")
    print(("{:>10}" * 3 + "{:>11}" * 3).format(*heads))
    few = options.frames // 10
    speeds: dict[int, list[float]] = {1: [], 2: []}
    small: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        write_frames(Path(folder), few, (height_px, width_px))
        for num_cpus in (1, 2) * options.runs:  # in turn: the machine's speed may change
            small.append(measure(Path(folder), num_cpus))
            speeds[num_cpus].append(report(small[-1], num_cpus))
    with tempfile.TemporaryDirectory() as folder:
        write_frames(Path(folder), options.frames, (height_px, width_px))
        large = measure(Path(folder), 2)
        report(large, 2)
    ratios = [two / one for one, two in zip(speeds[1], speeds[2], strict=True)]
    print(f"two CPUs beside one, median of {options.runs}: {statistics.median(ratios):.2f} times")
    for what in ("stage", "task"):
        growth = large[what] / max(run[what] for run in small)
        print_target(f"{what}'s memory at ten times the frames, times", growth, MAX_GROWTH)


def report(got: Mapping[str, float], num_cpus: int) -> float:
    """Print a row and return frames per second."""
    speed = got["frames"] / got["seconds"]
    row = "{:>10.0f}{:>10}{:>10.0f}{:>11.0f}{:>11.0f}{:>11.0f}"
    sizes = (got["stage"], got["task"], got["listing"])
    print(row.format(got["frames"], num_cpus, speed, *sizes), flush=True)
    return speed


if __name__ == "__main__":
    main()
