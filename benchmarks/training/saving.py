"""How long a training stands still for saving."""

import argparse
import statistics
import tempfile
from pathlib import Path
from typing import Any

import torch

from benchmarks.target import print_target
from benchmarks.training.step import Timer, make_batch, make_learner
from densedepth.checkpoint import save_network
from densedepth.depth_range import NYU


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
