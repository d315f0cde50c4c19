"""Which samples make a batch: training in the epoch's order, validation in sequence."""

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, runtime_checkable

import numpy as np

from densedepth.augment import sample_seed
from densedepth.data.batch_reader import BatchPlan
from densedepth.data.order import EpochOrder, Places, num_batches, rank_slice
from densedepth.data.shard_source import ShardList


@runtime_checkable
class BatchSource(Protocol):
    """A numbered list of batches; a picklable value."""

    @property
    def shards(self) -> ShardList:
        """Where the samples are."""
        ...

    @property
    def input_size_px(self) -> tuple[int, int]:
        """Height and width of the pictures."""
        ...

    @property
    def max_batch_size(self) -> int:
        """Samples in a batch, at most."""
        ...

    def __len__(self) -> int: ...

    def plan(self, index: int) -> BatchPlan:
        """Say which samples make a batch."""
        ...


@dataclass(frozen=True)
class TrainBatches:
    """One rank's part of every global batch of an epoch, in the epoch's order.

    Global batch i holds the places ``next_sample + i * B`` and following of the epoch's order, B
    being ``global_batch_size``, whatever the number of ranks. Within it samples are sorted by
    shard, so that a rank's part, cut out of it, comes from few shards.

    Attributes:
        shards: the training split.
        seed: the run's seed.
        epoch: number of the epoch.
        rank: this rank.
        world_size: ranks in all.
        global_batch_size: samples of a batch over all ranks.
        input_size_px: height and width of the network's input.
        next_sample: where in the epoch's order to begin: 0, or where another run stopped.

    Raises:
        ValueError: too few samples for a batch, or fewer in a batch than ranks.
    """

    shards: ShardList
    seed: int
    epoch: int
    rank: int
    world_size: int
    global_batch_size: int
    input_size_px: tuple[int, int]
    next_sample: int = 0

    def __post_init__(self) -> None:
        num_batches(self.shards.num_used, self.global_batch_size)
        rank_slice(self.global_batch_size, self.rank, self.world_size)
        if not 0 <= self.next_sample <= self.shards.num_used:
            raise ValueError(
                f"next_sample = {self.next_sample} is not in an epoch of "
                f"{self.shards.num_used} samples: it is of another data set"
            )

    def __len__(self) -> int:
        return (self.shards.num_used - self.next_sample) // self.global_batch_size

    @property
    def max_batch_size(self) -> int:
        """Samples of a rank's part, at most."""
        return -(-self.global_batch_size // self.world_size)

    @cached_property
    def order(self) -> EpochOrder:
        """The epoch's order."""
        return EpochOrder(self.shards.num_used_per_shard, self.seed, self.epoch)

    def plan(self, index: int) -> BatchPlan:
        """Say which samples are this rank's in a global batch."""
        first = self.next_sample + index * self.global_batch_size
        positions = np.arange(first, first + self.global_batch_size)
        places = self.order.places(positions)
        mine = rank_slice(self.global_batch_size, self.rank, self.world_size)
        chosen = np.lexsort((places.numbers, places.shards))[mine]
        seeds = [sample_seed(self.seed, self.epoch, int(n)) for n in positions[chosen]]
        return BatchPlan(Places(places.shards[chosen], places.numbers[chosen]), tuple(seeds))


@dataclass(frozen=True)
class ValidationBatches:
    """One rank's part of every round through a split, in the shards' order.

    Round i holds the samples ``next_sample + i * R`` and following, R being ``round_size``: a batch
    for one rank after another. In the last round a rank may have fewer samples, or none.

    Attributes:
        shards: the split.
        rank: this rank.
        world_size: ranks in all.
        batch_size: samples of a rank's batch.
        input_size_px: height and width of the network's input.
        next_sample: where to begin.
    """

    shards: ShardList
    rank: int
    world_size: int
    batch_size: int
    input_size_px: tuple[int, int]
    next_sample: int = 0

    @property
    def max_batch_size(self) -> int:
        """Samples of a batch, at most."""
        return self.batch_size

    @property
    def round_size(self) -> int:
        """Samples of a round, over all ranks."""
        return self.batch_size * self.world_size

    def __len__(self) -> int:
        return len(range(self._first(0), self.shards.num_used, self.round_size))

    def plan(self, index: int) -> BatchPlan:
        """Say which samples make a batch."""
        first = self._first(index)
        positions = range(first, min(first + self.batch_size, self.shards.num_used))
        places = in_sequence(self.shards, positions)
        return BatchPlan(places, (0,) * len(positions))

    def _first(self, index: int) -> int:
        return self.next_sample + index * self.round_size + self.rank * self.batch_size


def in_sequence(shards: ShardList, positions: range) -> Places:
    """Say where samples lie that are counted through the shards, in the manifest's order."""
    ends = np.cumsum(np.asarray(shards.num_used_per_shard, dtype=np.int64))
    wanted = np.asarray(positions, dtype=np.int64)
    numbers = np.searchsorted(ends, wanted, side="right")
    starts = np.concatenate([[0], ends])
    return Places(numbers, wanted - starts[numbers])
