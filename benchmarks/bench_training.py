"""Training steps: the loop against a bare one, precisions and layouts, two ranks, saving.

    python -m benchmarks.bench_training [--parts settings,loop,parts,ranks,saving]
        [--device cuda] [--encoder densenet169] [--size 240 320] [--batch 4] [--steps 5]

The peer of the settings is float32, contiguous, eager, as the published code trains; the peer of
the loop is forward, loss, backward and Adam on tensors that are in memory already, on the same
network with the same settings. All ways of a part take turns, step by step.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing
from torch import nn

from densedepth.checkpoint import save_network
from densedepth.data.batch import Batch, PackedBatch
from densedepth.depth_range import NYU
from densedepth.device_feed import ahead_on_device
from densedepth.learner import Learner, TrainSettings
from densedepth.losses import DepthLoss
from densedepth.model import DenseDepth
from densedepth.precision import set_float32
from densedepth.schedule import Schedule

PEER = "float32, contiguous, eager"
WAYS: dict[str, dict[str, Any]] = {
    PEER: {"channels_last": False},
    "float32, channels_last": {},
    "tf32, channels_last": {"precision": "tf32"},
    "bf16, contiguous": {"precision": "bf16", "channels_last": False},
    "bf16, channels_last": {"precision": "bf16"},
    "fp16, channels_last": {"precision": "fp16"},
    "bf16, channels_last, compiled": {"precision": "bf16", "compiled": True},
}
GPU_ONLY = ("tf32, channels_last", "fp16, channels_last")
LEAST_SHARE_OF_BARE = 0.98
LEAST_GAIN_ON_A_GPU = 4.0


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


def bare_step(learner: Learner, batch: Batch) -> Callable[[], object]:
    """One step as a plain script does it, on what is in memory already."""
    optimiser = torch.optim.Adam(learner.network.parameters(), 1e-4, fused=True)
    image = (batch.image.float() / 255).contiguous(memory_format=torch.channels_last)
    target = NYU.to_target(batch.depth_m)

    def step() -> None:
        learner.network.train()
        optimiser.zero_grad(set_to_none=True)
        learner.loss(learner.network(image), target).total.backward()
        optimiser.step()

    return step


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
    images = {name: args.batch / statistics.median(t) for name, t in times.items()}
    flop = 6 * macs(args)
    print(f"{'way':<32} {'images/s':>9} {'of the peer':>11} {'TFLOP/s':>8} {'GiB':>6}")
    for name, speed in images.items():
        gib = f"{memory_gib[name]:6.1f}" if name in memory_gib else ""
        tflops = speed * flop / 1e12
        share = f" = {tflops / args.peak_tflops:.0%} of peak" if args.peak_tflops else ""
        print(f"{name:<32} {speed:>9.2f} {speed / images[PEER]:>11.2f} {tflops:>8.2f} {gib}{share}")
    best = max(speed / images[PEER] for speed in images.values())
    if args.device.type == "cuda":
        verdict(best, LEAST_GAIN_ON_A_GPU, "the fastest settings, of float32 eager")


def macs(args: argparse.Namespace) -> float:
    """Multiply-adds of a forward pass of one image; a step takes three times as many."""
    from torch.utils.flop_counter import FlopCounterMode

    network = DenseDepth(args.encoder).to("meta").eval()
    with FlopCounterMode(display=False) as counter:
        network(torch.empty(1, 3, *args.size, device="meta"))
    return counter.get_total_flops() / 2


def loop_part(args: argparse.Namespace) -> None:
    """Compare the whole loop, shards and loader included, with the bare step."""
    timer = Timer(args.device)
    batch = make_batch(args)
    bare_learner, learner = make_learner(args), make_learner(args)
    step = bare_step(bare_learner, batch)
    bare_s, ours_s, wait_s = [], [], 0.0
    with tempfile.TemporaryDirectory() as folder:
        feed = ahead_on_device(from_shards(args, Path(folder)), args.device)
        for number in range(args.warm + args.steps):
            bare = timer.seconds(step)
            began = time.perf_counter()
            packed = next(feed)
            waited = time.perf_counter() - began
            ours = waited + timer.seconds(lambda packed=packed: learner.train_step(packed))
            if number >= args.warm:
                bare_s.append(bare)
                ours_s.append(ours)
                wait_s += waited
        feed.close()
    share = statistics.median(bare_s) / statistics.median(ours_s)
    print(
        f"bare loop {args.batch / statistics.median(bare_s):.2f} images/s, ours "
        f"{args.batch / statistics.median(ours_s):.2f}, data wait {wait_s / sum(ours_s):.1%}"
    )
    verdict(share, LEAST_SHARE_OF_BARE, "the loop's speed, of the bare loop's")


def from_shards(args: argparse.Namespace, folder: Path) -> Iterator[PackedBatch]:
    """Batches out of shards of frames of the benchmark's size, epoch after epoch."""
    from benchmarks.loader_peers import write_ours
    from benchmarks.pairs import make_pairs
    from densedepth.data.loader import BatchLoader, TrainBatches
    from densedepth.data.shard_source import LocalShards, ShardList

    write_ours(folder, make_pairs(max(16, 4 * args.batch)))
    paths = tuple(sorted(folder.glob("*.tar")))
    local = LocalShards(paths)
    counts = []
    for number in range(len(paths)):
        shard = local.open_shard(number)
        counts.append(len(shard.index))
        shard.file.close()
    epoch = 0
    while True:
        source = TrainBatches(
            ShardList(tuple(counts), local), 0, epoch, 0, 1, args.batch, tuple(args.size)
        )
        yield from BatchLoader(source, loader_processes=1, pin_memory=args.device.type == "cuda")
        epoch += 1


def parts_part(args: argparse.Namespace) -> None:
    """Say where a step's time goes."""
    timer = Timer(args.device)
    learner, batch = make_learner(args), make_batch(args)
    network, loss = learner.network.train(), learner.loss
    image = (batch.image.float() / 255).contiguous(memory_format=torch.channels_last)
    target = NYU.to_target(batch.depth_m)
    held: dict[str, Any] = {}
    deeds: dict[str, Callable[[], object]] = {
        "forward": lambda: held.update(predicted=network(image)),
        "loss": lambda: held.update(terms=loss(held["predicted"], target)),
        "backward": lambda: held["terms"].total.backward(),
        "optimiser": learner.optimiser.step,
        "whole step": lambda: learner.train_step(batch),
    }
    named: dict[str, list[float]] = {name: [] for name in deeds}
    for number in range(args.warm + args.steps):
        for name, deed in deeds.items():
            spent = timer.seconds(deed)
            if number >= args.warm:
                named[name].append(spent)
    for name, spent in named.items():
        print(f"{name:<16} {1e3 * statistics.median(spent):>9.1f} ms")


def ranks_part(args: argparse.Namespace) -> None:
    """Compare one rank with two, each with one thread and the same part of the batch."""
    speeds = {}
    for world_size in (1, 2):
        with tempfile.TemporaryDirectory() as folder:
            torch.multiprocessing.spawn(ranks_worker, (world_size, args, folder), nprocs=world_size)
            speeds[world_size] = float((Path(folder) / "speed").read_text())
        print(f"{world_size} rank(s): {speeds[world_size]:.2f} images/s")
    print(f"efficiency of two ranks: {speeds[2] / (2 * speeds[1]):.2f}")


def ranks_worker(rank: int, world_size: int, args: argparse.Namespace, folder: str) -> None:
    """Train on one rank; rank 0 writes the speed of all."""
    cuda = args.device.type == "cuda"
    args.device = torch.device("cuda", rank) if cuda else args.device
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
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)

        def save() -> None:
            torch.save(learner.state(), path / "state.pt")
            save_network(learner.best_network, NYU, path / "network.safetensors")

        stall_s = statistics.median(timer.seconds(save) for _ in range(args.steps))
        size_mb = sum(file.stat().st_size for file in path.iterdir()) / 1e6
    print(
        f"{size_mb:.0f} MB in {stall_s:.2f} s, {stall_s / step_s:.2f} steps; every minute that is "
        f"{stall_s / 60:.2%} of the time"
    )


def verdict(value: float, goal: float, what: str) -> None:
    """Say whether a goal is met."""
    print(f"{what}: {value:.3f} (goal {goal}) {'met' if value >= goal else 'NOT MET'}")


PARTS = {
    "settings": settings_part,
    "loop": loop_part,
    "parts": parts_part,
    "ranks": ranks_part,
    "saving": saving_part,
}


def main() -> None:
    """Run the parts that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    parser.add_argument("--encoder", default="densenet169")
    parser.add_argument("--size", type=int, nargs=2, default=[240, 320], help="height width")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--warm", type=int, default=1, help="steps before timing")
    parser.add_argument("--compile", action="store_true", help="also torch.compile: minutes")
    parser.add_argument("--peak-tflops", type=float, default=None, help="for the share of peak")
    args = parser.parse_args()
    where = torch.cuda.get_device_name() if args.device.type == "cuda" else "CPU"
    print(
        f"{args.encoder}, {args.size[0]}x{args.size[1]}, batch {args.batch}, {where}, "
        f"{torch.get_num_threads()} threads, torch {torch.__version__}"
    )
    for name in args.parts.split(","):
        print(f"\n-- {name}", flush=True)
        PARTS[name](args)


if __name__ == "__main__":
    main()
