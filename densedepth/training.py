"""The loop in plain PyTorch: epochs of steps, each ended by a validation; no orchestrator.

``fit`` tells its caller through functions and can be stopped after any step: what ``Learner.state``
holds then goes on with the very next sample. Under ``torch.distributed`` the caller passes the
wrapped network as the learner's ``forward``.
"""

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

from densedepth.data.batch import Batch, PackedBatch
from densedepth.device_feed import ahead_on_device
from densedepth.epoch_progress import EpochProgress
from densedepth.errors import NonFiniteError
from densedepth.gpu import gpu_figures
from densedepth.learner import FIGURES, Learner, StepResult
from densedepth.on_its_way import OnItsWay
from densedepth.pace import Pace
from densedepth.validation import NO_VALIDATION, Validation, ValidationSplit

LOG_EVERY_STEPS = 10
"""Steps whose figures are fetched from the device together."""


@dataclass(frozen=True)
class StepRecord:
    """Figures of the steps since the record before: their mean, and how fast they were."""

    epoch: int
    step: int
    metrics: dict[str, float]


@dataclass(frozen=True)
class SkippedStep:
    """A step that changed nothing, since its loss or gradient was no number.

    Attributes:
        epoch: number of the epoch.
        step: the step, counted from 0.
        loss: what it came to.
        keys: the samples whose estimate was no number; where each one's was a number, all of the
            global batch: then the gradient overflowed.
    """

    epoch: int
    step: int
    loss: float
    keys: tuple[str, ...]


@dataclass(frozen=True)
class EpochResult:
    """Figures of one epoch."""

    epoch: int
    step: int
    train_loss: float
    metrics: dict[str, float]
    seconds: float


@dataclass(frozen=True)
class Listeners:
    """What ``fit`` calls, on every rank.

    Attributes:
        on_step: every ``LOG_EVERY_STEPS`` steps, on a GPU when it is in the step after them.
        on_epoch: after each epoch.
        on_skip: for each skipped step, some steps later.
        on_save: when ``is_save_due``; the learner's state may be saved.
        is_save_due: asked after each step with its number, and between a validation's rounds with
            None; all ranks must answer alike.
        on_validated: between a validation's rounds: samples done, samples in all.
    """

    on_step: Callable[[StepRecord], None]
    on_epoch: Callable[[EpochResult], None]
    on_skip: Callable[[SkippedStep], None] = lambda skipped: None
    on_save: Callable[[], None] = lambda: None
    is_save_due: Callable[[int | None], bool] = lambda step: False
    on_validated: Callable[[int, int], None] = lambda num_done, num_samples: None


def fit(
    learner: Learner,
    *,
    epochs: int,
    train: Callable[[int, int], Iterable[Batch | PackedBatch]],
    validation: ValidationSplit = NO_VALIDATION,
    listeners: Listeners,
    profiler: Any = None,
) -> None:
    """Train from where the learner is to the last epoch's end.

    Args:
        learner: what is trained; its ``epoch`` and ``progress`` say where to begin.
        epochs: passes in all.
        train: (epoch, next sample) -> this rank's batches from there.
        validation: the validation split, this rank's part of it.
        listeners: what is told.
        profiler: from ``profiling.step_profiler``, begun; told of each step, ended at the end.

    Raises:
        NonFiniteError: more steps than allowed gave no number.
        OutOfMemoryError: a batch does not fit.
        CudaGraphError: the network's passes cannot be captured on the GPU.
    """
    is_ahead = works_ahead(learner.device)
    for epoch in range(learner.epoch, epochs):
        run = _Epoch(learner, epoch, listeners)
        batches = iter(ahead_on_device(train(epoch, learner.progress.next_sample), learner.device))
        while (batch := run.wait_for(batches)) is not None:
            run.step(batch)
            if profiler is not None:
                profiler.step()
            run.receive()
            is_save_due = listeners.is_save_due(learner.step)
            if is_save_due or run.is_window_full:
                run.send()
            if is_save_due or not is_ahead:
                run.receive()
            if is_save_due:
                run.note_time()
                listeners.on_save()
        run.send()
        run.receive()
        run.tell()
        metrics = run.validate(validation)
        run.note_time()
        done, learner.progress, learner.epoch = learner.progress, EpochProgress(), epoch + 1
        train_loss = done.loss_sum / done.num_losses if done.num_losses else math.nan
        listeners.on_epoch(EpochResult(epoch, learner.step, train_loss, metrics, done.seconds))
    if profiler is not None:  # a training too short for all of its steps: those there were
        profiler.stop()


def works_ahead(device: torch.device) -> bool:
    """Say whether figures are asked for when the next step is under way already.

    A GPU would stand still while the host reads them, tells them and launches that step.
    """
    return device.type == "cuda"


@dataclass(frozen=True)
class _Step:
    """A step whose figures are still on the device."""

    number: int
    keys: tuple[str, ...]
    result: StepResult
    num_images: int
    wait_s: float


class _Epoch:
    """One epoch's book-keeping: figures that wait on the device, figures of the window."""

    def __init__(self, learner: Learner, epoch: int, listeners: Listeners) -> None:
        self.learner, self.epoch, self.listeners = learner, epoch, listeners
        self.world_size = dist.get_world_size() if dist.is_initialized() else 1
        self.pending: list[_Step] = []
        self.sent: tuple[list[_Step], OnItsWay] | None = None
        self.pace = Pace(learner.device)
        self.since = time.monotonic()
        self.window: list[_Step] = []
        self.window_since, self.wait_s = self.since, 0.0

    def wait_for(self, batches: Any) -> Batch | PackedBatch | None:
        """Take the next batch and note the time until it was there."""
        asked = time.monotonic()
        batch: Batch | PackedBatch | None = next(batches, None)
        self.wait_s = time.monotonic() - asked
        return batch

    def step(self, batch: Batch | PackedBatch) -> None:
        """Train on a batch."""
        number = self.learner.step
        result = self.learner.train_step(batch)
        size = self.learner.settings.global_batch_size or len(batch.keys) * self.world_size
        self.pending.append(_Step(number, batch.keys, result, size, self.wait_s))
        self.learner.progress.next_sample += size
        self.pace.step_queued()

    @property
    def is_window_full(self) -> bool:
        """Whether there are as many steps as make a record."""
        return len(self.pending) + len(self.learner.progress.window) >= LOG_EVERY_STEPS

    def send(self) -> None:
        """Let the figures that wait on the device begin their way to the host."""
        if not self.pending:
            return
        figures = torch.stack([step.result.figures for step in self.pending])
        if self.world_size > 1:  # summed in the ranks' order, however many steps there are
            parts = [torch.empty_like(figures) for _ in range(self.world_size)]
            dist.all_gather(parts, figures)
            figures = torch.stack(parts).sum(0)
        self.sent = self.pending, OnItsWay(figures / self.world_size)
        self.pending = []

    def receive(self) -> None:
        """Wait for the figures that were sent, and tell them where a window is full."""
        if self.sent is None:
            return
        (steps, figures), self.sent = self.sent, None
        progress = self.learner.progress
        for step, row in zip(steps, figures.arrived().tolist(), strict=True):
            progress.window.append(row)
            self.window.append(step)
            if row[-1]:
                self._note_skipped(step, row[0])
            else:
                progress.loss_sum += row[0]
                progress.num_losses += 1
        if self.is_window_full:
            self.tell()

    def tell(self) -> None:
        """Tell the mean figures of the window, and begin another."""
        progress, settings = self.learner.progress, self.learner.settings
        if not progress.window:
            return
        steps_done = self.learner.step - len(self.pending)
        now = time.monotonic()
        elapsed_s = max(1e-9, now - self.window_since)
        used = [row for row in progress.window if not row[-1]]
        metrics = {
            name: sum(row[i] for row in used) / len(used)
            for i, name in enumerate(FIGURES[:-1])
            if used
        }
        factor = settings.schedule.factor(steps_done - 1)
        metrics["learning_rate"] = settings.learning_rate * factor
        metrics["skipped_steps"] = float(self.learner.num_skipped)
        metrics["images_per_second"] = sum(step.num_images for step in self.window) / elapsed_s
        metrics["data_wait_share"] = sum(step.wait_s for step in self.window) / elapsed_s
        metrics |= gpu_figures(self.learner.device)
        progress.window, self.window, self.window_since = [], [], now
        self.listeners.on_step(StepRecord(self.epoch, steps_done, metrics))

    def validate(self, split: ValidationSplit) -> dict[str, float]:
        """Validate what the epoch has made, from where an interrupted validation was saved."""
        validation = Validation(self.learner, split)
        for num_done in validation.rounds():
            self.listeners.on_validated(num_done, split.num_samples)
            if self.listeners.is_save_due(None):
                validation.note(num_done)
                self.note_time()
                self.listeners.on_save()
        return validation.figures()

    def note_time(self) -> None:
        """Add the time since the last note."""
        now = time.monotonic()
        self.learner.progress.seconds += now - self.since
        self.since = now

    def _note_skipped(self, step: _Step, loss: float) -> None:
        if not self.learner.counts_as_skipped(loss):
            return
        is_offending = step.result.is_offending.tolist()
        offending = [key for key, bad in zip(step.keys, is_offending, strict=True) if bad]
        parts: list[Any] = [(offending, step.keys)]
        if self.world_size > 1:  # all ranks skipped it: they meet here
            parts = [None] * self.world_size
            dist.all_gather_object(parts, (offending, step.keys))
        named = [key for part, _ in parts for key in part]
        named = named or [key for _, part in parts for key in part]
        self.learner.num_skipped += 1
        self.listeners.on_skip(SkippedStep(self.epoch, step.number, loss, tuple(named)))
        limit = self.learner.settings.max_skipped_steps
        if self.learner.num_skipped > limit:
            raise NonFiniteError(
                f"{self.learner.num_skipped} steps gave a loss or gradient that is no number, the "
                f"last one step {step.number} of epoch {self.epoch} on {', '.join(named)}; "
                f"max_skipped_steps = {limit}. Look at these frames (shards preview), lower "
                "learning_rate, or set clip_gradient_norm, or precision = 'bf16' or 'fp32'"
            )
