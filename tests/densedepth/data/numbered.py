"""Samples whose colour and depth say their number, in shards, and the batches made of them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from densedepth.data.batch import Batch
from densedepth.data.batch_plans import TrainBatches
from densedepth.data.depth_codec import pack_depth
from densedepth.data.encode import encode_image_png
from densedepth.data.loader import BatchLoader
from densedepth.data.shard_source import LocalShards, ShardList
from densedepth.data.shards import write_shard
from densedepth.sample import EncodedSample

NUM_SAMPLES = 22
CPU = torch.device("cpu")


def picture(number: int, size_px: tuple[int, int] = (32, 64), dtype=np.uint16) -> EncodedSample:
    """A sample whose colour and depth say its number."""
    image = np.full((*size_px, 3), number, dtype=np.uint8)
    depth = pack_depth(np.full(size_px, 100 + number, dtype=dtype))
    return EncodedSample(f"s{number:02}", encode_image_png(image), "png", depth, 1e-2)


def write_shards(folder: Path, parts: Sequence[Sequence[EncodedSample]]) -> ShardList:
    for index, part in enumerate(parts):
        write_shard(folder / f"{index}.tar", part)
    paths = tuple(folder / f"{index}.tar" for index in range(len(parts)))
    return ShardList(tuple(len(part) for part in parts), LocalShards(paths))


def batches(shards: ShardList, **changes) -> TrainBatches:
    given = {"seed": 3, "epoch": 0, "rank": 0, "world_size": 1, "global_batch_size": 4}
    return TrainBatches(shards, **{**given, "input_size_px": (32, 64), **changes})


def number_of(key: str) -> int:
    return int(key[1:])


def epoch_keys(shards: ShardList, world_size: int = 1, processes: int = 0, **changes):
    """Return the keys of each global batch, put together from all ranks."""
    ranks = []
    for rank in range(world_size):
        source = batches(shards, rank=rank, world_size=world_size, **changes)
        loader = BatchLoader(source, loader_processes=processes)
        ranks.append([b.keys for b in loader])
        assert len(ranks[-1]) == len(loader)
    return [sum(parts, ()) for parts in zip(*ranks, strict=True)]


def assert_holds_what_its_keys_say(batch: Batch) -> None:
    numbers = torch.tensor([number_of(key) for key in batch.keys]).view(-1, 1, 1, 1)
    assert (batch.image == numbers).all()
    expected_m = ((100 + numbers) / 100).expand_as(batch.depth_m)
    torch.testing.assert_close(batch.depth_m, expected_m)
    assert batch.valid.all()
