"""Loss and metrics over a split, by all ranks together; interrupted, it goes on where it was."""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

from densedepth.data.batch import Batch, PackedBatch
from densedepth.learner import Learner
from densedepth.metric_table import MetricTable
from densedepth.metrics import ImageMetrics, image_metrics

ScoredRound = list[tuple[str, ImageMetrics]]
"""Frames by key, and their figures."""


@dataclass(frozen=True)
class ValidationSplit:
    """A split that all ranks go through together, round by round.

    Attributes:
        num_samples: in all; 0 = nothing is validated.
        round_size: samples that all ranks together do in a round; in the last one a rank may have
            fewer, or none.
        batches: (next sample) -> this rank's batches from there, one a round.
        scored: (next sample) -> this rank's frames from there as a protocol scores them, a list a
            round; None = metrics are taken at the network's output size.
        new_table: for what is scored.
    """

    num_samples: int
    round_size: int
    batches: Callable[[int], Iterable[Batch | PackedBatch]]
    scored: Callable[[int], Iterable[ScoredRound]] | None = None
    new_table: Callable[[], MetricTable] = lambda: MetricTable("validation")


NO_VALIDATION = ValidationSplit(0, 1, lambda first: ())


class Validation:
    """A pass over a split; ``learner.progress`` says where it begins.

    Args:
        learner: whose best network is validated.
        split: the samples.
    """

    def __init__(self, learner: Learner, split: ValidationSplit) -> None:
        self.learner, self.split = learner, split
        self._mine = _Figures(split.new_table())

    def rounds(self) -> Iterator[int]:
        """Go through the split; yield between two rounds how many samples all ranks have done."""
        split, first = self.split, self.learner.progress.validated
        network = self.learner.best_network.eval()
        if (
            self._is_shared
        ):  # each rank's batch norm saw its own samples: rank 0's are what is saved
            for buffer in network.buffers():
                dist.broadcast(buffer, src=0)
        batches = iter(split.batches(first))
        scored = None if split.scored is None else iter(split.scored(first))
        for done in range(first, split.num_samples, split.round_size):
            if done > first:
                yield done
            if (batch := next(batches, None)) is not None:
                self._measure(batch.to(self.learner.device), is_scored=scored is not None)
            for key, metrics in () if scored is None else next(scored, ()):
                self._mine.table.update(key, metrics)
        assert next(batches, None) is None, "the split has more batches than rounds"

    def note(self, num_done: int) -> None:
        """Put what all ranks have found so far into ``learner.progress``, to be saved with it."""
        progress, found = self.learner.progress, self._all()
        progress.validated, progress.found = num_done, found.to_dict()
        self._mine = _Figures(self.split.new_table())

    def figures(self) -> dict[str, float]:
        """Return ``loss`` (mean over samples) and per-image means of the metrics.

        Both over valid pixels: filling makes training depth dense, validation depth keeps its
        holes. Nothing where there is no sample.
        """
        found = self._all()
        count = sum(size for _, size in found.losses)
        if not count:  # no validation split: no figures, rather than made-up ones
            return {}
        loss = math.fsum(part for part, _ in found.losses) / count
        means = found.table.compute().per_image_mean if found.table.num_images else {}
        return {"loss": loss, **means}

    @property
    def _is_shared(self) -> bool:
        """Whether there are other ranks."""
        return dist.is_initialized() and dist.get_world_size() > 1

    @torch.no_grad()
    def _measure(self, batch: Batch, is_scored: bool) -> None:
        """Compute a batch's loss, and its metrics at the network's output size, in float32."""
        learner = self.learner
        image = (batch.image.float() / 255).contiguous(memory_format=torch.channels_last)
        predicted = learner.best_network(image)
        target = learner.depth_range.to_target(batch.depth_m)
        loss = float(learner.loss(predicted, target, batch.valid).total)
        self._mine.losses.append((loss * len(batch.keys), len(batch.keys)))
        if is_scored:
            return
        predicted_m = learner.depth_range.to_depth_m(predicted).cpu().numpy()
        truth_m, valid = batch.depth_m.cpu().numpy(), batch.valid.cpu().numpy()
        for i, key in enumerate(batch.keys):
            metrics = image_metrics(predicted_m[i, 0], truth_m[i, 0], valid[i, 0])
            self._mine.table.update(key, metrics)

    def _all(self) -> "_Figures":
        """Return what was found before an interruption, and since by all ranks."""
        parts: list[Any] = [self._mine.to_dict()]
        if self._is_shared:
            parts = [None] * dist.get_world_size()
            dist.all_gather_object(parts, self._mine.to_dict())
        found = _Figures(self.split.new_table())
        for part in [self.learner.progress.found, *parts]:
            found.add(part)
        return found


class _Figures:
    """Each batch's loss times its samples, and their number; a table of the metrics."""

    def __init__(self, table: MetricTable) -> None:
        self.table = table
        self.losses: list[tuple[float, int]] = []

    def to_dict(self) -> dict[str, Any]:
        return {"losses": self.losses, "table": self.table.to_dict()}

    def add(self, part: dict[str, Any]) -> None:
        if part:
            self.table.merge(MetricTable.from_dict(part["table"]))
            self.losses += part["losses"]


def validate(learner: Learner, split: ValidationSplit) -> dict[str, float]:
    """Validate without an interruption; ``Validation.figures`` of it."""
    validation = Validation(learner, split)
    for _ in validation.rounds():
        pass
    return validation.figures()
