"""From shards to batches, as a list of batches says.

A rank reads its own samples and no others. Loader processes decode them into shared memory;
pictures stay uint8 and depth uint16 until they are on the device.
"""

import pickle
from collections import deque
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from jaxtyping import UInt8
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from densedepth.data.batch import PackedBatch
from densedepth.data.batch_plans import BatchSource, ValidationBatches, in_sequence
from densedepth.data.batch_reader import BatchPlan, BatchReader, num_bytes, view_batch
from densedepth.data.batch_slots import BatchSlots
from densedepth.data.encode import decode
from densedepth.data.order import BLOCK_SIZE, evenly_spread
from densedepth.data.shard_source import ShardList
from densedepth.sample import EncodedSample, Sample

BATCHES_AHEAD = 2
"""Batches that each loader process makes ahead of use."""
MAX_PLANS_AHEAD = 64
"""Batches whose shards are fetched ahead of use, at most."""


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


def read_samples(shards: ShardList) -> Iterator[Sample]:
    """Decode each sample once, at its own size, in the shards' order.

    Raises:
        CorruptShardError: a shard is damaged.
    """
    for encoded in read_encoded(shards):
        yield decode(encoded)


def read_encoded(shards: ShardList) -> Iterator[EncodedSample]:
    """Read each sample's bytes once, in the shards' order.

    Raises:
        CorruptShardError: a shard is damaged.
    """
    for batch in read_batches(ValidationBatches(shards, 0, 1, 1, (0, 0))):
        yield from batch


def read_batches(source: BatchSource) -> Iterator[Iterator[EncodedSample]]:
    """Read the batches' samples as they are; use up one batch before the next.

    Raises:
        CorruptShardError: a shard is damaged.
    """
    for plan, reader in _planned(source, 0, 1):
        places = zip(plan.places.shards.tolist(), plan.places.numbers.tolist(), strict=True)
        yield (reader.read(shard, number) for shard, number in places)


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
