"""Training in plain PyTorch: one step, one epoch, one validation; no orchestrator.

``Learner`` holds what changes; ``fit`` runs epochs and tells its caller through two functions.
Under ``torch.distributed`` the caller passes the wrapped network as ``forward``.
"""

import math
import time
from collections.abc import Callable, Iterable
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn

from densedepth.augment import augment_batch
from densedepth.data.batch import Batch, PackedBatch
from densedepth.depth_range import DepthRange
from densedepth.losses import DepthLoss
from densedepth.metric_table import MetricTable
from densedepth.metrics import image_metrics
from densedepth.model import DenseDepth

LOG_EVERY_STEPS = 10
"""Steps whose losses are fetched from the device together: fetching waits for the device."""


@dataclass(frozen=True)
class StepRecord:
    """Figures of one step, or of the steps since the record before (their mean)."""

    epoch: int
    step: int
    metrics: dict[str, float]


@dataclass(frozen=True)
class EpochResult:
    """Figures of one epoch."""

    epoch: int
    step: int
    train_loss: float
    metrics: dict[str, float]
    seconds: float


def rate_factor(
    step: int,
    num_steps: int,
    schedule: Literal["constant", "cosine"],
    warmup_steps: int = 0,
    final_factor: float = 0.01,
) -> float:
    """Return the learning rate of a step as a share of the peak rate."""
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    if schedule == "constant":
        return 1.0
    share = (step - warmup_steps) / max(1, num_steps - warmup_steps)
    return final_factor + (1 - final_factor) * 0.5 * (1 + math.cos(math.pi * min(1.0, share)))


@dataclass(frozen=True)
class TrainSettings:
    """What the loop needs to know beside the network; see ``stages.recipe`` for meanings."""

    num_steps: int
    learning_rate: float = 1e-4
    encoder_rate_factor: float = 1.0
    betas: tuple[float, float] = (0.9, 0.999)
    amsgrad: bool = False
    weight_decay: float = 0.0
    schedule: Literal["constant", "cosine"] = "constant"
    warmup_steps: int = 0
    final_rate_factor: float = 0.01
    clip_gradient_norm: float | None = None
    flip_probability: float = 0.5
    channel_swap_probability: float = 0.25
    ema_decay: float | None = None
    freeze_encoder_norm: bool = False
    masked: bool = False


@dataclass
class Learner:
    """Everything that training changes.

    Attributes:
        network: the bare network, whose weights are saved.
        forward: what is called: the network, or its DDP wrapping.
        settings: the loop's settings.
        step: optimiser steps done.
        epoch: epochs done.
    """

    network: DenseDepth
    forward: nn.Module
    loss: DepthLoss
    depth_range: DepthRange
    settings: TrainSettings
    device: torch.device
    step: int = 0
    epoch: int = 0
    ema: DenseDepth | None = None
    optimiser: torch.optim.Optimizer = field(init=False)

    def __post_init__(self) -> None:
        s = self.settings
        # In the network's order: the optimiser's state is saved by position.
        parts: dict[bool, list[nn.Parameter]] = {True: [], False: []}
        for name, parameter in self.network.named_parameters():
            parts[name.startswith("encoder.")].append(parameter)
        groups = [
            {"params": parts[True], "factor": s.encoder_rate_factor},
            {"params": parts[False], "factor": 1.0},
        ]
        # AdamW with no decay is Adam.
        self.optimiser = torch.optim.AdamW(
            groups,
            lr=s.learning_rate,
            betas=s.betas,
            amsgrad=s.amsgrad,
            weight_decay=s.weight_decay,
            fused=True,
        )
        if s.ema_decay is not None:
            self.ema = deepcopy(self.network).requires_grad_(False).eval()

    @property
    def best_network(self) -> DenseDepth:
        """The network to validate and keep: the moving average where there is one."""
        return self.ema if self.ema is not None else self.network

    def train_step(self, packed: Batch | PackedBatch) -> dict[str, Tensor]:
        """Do one optimiser step and return the loss and its terms, still on the device."""
        s = self.settings
        batch = packed.to(self.device)
        image, depth_m, valid = augment_batch(
            batch.image,
            batch.depth_m,
            batch.valid,
            sample_seeds=batch.sample_seeds,
            flip_probability=s.flip_probability,
            channel_swap_probability=s.channel_swap_probability,
        )
        image = (image.float() / 255).contiguous(memory_format=torch.channels_last)
        target = self.depth_range.to_target(depth_m)
        factor = rate_factor(
            self.step, s.num_steps, s.schedule, s.warmup_steps, s.final_rate_factor
        )
        for group in self.optimiser.param_groups:
            group["lr"] = s.learning_rate * factor * group["factor"]
        self.forward.train()
        if s.freeze_encoder_norm:  # ImageNet's statistics, not those of a few frames
            for layer in self.network.encoder.modules():
                if isinstance(layer, nn.BatchNorm2d):
                    layer.eval()
        terms = self.loss(self.forward(image), target, valid if s.masked else None)
        self.optimiser.zero_grad(set_to_none=True)
        terms.total.backward()
        if s.clip_gradient_norm is not None:
            torch.nn.utils.clip_grad_norm_(self.network.parameters(), s.clip_gradient_norm)
        self.optimiser.step()
        self.step += 1
        self._update_ema()
        return {
            "loss": terms.total.detach(),
            "loss_l1": terms.l1.detach(),
            "loss_gradient": terms.gradient.detach(),
            "loss_ssim": terms.ssim.detach(),
        }

    @torch.no_grad()
    def _update_ema(self) -> None:
        if self.ema is None or self.settings.ema_decay is None:
            return
        decay = min(self.settings.ema_decay, (1 + self.step) / (10 + self.step))
        ours, theirs = self.ema.state_dict(), self.network.state_dict()
        floats = [name for name, value in ours.items() if value.dtype.is_floating_point]
        torch._foreach_lerp_([ours[n] for n in floats], [theirs[n] for n in floats], 1 - decay)
        for name in ours.keys() - set(floats):
            ours[name].copy_(theirs[name])

    @torch.no_grad()
    def validate(self, batches: Iterable[Batch | PackedBatch]) -> dict[str, float]:
        """Compute loss and metrics over a split at the network's output size, all ranks together.

        Returns:
            ``loss`` (mean over samples) and per-image means of the metrics, both over valid pixels:
            filling makes training depth dense, validation depth keeps its holes.
        """
        network = self.best_network.eval()
        distributed = dist.is_initialized() and dist.get_world_size() > 1
        if distributed:  # each rank's batch norm saw its own samples: rank 0's are what is saved
            for buffer in network.buffers():
                dist.broadcast(buffer, src=0)
        table, loss_sum, count = MetricTable("validation"), 0.0, 0
        for packed in batches:
            batch = packed.to(self.device)
            image = (batch.image.float() / 255).contiguous(memory_format=torch.channels_last)
            predicted = network(image)
            target = self.depth_range.to_target(batch.depth_m)
            terms = self.loss(predicted, target, batch.valid)
            loss_sum += float(terms.total) * len(batch.keys)
            count += len(batch.keys)
            predicted_m = self.depth_range.to_depth_m(predicted).cpu().numpy()
            truth_m, valid = batch.depth_m.cpu().numpy(), batch.valid.cpu().numpy()
            for i, key in enumerate(batch.keys):
                table.update(key, image_metrics(predicted_m[i, 0], truth_m[i, 0], valid[i, 0]))
        if distributed:
            parts: list[Any] = [None] * dist.get_world_size()
            dist.all_gather_object(parts, (table.to_dict(), loss_sum, count))
            table, loss_sum, count = MetricTable("validation"), 0.0, 0
            for part, part_loss, part_count in parts:
                table.merge(MetricTable.from_dict(part))
                loss_sum += part_loss
                count += part_count
        if not count:  # no validation split: no figures, rather than made-up ones
            return {}
        means = table.compute().per_image_mean if table.num_images else {}
        return {"loss": loss_sum / count, **means}

    def state(self) -> dict[str, Any]:
        """Return everything that a restart needs, for ``torch.save``."""
        return {
            "network": self.network.state_dict(),
            "ema": self.ema.state_dict() if self.ema is not None else None,
            "optimiser": self.optimiser.state_dict(),
            "step": self.step,
            "epoch": self.epoch,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from what ``state`` returned."""
        self.network.load_state_dict(state["network"])
        if self.ema is not None and state["ema"] is not None:
            self.ema.load_state_dict(state["ema"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.step, self.epoch = state["step"], state["epoch"]


def fit(
    learner: Learner,
    *,
    epochs: int,
    train: Callable[[int], Iterable[Batch | PackedBatch]],
    validation: Callable[[], Iterable[Batch | PackedBatch]],
    on_step: Callable[[StepRecord], None],
    on_epoch: Callable[[EpochResult], None],
) -> None:
    """Train from the learner's epoch to the last.

    Args:
        learner: what is trained; its ``epoch`` says where to begin.
        epochs: passes in all.
        train: epoch -> this rank's batches.
        validation: this rank's share of the validation split.
        on_step: called every ``LOG_EVERY_STEPS`` steps with their mean figures.
        on_epoch: called after each epoch, on every rank.
    """
    for epoch in range(learner.epoch, epochs):
        started = time.monotonic()
        pending: list[Tensor] = []
        loss_sum, num_steps = 0.0, 0
        names: tuple[str, ...] = ()
        window_started, wait_s, num_images = time.monotonic(), 0.0, 0
        batches = iter(train(epoch))
        while True:
            asked = time.monotonic()
            batch = next(batches, None)
            wait_s += time.monotonic() - asked
            if batch is not None:
                terms = learner.train_step(batch)
                names = tuple(terms)
                pending.append(torch.stack(list(terms.values())))
                num_images += len(batch.keys)
            if pending and (batch is None or len(pending) == LOG_EVERY_STEPS):
                rows = torch.stack(pending).double().cpu()
                elapsed = time.monotonic() - window_started
                loss_sum += float(rows[:, 0].sum())
                num_steps += len(rows)
                metrics = dict(zip(names, rows.mean(0).tolist(), strict=True))
                metrics["learning_rate"] = learner.optimiser.param_groups[-1]["lr"]
                metrics["images_per_second"] = num_images / max(elapsed, 1e-9)
                metrics["data_wait_share"] = wait_s / max(elapsed, 1e-9)
                on_step(StepRecord(epoch, learner.step, metrics))
                pending, window_started, wait_s, num_images = [], time.monotonic(), 0.0, 0
            if batch is None:
                break
        learner.epoch = epoch + 1
        metrics = learner.validate(validation())
        seconds = time.monotonic() - started
        on_epoch(EpochResult(epoch, learner.step, loss_sum / max(1, num_steps), metrics, seconds))
