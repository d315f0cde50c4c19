"""Steps by precision, memory layout and compilation, and the largest batch of a GPU."""

import argparse
import gc
import statistics
from functools import partial
from typing import Any

import torch

from benchmarks.target import print_target
from benchmarks.training.step import Timer, make_batch, make_learner
from densedepth.errors import OutOfMemoryError
from densedepth.model import DenseDepth
from densedepth.precision import set_float32

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
        first_s = timer.seconds(partial(learners[name].train_step, batch))
        for _ in range(args.warm):
            learners[name].train_step(batch)
        if is_gpu:
            memory_gib[name] = (torch.cuda.max_memory_allocated() - before) / 2**30
        print(f"  {name}: first step {first_s:.2f} s", flush=True)
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(args.steps):
        for name, way in ways.items():
            set_float32(way.get("precision", "fp32"))
            times[name].append(timer.seconds(partial(learners[name].train_step, batch)))
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
            spent = [timer.seconds(partial(learner.train_step, batch)) for _ in range(8)]
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
