"""Where shards come from: tars on this node, and the part of a split that is used."""

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from densedepth.data.depth_codec import pack_depth
from densedepth.data.shard_source import LocalShards, ShardList
from densedepth.data.shards import write_shard
from densedepth.errors import CorruptShardError
from densedepth.sample import EncodedSample

DEPTH = pack_depth(np.ones((2, 2), np.uint16))
SAMPLES = [EncodedSample(key, b"x", "jpg", DEPTH, 0.001, {}) for key in ("a", "b", "c")]


@pytest.fixture
def shards(tmp_path: Path) -> ShardList:
    for number in range(2):
        path = tmp_path / f"{number}.tar"
        index = write_shard(path, SAMPLES)
        if number:
            path.with_name("1.tar.index.json").write_bytes(index.to_bytes())
    return ShardList((3, 3), LocalShards((tmp_path / "0.tar", tmp_path / "1.tar")))


@pytest.mark.parametrize("number", [0, 1])
def test_a_tar_is_read_by_position_with_and_without_an_index_beside_it(shards, number: int):
    shard = pickle.loads(pickle.dumps(shards)).open_shard(number)
    with shard.file:
        assert [shard.read(n) for n in (2, 0)] == [SAMPLES[2], SAMPLES[0]]


def test_an_index_that_is_not_the_tars_is_found(shards, tmp_path: Path):
    (tmp_path / "1.tar.index.json").write_bytes(b"{}")
    with pytest.raises(CorruptShardError, match=r"1\.tar\.index\.json is no index"):
        shards.open_shard(1)
    with pytest.raises(CorruptShardError, match=r"0\.tar: 3 samples where the manifest says 4"):
        replace(shards, num_samples_per_shard=(4, 3)).open_shard(0)


@pytest.mark.parametrize(
    ("at_most", "used"), [(None, (3, 3)), (6, (3, 3)), (99, (3, 3)), (4, (3, 1)), (3, (3,))]
)
def test_the_first_samples_of_a_split_can_be_asked_for(shards, at_most, used):
    part = replace(shards, at_most=at_most)
    assert part.num_used_per_shard == used
    assert part.num_used == sum(used)
