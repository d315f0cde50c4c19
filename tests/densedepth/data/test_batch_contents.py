"""What the loader's batches hold, for how long, and what is said of damage."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from densedepth.data.batch import PackedBatch
from densedepth.data.depth_codec import pack_depth, unpack_depth
from densedepth.data.loader import BatchLoader
from densedepth.errors import CorruptShardError
from tests.densedepth.data.numbered import (
    CPU,
    NUM_SAMPLES,
    assert_holds_what_its_keys_say,
    batches,
    number_of,
    picture,
    write_shards,
)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("size_px", [(32, 64), (40, 64)])
@pytest.mark.parametrize("processes", [0, 2])
def test_a_batch_holds_what_its_keys_say(tmp_path: Path, size_px, dtype, processes):
    shards = write_shards(tmp_path, [[picture(n, size_px, dtype) for n in range(NUM_SAMPLES)]])
    loader = BatchLoader(batches(shards), loader_processes=processes)
    for packed in loader:
        assert isinstance(packed, PackedBatch)
        assert (packed.depth_units is None) == (size_px != (32, 64))
        batch = packed.to(CPU)
        assert batch.image.shape == (4, 3, 32, 64)
        assert batch.image.dtype == torch.uint8
        assert batch.depth_m.shape == (4, 1, 16, 32)
        assert_holds_what_its_keys_say(batch)


def test_samples_of_different_sizes_share_a_batch(tmp_path: Path):
    parts = [[picture(n, (32, 64) if n % 2 else (40, 80)) for n in range(8)]]
    for packed in BatchLoader(batches(write_shards(tmp_path, parts))):
        assert_holds_what_its_keys_say(packed.to(CPU))


@pytest.mark.parametrize("processes", [0, 1])
def test_one_map_with_a_hole_among_whole_ones_keeps_its_hole(tmp_path: Path, processes: int):
    samples = [picture(n) for n in range(4)]
    units = unpack_depth(samples[2].depth).copy()
    units[:16] = 0
    samples[2] = replace(samples[2], depth=pack_depth(units))
    source = batches(write_shards(tmp_path, [samples]))
    for packed in BatchLoader(source, loader_processes=processes):
        batch = packed.to(CPU)
        for key, depth_m, valid in zip(batch.keys, batch.depth_m, batch.valid, strict=True):
            expected_m = torch.full((1, 16, 32), 1 + number_of(key) / 100)
            if key == "s02":
                expected_m[:, :7] = 0  # the eighth row's filter reaches what was measured
            assert torch.equal(valid, expected_m > 0)
            torch.testing.assert_close(depth_m, expected_m)


@pytest.mark.parametrize("processes", [0, 1])
def test_a_batch_that_is_kept_is_not_written_over(shards, processes: int):
    """More batches are kept than there are slots, and all hold what they held."""
    kept = [
        batch
        for epoch in range(3)
        for batch in BatchLoader(batches(shards, epoch=epoch), loader_processes=processes)
    ]
    for packed in kept:
        assert_holds_what_its_keys_say(packed.to(CPU))


def test_a_part_of_a_batch_keeps_its_memory(shards):
    images = [b.image[1:2] for b in BatchLoader(batches(shards), loader_processes=1)]
    keys = [b.keys[1] for b in BatchLoader(batches(shards))]
    assert [int(image[0, 0, 0, 0]) for image in images] == [number_of(key) for key in keys]
    assert all((image == image[0, 0, 0, 0]).all() for image in images)


@pytest.mark.parametrize("processes", [0, 1])
def test_damage_is_told_with_shard_and_key(tmp_path: Path, processes: int):
    broken = replace(picture(5), image=picture(5).image[:-20])
    shards = write_shards(tmp_path, [[picture(0), broken, picture(2), picture(3)]])
    with pytest.raises(CorruptShardError, match=r"0\.tar: sample s05 cannot be decoded: .*truncat"):
        list(BatchLoader(batches(shards), loader_processes=processes))
