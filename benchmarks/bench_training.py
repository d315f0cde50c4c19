"""Training steps: the loop against a bare one, precisions, two ranks, saving.

    python -m benchmarks.bench_training [--parts settings,loop,parts,ranks,saving]
        [--device cuda] [--encoder densenet169] [--size 240 320] [--batch 2] [--steps 6]

The peer of the settings is float32, contiguous, eager, as the published code trains; the peer of
the loop is forward, loss, backward and Adam on tensors that are in memory already, on the same
network with the same settings. All ways of a part take turns, step by step, in the same process
with the same threads. On a GPU the defaults are the paper's 480x640 in batches of 8.
"""

import argparse
import gc
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing
from torch import nn

from benchmarks.target import print_target
from densedepth.augment import augment_batch
from densedepth.checkpoint import save_network
from densedepth.cuda_graph import EAGER_STEPS, replay_as_graph
from densedepth.data.batch import Batch, PackedBatch
from densedepth.depth_range import NYU
from densedepth.errors import OutOfMemoryError
from densedepth.learner import Learner, TrainSettings
from densedepth.losses import DepthLoss
from densedepth.model import DenseDepth
from densedepth.precision import autocast, set_float32
from densedepth.schedule import Schedule
from densedepth.training import Listeners, fit

PEER = "float32, contiguous, eager"
FAST = "bf16, channels_last"
WAYS: dict[str, dict[str, Any]] = {
    PEER: {"channels_last": False, "cuda_graphs": False},
    "float32, channels_last": {},
    "tf32, channels_last": {"precision": "tf32"},
    "bf16, contiguous": {"precision": "bf16", "channels_last": False},
    "bf16, channels_last, eager": {"precision": "bf16", "cuda_graphs": False},
    FAST: {"precision": "bf16"},
    "fp16, channels_last": {"precision": "fp16"},
    "bf16, channels_last, compiled": {"precision": "bf16", "compiled": True},
}
GPU_ONLY = ("tf32, channels_last", "fp16, channels_last", "bf16, channels_last, eager")
LEAST_GAIN = {"cuda": 4.0, "cpu": 1.2}
"""Of the fastest settings over the peer; the CPU's is for one that multiplies bf16."""
MAX_BATCH = 1024


class Timer:
    """Times calls on a device that works ahead."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def seconds(self, call: Callable[[], object]) -> float:
        """Time a call to its end on the device."""
        self.wait()
        began = time.perf_counter()
        call()
        self.wait()
        return time.perf_counter() - began

    def wait(self) -> None:
        """Wait until the device has done all."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def make_batch(args: argparse.Namespace, size: int | None = None) -> Batch:
    """Random pictures and depths of the sizes asked for."""
    generator = torch.Generator().manual_seed(0)
    count, (height, width) = size or args.batch, args.size
    depth_m = torch.rand(count, 1, height // 2, width // 2, generator=generator) * 9 + 0.7
    shape = (count, 3, height, width)
    return Batch(
        keys=tuple(map(str, range(count))),
        image=torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator),
        depth_m=depth_m,
        valid=torch.ones_like(depth_m, dtype=torch.bool),
        sample_seeds=torch.arange(count),
    ).to(args.device)


def make_learner(args: argparse.Namespace, wrap: Any = None, **changes: Any) -> Learner:
    """The network and its learner, from the same seed."""
    torch.manual_seed(0)
    network = DenseDepth(args.encoder).to(args.device)
    settings = TrainSettings(Schedule(1000), **changes)
    if settings.channels_last:
        network = network.to(memory_format=torch.channels_last)
    forward = wrap(network) if wrap else network
    loss = DepthLoss(NYU.max_target).to(args.device)
    return Learner(network, forward, loss, NYU, settings, args.device)


def settings_part(args: argparse.Namespace) -> None:
    """Compare precisions, layouts and compilation, and say what fits on a GPU."""
    timer, batch = Timer(args.device), make_batch(args)
    is_gpu = args.device.type == "cuda"
    ways = {
        name: way
        for name, way in WAYS.items()
        if (is_gpu or name not in GPU_ONLY) and (args.compile or not way.get("compiled"))
    }
    learners, memory_gib = {}, {}
    for name, way in ways.items():
        before = torch.cuda.memory_allocated() if is_gpu else 0
        learners[name] = make_learner(args, **way)
        if is_gpu:
            torch.cuda.reset_peak_memory_stats()
        set_float32(way.get("precision", "fp32"))
        first_s = timer.seconds(lambda at=learners[name]: at.train_step(batch))
        for _ in range(args.warm):
            learners[name].train_step(batch)
        if is_gpu:
            memory_gib[name] = (torch.cuda.max_memory_allocated() - before) / 2**30
        print(f"  {name}: first step {first_s:.2f} s", flush=True)
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(args.steps):
        for name, way in ways.items():
            set_float32(way.get("precision", "fp32"))
            times[name].append(timer.seconds(lambda at=learners[name]: at.train_step(batch)))
    set_float32("fp32")
    images = {name: args.batch / statistics.median(t) for name, t in times.items()}
    tflop, peak = 6 * macs(args) / 1e12, matmul_tflops(args.device)
    print(f"a step takes {tflop:.2f} TFLOP an image; a bf16 matrix product does {peak:.2f} TFLOP/s")
    print(
        f"{'way':<32} {'images/s':>9} {'of the peer':>11} {'TFLOP/s':>8} {'of peak':>7} {'GiB':>6}"
    )
    for name, speed in images.items():
        gib = f"{memory_gib[name]:6.1f}" if name in memory_gib else ""
        of_peer, share = speed / images[PEER], speed * tflop / peak
        print(
            f"{name:<32} {speed:>9.2f} {of_peer:>11.2f} {speed * tflop:>8.2f} {share:>7.1%} {gib}"
        )
    best = max(speed for name, speed in images.items() if name != PEER) / images[PEER]
    goal = LEAST_GAIN[args.device.type]
    print_target("fastest settings, times float32 eager's images/s", best, goal, at_least=True)
    if is_gpu:
        learners.clear()
        print_largest(args, timer)


def print_largest(args: argparse.Namespace, timer: Timer) -> None:
    """Double the batch until it does not fit on the GPU; tell the speed of the last that did."""
    size, told = args.batch, ""
    while size <= MAX_BATCH:
        learner = None
        gc.collect()  # the one before
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        try:
            learner, batch = make_learner(args, **WAYS[FAST]), make_batch(args, size)
            # Called at once, in the round that made them: that a lambda binds late is no matter.
            spent = [timer.seconds(lambda: learner.train_step(batch)) for _ in range(8)]  # noqa: B023
        except (OutOfMemoryError, torch.OutOfMemoryError):
            break
        gib = torch.cuda.max_memory_allocated() / 2**30
        told = f"{size} images, {size / statistics.median(spent[5:]):.1f} images/s, {gib:.1f} GiB"
        size *= 2
    print(f"largest batch, doubled from {args.batch}, {FAST}: {told or 'none fits'}")


def macs(args: argparse.Namespace) -> float:
    """Multiply-adds of a forward pass of one image; a step takes three times as many."""
    from torch.utils.flop_counter import FlopCounterMode

    network = DenseDepth(args.encoder).to("meta").eval()
    with FlopCounterMode(display=False) as counter:
        network(torch.empty(1, 3, *args.size, device="meta"))
    return counter.get_total_flops() / 2


def matmul_tflops(device: torch.device) -> float:
    """Say how fast this device multiplies large bf16 matrices: as near to its peak as it gets."""
    side, timer = 8192 if device.type == "cuda" else 2048, Timer(device)
    a, b = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    spent = [timer.seconds(lambda: a @ b) for _ in range(8)]
    return 2 * side**3 / min(spent) / 1e12


def loop_part(args: argparse.Namespace) -> None:
    """Compare the whole loop, shards and loader included, with the bare step."""
    changes = {"precision": "bf16"} if args.device.type == "cuda" else {}
    set_float32(changes.get("precision", "fp32"))
    learner, bare = make_learner(args, **changes), make_learner(args, **changes)
    # Without waiting for the GPU after each step, or the host could not work ahead.
    in_a_row = 10 if args.device.type == "cuda" else 1
    turns = Turns(
        bare_step(bare, make_batch(args)),
        Timer(args.device),
        args.warm,
        max(2, 2 * args.steps // in_a_row),
        in_a_row,
    )
    count = turns.warm + turns.num_turns * in_a_row
    with tempfile.TemporaryDirectory() as folder:
        fit(
            learner,
            epochs=1,
            train=lambda epoch, first: turns.beside(from_shards(args, Path(folder), count)),
            validation=list,
            listeners=Listeners(on_step=lambda record: None, on_epoch=lambda result: None),
        )
    set_float32("fp32")
    bare_s, ours_s = statistics.median(turns.bare_s), statistics.median(turns.ours_s)
    print(
        f"bare loop {args.batch / bare_s:.2f} images/s, ours {args.batch / ours_s:.2f}, "
        f"{in_a_row} steps in turns, {turns.num_turns} turns each"
    )
    share = bare_s / ours_s
    print_target("the loop's images/s, share of the bare loop's", share, 0.98, at_least=True)
    wait = sum(turns.wait_s) / sum(turns.ours_s)
    print_target("time that waits for data, %", 100 * wait, 2)


def bare_step(learner: Learner, batch: Batch) -> Callable[[], object]:
    """One step as a plain script does it, on what is in memory already."""
    optimiser = torch.optim.Adam(learner.network.parameters(), 1e-4, fused=True)
    image = (batch.image.float() / 255).contiguous(memory_format=torch.channels_last)
    target = NYU.to_target(batch.depth_m)

    def step() -> None:
        learner.network.train()
        optimiser.zero_grad(set_to_none=True)
        with autocast(learner.settings.precision, learner.device):
            predicted = learner.network(image)
        learner.loss(predicted.float(), target).total.backward()
        optimiser.step()

    if learner.device.type == "cuda" and learner.settings.cuda_graphs:
        for _ in range(EAGER_STEPS):
            step()
        replay_as_graph(learner.network, image, learner.settings.precision)
    return step


@dataclass
class Turns:
    """Does bare steps after the loop's, as many, and takes the time of a step of both.

    The loop's is everything between two turns of bare ones: waiting for batches, copying them, the
    steps, their figures.

    Attributes:
        bare: does one bare step.
        timer: of the device.
        warm: steps of both before the first turn.
        num_turns: how often each has its turn.
        in_a_row: steps of a turn.
        bare_s: a bare step of each turn.
        ours_s: a step of the loop's.
        wait_s: the part of it that waited for a batch.
    """

    bare: Callable[[], object]
    timer: Timer
    warm: int
    num_turns: int
    in_a_row: int
    bare_s: list[float] = field(default_factory=list)
    ours_s: list[float] = field(default_factory=list)
    wait_s: list[float] = field(default_factory=list)

    def beside(self, batches: Iterator[PackedBatch]) -> Iterator[PackedBatch]:
        """Pass batches on to the loop."""
        for _ in range(self.warm):
            self.bare()
            yield next(batches)
        for _ in range(self.num_turns):
            self.bare_s.append(self.timer.seconds(self.bare_turn) / self.in_a_row)
            began, waited_s = time.perf_counter(), 0.0
            for _ in range(self.in_a_row):
                asked = time.perf_counter()
                packed = next(batches)
                waited_s += time.perf_counter() - asked
                yield packed
            self.timer.wait()
            self.ours_s.append((time.perf_counter() - began) / self.in_a_row)
            self.wait_s.append(waited_s / self.in_a_row)

    def bare_turn(self) -> None:
        """Do as many bare steps as the loop does its own."""
        for _ in range(self.in_a_row):
            self.bare()


def from_shards(args: argparse.Namespace, folder: Path, num_batches: int) -> Iterator[PackedBatch]:
    """An epoch of that many batches out of shards, made by another process."""
    from benchmarks.loader_peers import write_ours
    from benchmarks.pairs import make_pairs
    from densedepth.data.loader import BatchLoader, TrainBatches
    from densedepth.data.shard_source import LocalShards, ShardList

    write_ours(folder, make_pairs(num_batches * args.batch))
    paths = tuple(sorted(folder.glob("*.tar")))
    local = LocalShards(paths)
    counts = []
    for number in range(len(paths)):
        shard = local.open_shard(number)
        counts.append(len(shard.index))
        shard.file.close()
    is_gpu = args.device.type == "cuda"
    processes = max(1, min(8, (os.cpu_count() or 1) - 1)) if is_gpu else 1
    shards = ShardList(tuple(counts), local)
    source = TrainBatches(shards, 0, 0, 0, 1, args.batch, tuple(args.size))
    yield from BatchLoader(source, loader_processes=processes, pin_memory=is_gpu)


def parts_part(args: argparse.Namespace) -> None:
    """Say where a step's time goes, launched kernel by kernel."""
    timer = Timer(args.device)
    precision = "bf16" if args.device.type == "cuda" else "fp32"
    set_float32(precision)
    learner = make_learner(args, precision=precision, cuda_graphs=False)
    batch = make_batch(args)
    network, loss = learner.network.train(), learner.loss
    held: dict[str, Any] = {}

    def prepare() -> None:
        image, depth_m, _ = augment_batch(
            batch.image, batch.depth_m, batch.valid, sample_seeds=batch.sample_seeds
        )
        held["image"] = (image.float() / 255).contiguous(memory_format=torch.channels_last)
        held["target"] = NYU.to_target(depth_m)

    def forward() -> None:
        with autocast(precision, args.device):
            held["predicted"] = network(held["image"])

    deeds: dict[str, Callable[[], object]] = {
        "augmentation": prepare,
        "forward": forward,
        "loss": lambda: held.update(terms=loss(held["predicted"], held["target"])),
        "backward": lambda: held["terms"].total.backward(),
        "optimiser": learner.optimiser.step,
        "whole step": lambda: learner.train_step(batch),
    }
    named: dict[str, list[float]] = {name: [] for name in deeds}
    for number in range(args.warm + args.steps):
        learner.optimiser.zero_grad(set_to_none=True)
        for name, deed in deeds.items():
            spent = timer.seconds(deed)
            if number >= args.warm:
                named[name].append(spent)
    seconds = {name: statistics.median(spent) for name, spent in named.items()}
    whole = seconds["whole step"]
    for name, spent_s in seconds.items():
        print(f"{name:<16} {1e3 * spent_s:>9.1f} ms {spent_s / whole:>6.1%}")
    rest = max(0.0, 2 - sum(seconds.values()) / whole)
    print_target("of a step in none of its parts, %", 100 * rest, 5)


def ranks_part(args: argparse.Namespace) -> None:
    """Compare one rank with two, each with one thread, or GPU, and the same part of the batch."""
    if args.device.type == "cuda" and torch.cuda.device_count() < 2:
        print("one GPU: the efficiency of two ranks was not measured")
        return
    speeds = {}
    for world_size in (1, 2):
        with tempfile.TemporaryDirectory() as folder:
            torch.multiprocessing.spawn(ranks_worker, (world_size, args, folder), nprocs=world_size)
            speeds[world_size] = float((Path(folder) / "speed").read_text())
        print(f"{world_size} rank(s): {speeds[world_size]:.2f} images/s", flush=True)
    efficiency = speeds[2] / (2 * speeds[1])
    print_target("two ranks' images/s, share of twice one's", efficiency, 0.9, at_least=True)


def ranks_worker(rank: int, world_size: int, args: argparse.Namespace, folder: str) -> None:
    """Train on one rank; rank 0 writes the speed of all."""
    cuda = args.device.type == "cuda"
    args.device = torch.device("cuda", rank) if cuda else args.device
    if cuda:
        torch.cuda.set_device(args.device)
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    dist.init_process_group(
        "nccl" if cuda else "gloo",
        init_method=f"file://{folder}/meet",
        rank=rank,
        world_size=world_size,
    )
    wrap = nn.parallel.DistributedDataParallel if world_size > 1 else None
    learner, batch, timer = make_learner(args, wrap), make_batch(args), Timer(args.device)
    spent = [
        timer.seconds(lambda: learner.train_step(batch)) for _ in range(args.warm + args.steps)
    ]
    if rank == 0:
        speed = world_size * args.batch / statistics.median(spent[args.warm :])
        (Path(folder) / "speed").write_text(str(speed))
    dist.destroy_process_group()


def saving_part(args: argparse.Namespace) -> None:
    """Say how long a training stands still for saving; the upload goes on beside it."""
    timer = Timer(args.device)
    learner, batch = make_learner(args, ema_decay=0.99), make_batch(args)
    step_s = [timer.seconds(lambda: learner.train_step(batch)) for _ in range(args.warm + 1)][-1]
    held: list[dict[str, Any]] = []

    def copy() -> None:
        held[:] = [learner.snapshot()]

    stall_s = statistics.median(timer.seconds(copy) for _ in range(5))
    with tempfile.TemporaryDirectory() as folder:
        path, (state,) = Path(folder), held

        def write() -> None:
            torch.save(state, path / "state.pt")
            save_network(learner.network, NYU, path / "network.safetensors", weights=state["ema"])

        write_s = statistics.median(timer.seconds(write) for _ in range(3))
        size_mb = sum(file.stat().st_size for file in path.iterdir()) / 1e6
    print(
        f"{size_mb:.0f} MB; training stands still for {stall_s:.2f} s, {stall_s / step_s:.2f} "
        f"steps; writing takes {write_s:.2f} s beside it"
    )
    print_target("stall of a save, seconds", stall_s, 0.02 * 60)  # 2 % at a save every minute


PARTS = {
    "settings": settings_part,
    "loop": loop_part,
    "parts": parts_part,
    "ranks": ranks_part,
    "saving": saving_part,
}


def main() -> None:
    """Run the parts that are asked for."""
    is_gpu = torch.cuda.is_available()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--device", type=torch.device, default="cuda" if is_gpu else "cpu")
    parser.add_argument("--encoder", default="densenet169")
    parser.add_argument("--size", type=int, nargs=2, default=None, help="height width")
    parser.add_argument("--batch", type=int, default=None)
    parser.add_argument("--steps", type=int, default=None)
    parser.add_argument("--warm", type=int, default=None, help="steps before timing")
    parser.add_argument("--compile", action="store_true", help="also torch.compile: minutes")
    args = parser.parse_args()
    is_gpu = args.device.type == "cuda"
    args.size = args.size or ([480, 640] if is_gpu else [240, 320])
    args.batch = args.batch or (8 if is_gpu else 2)
    args.steps = args.steps or (30 if is_gpu else 6)
    args.warm = args.warm or (5 if is_gpu else 1)
    where = torch.cuda.get_device_name() if is_gpu else "CPU"
    print(
        f"{args.encoder}, {args.size[0]}x{args.size[1]}, batch {args.batch}, {where}, "
        f"{torch.get_num_threads()} threads, torch {torch.__version__}"
    )
    for name in args.parts.split(","):
        print(f"\n-- {name}", flush=True)
        PARTS[name](args)


if __name__ == "__main__":
    main()
