"""The order of an epoch: a pure function of (seed, epoch), whatever the number of workers.

Every rank walks the same global sequence and takes its own part of each global batch. A run
with 2 ranks therefore sees the same samples in the same global batches as one with 8, and the
state of a reader is the number of global batches already used.
"""

import random
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")

BLOCK_SIZE = 512
"""Samples that are shuffled among each other; bounds the memory of a reader."""


def epoch_shards(shards: Sequence[T], seed: int, epoch: int) -> list[T]:
    """Return the shards in the epoch's order."""
    order = list(shards)
    random.Random(f"shards/{seed}/{epoch}").shuffle(order)
    return order


def shuffled(
    samples: Iterable[T], seed: int, epoch: int, block_size: int = BLOCK_SIZE
) -> Iterator[T]:
    """Shuffle a stream within consecutive blocks, the last one as long as it comes."""
    rng = random.Random(f"samples/{seed}/{epoch}")
    block: list[T] = []
    for sample in samples:
        block.append(sample)
        if len(block) == block_size:
            rng.shuffle(block)
            yield from block
            block = []
    rng.shuffle(block)
    yield from block


def num_batches(num_samples: int, global_batch_size: int) -> int:
    """Global batches in an epoch of training; the remainder waits for another epoch.

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
    """Return the part of every global batch that is this rank's.

    Raises:
        ValueError: the batch cannot be cut into equal parts.
    """
    if global_batch_size % world_size:
        raise ValueError(
            f"global_batch_size = {global_batch_size} cannot be cut into equal parts for "
            f"{world_size} workers: use a multiple, or another number of workers"
        )
    size = global_batch_size // world_size
    return slice(rank * size, (rank + 1) * size)
