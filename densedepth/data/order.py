"""The order of an epoch: a pure function of (seed, epoch) that answers for any place at once.

Shards are put into a random order; the samples that follow from it are shuffled within blocks of
``BLOCK_SIZE``. Nothing is walked: where place n of the epoch lies takes one block's numbers.
The order knows neither batches nor ranks nor processes, so the state of a reader is two whole
numbers, the epoch and the next place in it, and a run goes on with any number of workers.

Random numbers are splitmix64's (Steele, Lea and Flood 2014), whole-number arithmetic that no
library's next version changes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from jaxtyping import Int64, UInt64

BLOCK_SIZE = 2048
"""Samples that are shuffled among each other: about eight shards, which must be near a reader."""

_GOLDEN_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_MIX_1, _MIX_2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_SHARDS, _SAMPLES = 1, 2  # streams of random numbers
_BLOCKS_KEPT = 4


class Places(NamedTuple):
    """Where samples lie: each one's shard, and its number in the shard."""

    shards: Int64[np.ndarray, " n"]
    numbers: Int64[np.ndarray, " n"]


@dataclass(frozen=True, eq=False)
class EpochOrder:
    """The order of one epoch.

    Attributes:
        num_samples_per_shard: of each shard, in the manifest's order.
        seed: the run's seed.
        epoch: number of the epoch.
    """

    num_samples_per_shard: Sequence[int] | Int64[np.ndarray, " n"]
    seed: int
    epoch: int

    @cached_property
    def shards(self) -> Int64[np.ndarray, " n"]:
        """The shards' numbers in the epoch's order."""
        count = len(self.num_samples_per_shard)
        return _permutation(_stream_state(self.seed, self.epoch, _SHARDS, 0), count)

    @cached_property
    def _ends(self) -> Int64[np.ndarray, " n"]:
        """Where each shard, in the epoch's order, ends in the stream before blocks are shuffled."""
        counts = np.asarray(self.num_samples_per_shard, dtype=np.int64)
        return np.cumsum(counts[self.shards])

    @cached_property
    def _blocks(self) -> dict[int, Int64[np.ndarray, " n"]]:
        """The permutations used last."""
        return {}

    @property
    def num_samples(self) -> int:
        """Samples in the epoch."""
        return int(self._ends[-1]) if len(self._ends) else 0

    def places(self, positions: Sequence[int] | Int64[np.ndarray, " n"]) -> Places:
        """Say which samples stand at some places of the epoch's order, counted from 0.

        Raises:
            IndexError: a place is not in the epoch.
        """
        wanted = np.asarray(positions, dtype=np.int64)
        if len(wanted) and (wanted.min() < 0 or wanted.max() >= self.num_samples):
            raise IndexError(
                f"places {wanted.min()} to {wanted.max()} of an epoch of {self.num_samples} samples"
            )
        stream = np.empty_like(wanted)
        blocks = wanted // BLOCK_SIZE
        for block in np.unique(blocks):
            here = blocks == block
            first = int(block) * BLOCK_SIZE
            stream[here] = first + self._block(int(block))[wanted[here] - first]
        turns = np.searchsorted(self._ends, stream, side="right")
        shards = self.shards[turns]
        counts = np.asarray(self.num_samples_per_shard, dtype=np.int64)
        return Places(shards, stream - (self._ends[turns] - counts[shards]))

    def _block(self, block: int) -> Int64[np.ndarray, " n"]:
        """Return a block's permutation; the last block is as long as it comes."""
        if block not in self._blocks:
            while len(self._blocks) >= _BLOCKS_KEPT:
                self._blocks.pop(next(iter(self._blocks)))
            count = min(BLOCK_SIZE, self.num_samples - block * BLOCK_SIZE)
            state = _stream_state(self.seed, self.epoch, _SAMPLES, block)
            self._blocks[block] = _permutation(state, count)
        return self._blocks[block]


def num_batches(num_samples: int, global_batch_size: int) -> int:
    """Global batches in an epoch of training.

    What is left of the epoch's order, fewer samples than a batch, is not used in this epoch: every
    rank gets equally many whole batches. The next epoch has another order and leaves others.

    Raises:
        ValueError: fewer samples than one batch.
    """
    count = num_samples // global_batch_size
    if count == 0:
        raise ValueError(
            f"{num_samples} training samples do not fill one batch of {global_batch_size}: "
            "lower global_batch_size or add frames"
        )
    return count


def rank_slice(global_batch_size: int, rank: int, world_size: int) -> slice:
    """Return the part of every global batch that is this rank's; parts differ by one at most.

    Raises:
        ValueError: more ranks than samples.
    """
    if world_size > global_batch_size:
        raise ValueError(
            f"global_batch_size = {global_batch_size} cannot be shared by {world_size} workers: "
            "use a larger batch or fewer workers"
        )
    first, last = (global_batch_size * r // world_size for r in (rank, rank + 1))
    return slice(first, last)


def evenly_spread(num_samples: int, count: int) -> list[int]:
    """Pick some samples evenly over a split: no one chooses the pretty ones."""
    count = min(num_samples, count)
    return [round((i + 0.5) * num_samples / count - 0.5) for i in range(count)]


def _permutation(state: np.uint64, count: int) -> Int64[np.ndarray, " n"]:
    """Put 0 .. count - 1 into the order of ``count`` random numbers, equal ones by place."""
    numbers = _mix(state + np.arange(1, count + 1, dtype=np.uint64) * _GOLDEN_GAMMA)
    return np.argsort(numbers, kind="stable").astype(np.int64, copy=False)


def _stream_state(*parts: int) -> np.uint64:
    """Mix whole numbers to the state of a stream of random numbers."""
    state = np.zeros(1, dtype=np.uint64)
    for part in parts:
        state = _mix((state ^ np.uint64(part % 2**64)) + _GOLDEN_GAMMA)
    return np.uint64(state[0])


def _mix(values: UInt64[np.ndarray, " n"]) -> UInt64[np.ndarray, " n"]:
    """Mix 64 bits as splitmix64 does."""
    values = (values ^ (values >> np.uint64(30))) * _MIX_1
    values = (values ^ (values >> np.uint64(27))) * _MIX_2
    return values ^ (values >> np.uint64(31))
