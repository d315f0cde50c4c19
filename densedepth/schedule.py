"""The learning rate of every step, as a share of its peak."""

import math
from dataclasses import dataclass
from typing import Literal

ScheduleKind = Literal["constant", "cosine", "one_cycle", "step"]

ONE_CYCLE_START = 1 / 25
"""Where one-cycle begins, as a share of the peak (Smith and Topin 2018; torch's default)."""
ONE_CYCLE_RISE = 0.3
"""Share of the steps that one-cycle rises for, where no warm-up says otherwise."""


@dataclass(frozen=True)
class Schedule:
    """A pure function of the step; ``constant`` without warm-up is the paper's.

    Attributes:
        num_steps: optimiser steps in all.
        kind: ``constant``; ``cosine`` falls to ``final_factor``; ``one_cycle`` rises from
            ``ONE_CYCLE_START`` and falls to ``final_factor``, both along a cosine; ``step``
            multiplies by ``drop_factor`` every ``drop_every_steps``.
        warmup_steps: steps of linear rise from zero; with one-cycle the steps of its rise.
        final_factor: share of the peak rate that the fall reaches behind the last step.
        drop_every_steps: steps between two drops.
        drop_factor: what a drop multiplies by.

    Raises:
        ValueError: ``step`` without ``drop_every_steps``.
    """

    num_steps: int
    kind: ScheduleKind = "constant"
    warmup_steps: int = 0
    final_factor: float = 0.01
    drop_every_steps: int | None = None
    drop_factor: float = 0.1

    def __post_init__(self) -> None:
        if self.kind == "step" and not self.drop_every_steps:
            raise ValueError(
                f"schedule 'step' has drop_every_steps = {self.drop_every_steps}: "
                "say after how many steps the rate drops"
            )

    def factor(self, step: int) -> float:
        """Return the rate of a step, counted from 0, as a share of the peak."""
        if self.kind == "one_cycle":
            rise = self.warmup_steps or round(ONE_CYCLE_RISE * self.num_steps)
            if step < rise:
                return _cosine(ONE_CYCLE_START, 1.0, step / rise)
            return _cosine(1.0, self.final_factor, self._share(step, rise))
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        if self.kind == "cosine":
            return _cosine(1.0, self.final_factor, self._share(step, self.warmup_steps))
        if self.kind == "step":
            assert self.drop_every_steps
            return self.drop_factor ** (step // self.drop_every_steps)
        return 1.0

    def _share(self, step: int, first: int) -> float:
        return min(1.0, (step - first) / max(1, self.num_steps - first))


def _cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * share))
