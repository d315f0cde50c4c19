"""How far an epoch and its validation are: saved in the middle, and gone on from."""

from dataclasses import dataclass, field
from typing import Any


@dataclass
class EpochProgress:
    """How far an epoch is.

    Attributes:
        next_sample: samples of the epoch's order that all ranks together have used.
        loss_sum: of the steps' losses that were numbers.
        num_losses: how many they are.
        seconds: time spent on it, before a restart too.
        window: figures of the steps since the last record.
        validated: samples of the validation split that all ranks together have done.
        found: what they found, as ``validation`` keeps it.
    """

    next_sample: int = 0
    loss_sum: float = 0.0
    num_losses: int = 0
    seconds: float = 0.0
    window: list[list[float]] = field(default_factory=list)
    validated: int = 0
    found: dict[str, Any] = field(default_factory=dict)
