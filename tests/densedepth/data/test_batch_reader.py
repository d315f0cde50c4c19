"""The reader of batches: which shards it opens, has fetched and closes."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest

from densedepth.data import batch_reader
from densedepth.data.batch_reader import BatchPlan, BatchReader
from densedepth.data.loader import BatchLoader, read_samples
from densedepth.data.order import Places
from densedepth.data.shard_source import LocalShards, OpenShard, ShardList
from densedepth.errors import CorruptShardError
from tests.densedepth.data.numbered import batches, picture, write_shards


@dataclass(frozen=True)
class Watched:
    """A folder's shards, and what was done with them.

    Attributes:
        inner: the shards.
        deeds: ("fetch", number) and ("open", number), in their order.
        opened: what was opened, in its order.
    """

    inner: LocalShards
    deeds: list[tuple[str, int]] = field(default_factory=list)
    opened: list[OpenShard] = field(default_factory=list)

    def open_shard(self, number: int) -> OpenShard:
        self.deeds.append(("open", number))
        self.opened.append(self.inner.open_shard(number))
        return self.opened[-1]

    def prefetch(self, numbers: Sequence[int]) -> None:
        self.deeds.extend(("fetch", number) for number in numbers)


def test_a_rank_opens_only_the_shards_of_its_own_samples(tmp_path: Path):
    parts = [[picture(n) for n in range(8 * i, 8 * i + 8)] for i in range(4)]
    local = write_shards(tmp_path, parts)
    opened = []
    for rank in range(4):
        watched = Watched(local.source)
        shards = ShardList(local.num_samples_per_shard, watched)
        list(BatchLoader(batches(shards, rank=rank, world_size=4, global_batch_size=32)))
        (_, number), *_ = watched.deeds
        assert watched.deeds == [("fetch", number), ("open", number)]
        opened.append(number)
    assert sorted(opened) == [0, 1, 2, 3]


def test_a_reader_closes_the_shard_it_used_longest_ago_and_has_it_fetched_again(
    shards, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(batch_reader, "MAX_OPEN_SHARDS", 2)
    watched = Watched(shards.source)
    reader = BatchReader(replace(shards, source=watched), (32, 64))
    first = BatchPlan(Places(np.array([0]), np.array([1])), (0,))
    for _ in range(2):
        reader.announce(first)
    keys = [reader.read(shard, 1).key for shard in (0, 1, 0, 2, 0, 1)]
    assert keys == ["s01", "s09", "s01", "s17", "s01", "s09"]
    assert [shard.name[-5:] for shard in watched.opened] == ["0.tar", "1.tar", "2.tar", "1.tar"]
    assert [shard.file.closed for shard in watched.opened] == [False, True, True, False]
    reader.announce(first)
    assert watched.deeds.count(("fetch", 0)) == 1, "it is open"
    reader.read(2, 1)
    reader.announce(first)
    assert [number for deed, number in watched.deeds if deed == "fetch"] == [0, 0]
    reader.close()
    assert all(shard.file.closed for shard in watched.opened)


def test_a_shard_with_another_count_than_the_manifests_is_refused(shards):
    stale = replace(shards, num_samples_per_shard=(8, 9, 6))
    with pytest.raises(CorruptShardError, match=r"1\.tar: 8 samples where the manifest says 9"):
        list(read_samples(stale))
