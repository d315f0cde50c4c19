"""What a training step takes: a batch in memory, a learner, and a timer of the device."""

import argparse
import time
from collections.abc import Callable
from typing import Any

import torch

from densedepth.data.batch import Batch
from densedepth.depth_range import NYU
from densedepth.learner import Learner
from densedepth.losses import DepthLoss
from densedepth.model import DenseDepth
from densedepth.schedule import Schedule
from densedepth.train_settings import TrainSettings


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
