"""Where a step's time goes: augmentation, forward, loss, backward, optimiser."""

import argparse
import statistics
from collections.abc import Callable
from typing import Any

import torch

from benchmarks.target import print_target
from benchmarks.training.step import Timer, make_batch, make_learner
from densedepth.augment import augment_batch
from densedepth.depth_range import NYU
from densedepth.precision import autocast, set_float32


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
