"""Fixtures of the tests that read shards."""

import pytest

from densedepth.data.shard_source import ShardList
from tests.densedepth.data.numbered import NUM_SAMPLES, picture, write_shards


@pytest.fixture(scope="session")
def shards(tmp_path_factory) -> ShardList:
    """Three shards, of 8, 8 and 6 samples; nothing may change them."""
    samples = [picture(number) for number in range(NUM_SAMPLES)]
    return write_shards(
        tmp_path_factory.mktemp("shards"), [samples[:8], samples[8:16], samples[16:]]
    )
