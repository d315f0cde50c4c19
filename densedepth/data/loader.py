"""From shards to batches: training in the epoch's order, validation in sequence.

A rank reads its own samples and no others. Loader processes decode them into shared memory;
pictures stay uint8 and depth uint16 until they are on the device.
"""

import pickle
from collections import deque
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from densedepth.augment import sample_seed
from densedepth.data.batch import PackedBatch
from densedepth.data.batch_reader import BatchPlan, BatchReader, num_bytes, view_batch
from densedepth.data.batch_slots import BatchSlots
from densedepth.data.encode import decode
from densedepth.data.order import (
    BLOCK_SIZE,
    EpochOrder,
    Places,
    evenly_spread,
    num_batches,
    rank_share,
    rank_slice,
)
from densedepth.data.shard_source import ShardList
from densedepth.sample import EncodedSample, Sample

BATCHES_AHEAD = 2
"""Batches that each loader process makes ahead of use."""
MAX_PLANS_AHEAD = 64
"""Batches whose shards are fetched ahead of use, at most."""


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
    """One rank's share of a split: every sample once over all ranks, in the shards' order.

    Attributes:
        shards: the split.
        rank: this rank.
        world_size: ranks in all.
        batch_size: samples of a batch; the last one is as long as it comes.
        input_size_px: height and width of the network's input.
    """

    shards: ShardList
    rank: int
    world_size: int
    batch_size: int
    input_size_px: tuple[int, int]

    @property
    def max_batch_size(self) -> int:
        """Samples of a batch."""
        return self.batch_size

    def __len__(self) -> int:
        return -(-len(self._mine) // self.batch_size)

    def plan(self, index: int) -> BatchPlan:
        """Say which samples make a batch."""
        positions = self._mine[index * self.batch_size :][: self.batch_size]
        places = in_sequence(self.shards, positions)
        return BatchPlan(places, (0,) * len(positions))

    @property
    def _mine(self) -> range:
        return rank_share(self.shards.num_used, self.rank, self.world_size)


def in_sequence(shards: ShardList, positions: range) -> Places:
    """Say where samples lie that are counted through the shards, in the manifest's order."""
    ends = np.cumsum(np.asarray(shards.num_used_per_shard, dtype=np.int64))
    wanted = np.asarray(positions, dtype=np.int64)
    numbers = np.searchsorted(ends, wanted, side="right")
    starts = np.concatenate([[0], ends])
    return Places(numbers, wanted - starts[numbers])


@dataclass(frozen=True)
class BatchLoader:
    """Batches, decoded in this process or in others ahead of use.

    Every pass begins at the first batch. A batch's memory is used again when no tensor on it is
    left: keep what ``PackedBatch.to`` or ``clone`` returned where many are kept.

    Attributes:
        source: the batches.
        loader_processes: processes that decode; 0 = this one.
        pin_memory: deliver in page-locked memory, for copies to a GPU.
        start_method: ``fork``, ``spawn`` or ``forkserver``; None = the platform's.
    """

    source: BatchSource
    loader_processes: int = 0
    pin_memory: bool = False
    start_method: str | None = None

    def __len__(self) -> int:
        return len(self.source)

    def __iter__(self) -> Iterator[PackedBatch]:
        """Yield the batches in their order, whatever the number of processes."""
        batches = self._from_processes() if self.loader_processes else self._from_here()
        for batch in batches:
            yield batch.pin_memory() if self.pin_memory else batch

    def _from_here(self) -> Iterator[PackedBatch]:
        for plan, reader in _planned(self.source, 0, 1):
            yield reader.read_batch(plan, _fresh(self.source))

    def _from_processes(self) -> Iterator[PackedBatch]:
        size_bytes = num_bytes(self.source.max_batch_size, self.source.input_size_px)
        # One slot is being filled, one is being used, and one still has a name in a loop.
        slots = BatchSlots.make(self.loader_processes, BATCHES_AHEAD + 2, size_bytes)
        loader = DataLoader(
            _InProcess(self.source, slots),
            batch_size=None,
            num_workers=self.loader_processes,
            prefetch_factor=BATCHES_AHEAD,
            multiprocessing_context=self.start_method,
        )
        messages = iter(loader)  # the processes begin before the pages are locked
        with slots.page_locked() if self.pin_memory else nullcontext():
            for message in messages:
                if message.error is not None:
                    raise message.error
                yield message.open(slots, self.source.input_size_px)


def read_samples(shards: ShardList, *, rank: int = 0, world_size: int = 1) -> Iterator[Sample]:
    """Decode each sample exactly once over all ranks, at its own size, in the shards' order.

    Raises:
        CorruptShardError: a shard is damaged.
    """
    for encoded in read_encoded(shards, rank=rank, world_size=world_size):
        yield decode(encoded)


def read_encoded(
    shards: ShardList, *, rank: int = 0, world_size: int = 1
) -> Iterator[EncodedSample]:
    """Read each sample's bytes exactly once over all ranks, in the shards' order.

    Raises:
        CorruptShardError: a shard is damaged.
    """
    source = ValidationBatches(shards, rank, world_size, 1, (0, 0))
    for plan, reader in _planned(source, 0, 1):
        yield reader.read(int(plan.places.shards[0]), int(plan.places.numbers[0]))


def read_spread(shards: ShardList, count: int) -> Iterator[Sample]:
    """Decode some samples, evenly spread over the split and always the same.

    Raises:
        CorruptShardError: a shard is damaged.
    """
    reader = BatchReader(shards, (0, 0))
    try:
        for position in evenly_spread(shards.num_used, count):
            places = in_sequence(shards, range(position, position + 1))
            yield decode(reader.read(int(places.shards[0]), int(places.numbers[0])))
    finally:
        reader.close()


@dataclass(frozen=True)
class _Message:
    """What a loader process sends: a slot's number and what is not in its memory; or its error."""

    slot: int | None
    batch: PackedBatch | None
    keys: tuple[str, ...] = ()
    steps_per_m: tuple[float, ...] = ()
    sample_seeds: tuple[int, ...] = ()
    is_native: bool = True
    has_holes: bool = True
    error: Exception | None = None

    def open(self, slots: BatchSlots, input_size_px: tuple[int, int]) -> PackedBatch:
        """Return the batch, seen in the slot."""
        if self.slot is None:
            assert self.batch is not None
            return self.batch
        return view_batch(
            slots.lend(self.slot),
            self.keys,
            self.steps_per_m,
            self.sample_seeds,
            input_size_px,
            self.is_native,
            self.has_holes,
        )


class _InProcess(IterableDataset[_Message]):
    """What a loader process runs: every n-th batch, which torch puts back in order."""

    def __init__(self, source: BatchSource, slots: BatchSlots) -> None:
        self.source = source
        self.slots = slots

    def __iter__(self) -> Iterator[_Message]:
        try:
            yield from self._messages()
        except Exception as error:
            # Torch would put the traceback into the message, and lose the type of many.
            if not _survives_pickling(error):
                raise
            yield _Message(None, None, error=error)

    def _messages(self) -> Iterator[_Message]:
        worker = get_worker_info()
        assert worker is not None, "the loader runs this in its processes only"
        for plan, reader in _planned(self.source, worker.id, worker.num_workers):
            slot = self.slots.take(worker.id)
            if slot is None:  # the consumer keeps all: torch sends this batch as it can
                yield _Message(None, reader.read_batch(plan, _fresh(self.source)))
                continue
            batch = reader.read_batch(plan, self.slots.memory[slot])
            yield _Message(
                slot,
                None,
                batch.keys,
                tuple(batch.steps_per_m.tolist()),
                plan.sample_seeds,
                batch.depth_units is not None,
                batch.has_holes,
            )


def _planned(
    source: BatchSource, process: int, num_processes: int
) -> Iterator[tuple[BatchPlan, BatchReader]]:
    """Yield a process's plans, with shards of later ones being fetched meanwhile."""
    reader = BatchReader(source.shards, source.input_size_px)
    # A block of the order ahead, so that its shards come while the block before is used.
    ahead = min(MAX_PLANS_AHEAD, max(BATCHES_AHEAD, BLOCK_SIZE // max(1, source.max_batch_size)))
    waiting: deque[BatchPlan] = deque()
    try:
        for index in range(process, len(source), num_processes):
            waiting.append(source.plan(index))
            reader.announce(waiting[-1])
            if len(waiting) > ahead:
                yield waiting.popleft(), reader
        while waiting:
            yield waiting.popleft(), reader
    finally:
        reader.close()


def _survives_pickling(error: Exception) -> bool:
    try:
        return type(pickle.loads(pickle.dumps(error))) is type(error)
    except Exception:  # whatever a foreign class's own pickling raises
        return False


def _fresh(source: BatchSource) -> UInt8[Tensor, " n"]:
    return torch.empty(num_bytes(source.max_batch_size, source.input_size_px), dtype=torch.uint8)
