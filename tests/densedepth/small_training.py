"""A training that takes a moment: pictures whose brightness is their depth, a tiny network."""

import contextlib
import copy
from collections.abc import Sequence

import pytest
import torch

from densedepth.data.batch import Batch
from densedepth.depth_range import DepthRange
from densedepth.learner import Learner
from densedepth.losses import DepthLoss
from densedepth.model import DenseDepth
from densedepth.schedule import Schedule
from densedepth.train_settings import TrainSettings
from densedepth.training import Listeners, fit
from densedepth.validation import ValidationSplit

RANGE = DepthRange(0.5, 10.0)
AVERAGE = {"schedule": "cosine", "ema_decay": 0.9, "amsgrad": True}
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


def batch(seed: int, size: int = 2) -> Batch:
    """Pictures whose brightness is their depth: something that can be learned at once."""
    generator = torch.Generator().manual_seed(seed)
    near = torch.rand((size, 1, 1, 1), generator=generator)
    ramp = torch.linspace(0, 1, 32).view(1, 1, 32, 1).expand(size, 1, 32, 32)
    depth_m = 1 + 6 * (0.5 * near + 0.5 * ramp)
    shade = ((depth_m - 1) / 6 * 255).to(torch.uint8)
    image = shade.repeat_interleave(2, 2).repeat_interleave(2, 3).expand(size, 3, 64, 64)
    return Batch(
        keys=tuple(f"s{seed}-{i}" for i in range(size)),
        image=image.contiguous(),
        depth_m=depth_m.contiguous(),
        valid=torch.ones_like(depth_m, dtype=torch.bool),
        sample_seeds=torch.arange(size, dtype=torch.int64) + 100 * seed,
    )


def make_learner(
    encoder: str = "mobilenet_v2", schedule: str = "constant", device: str = "cpu", **changes
) -> Learner:
    torch.manual_seed(0)
    network = DenseDepth(encoder, 0.0625).to(device, memory_format=torch.channels_last)
    settings = TrainSettings(
        Schedule(12, schedule, drop_every_steps=4), **{"learning_rate": 1e-3, **changes}
    )
    loss = DepthLoss(RANGE.max_target).to(device)
    return Learner(network, network, loss, RANGE, settings, torch.device(device))


def spoilt(number: int, size: int = 2) -> Batch:
    """A batch whose second picture is white, of which ``afraid_of_white`` has no estimate."""
    spoiled = batch(number, size)
    spoiled.image[1] = 255
    return spoiled


def afraid_of_white(**changes) -> Learner:
    learner = make_learner(**changes)

    def no_number(network, inputs, output):
        is_white = (inputs[0] > 0.999).flatten(1).all(1)
        return output * torch.where(is_white, torch.nan, 1.0)[:, None, None, None]

    learner.network.register_forward_hook(no_number)
    return learner


def batches(epoch: int, next_sample: int = 0) -> list[Batch]:
    """Three batches of two samples an epoch, from a sample on."""
    return [batch(10 * epoch + i) for i in range(next_sample // 2, 3)]


def split_of(batches: Sequence[Batch], num_rounds: int | None = None) -> ValidationSplit:
    """A split of which this rank does one batch a round; it counts rounds, not samples."""
    return ValidationSplit(num_rounds or len(batches), 1, lambda first: batches[first:])


class Stopped(Exception):
    """Stands for whatever ends a process."""


def train(
    learner: Learner, epochs: int, feed=batches, *, save_at=(), stop: bool = False, val=(999, 3)
):
    """Train; return what was reported and the states that were saved, the last one the end of it
    if it is to stop there.

    ``val`` is a batch to validate on, or a split; ``save_at`` has None for its rounds.
    """
    split = val if isinstance(val, ValidationSplit) else split_of([batch(*val)])
    told = {"steps": [], "epochs": [], "skipped": [], "validated": [], "states": []}

    def save() -> None:
        told["states"].append(copy.deepcopy(learner.state()))
        if stop:
            raise Stopped

    with contextlib.suppress(Stopped):
        fit(
            learner,
            epochs=epochs,
            train=feed,
            validation=split,
            listeners=Listeners(
                on_step=told["steps"].append,
                on_epoch=told["epochs"].append,
                on_skip=told["skipped"].append,
                on_save=save,
                on_validated=lambda *counts: told["validated"].append(counts),
                is_save_due=lambda step: step in save_at,
            ),
        )
    return told


def weights(learner: Learner) -> list[torch.Tensor]:
    return [value.clone() for value in learner.best_network.state_dict().values()]
