"""Two ranks beside one, in processes of their own."""

import argparse
import os
import statistics
import tempfile
from functools import partial
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing
from torch import nn

from benchmarks.target import print_target
from benchmarks.training.step import Timer, make_batch, make_learner
from densedepth.ranks import ddp_options


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
    options = ddp_options(args.device, world_size)
    wrap = partial(nn.parallel.DistributedDataParallel, **options) if world_size > 1 else None
    learner, batch, timer = make_learner(args, wrap), make_batch(args), Timer(args.device)
    spent = [
        timer.seconds(lambda: learner.train_step(batch)) for _ in range(args.warm + args.steps)
    ]
    if rank == 0:
        speed = world_size * args.batch / statistics.median(spent[args.warm :])
        (Path(folder) / "speed").write_text(str(speed))
    dist.destroy_process_group()
