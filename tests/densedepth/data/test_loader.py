"""Batches: what each rank gets, and what resizing does to depth."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from densedepth.data.encode import encode_depth_png, encode_image_png
from densedepth.data.loader import (
    LocalShard,
    TrainBatches,
    read_samples,
    resize_depth,
    train_batches,
    validation_batches,
)
from densedepth.data.shards import write_shard
from densedepth.sample import EncodedSample

NUM_SAMPLES = 22


def picture(number: int) -> EncodedSample:
    """A sample whose colour and depth say its number."""
    image = np.full((40, 64, 3), number, dtype=np.uint8)
    depth = np.full((40, 64), 1000 + number, dtype=np.uint16)
    return EncodedSample(
        f"s{number:02}", encode_image_png(image), "png", encode_depth_png(depth), 1e-3
    )


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> list[LocalShard]:
    folder: Path = tmp_path_factory.mktemp("shards")
    samples = [picture(number) for number in range(NUM_SAMPLES)]
    parts = [samples[:8], samples[8:16], samples[16:]]
    for index, part in enumerate(parts):
        write_shard(folder / f"{index}.tar", part)
    return [LocalShard(folder / f"{i}.tar", len(part)) for i, part in enumerate(parts)]


def epoch_keys(shards: list[LocalShard], epoch: int, world_size: int, processes: int = 0):
    """Return the keys of each global batch, put together from all ranks."""
    ranks = []
    for rank in range(world_size):
        dataset = TrainBatches(
            shards,
            seed=3,
            epoch=epoch,
            rank=rank,
            world_size=world_size,
            global_batch_size=4,
            input_size_px=(32, 64),
        )
        ranks.append([b.keys for b in train_batches(dataset, loader_processes=processes)])
    return [sum(parts, ()) for parts in zip(*ranks, strict=True)]


def test_any_number_of_ranks_sees_the_same_global_batches(shards):
    one = epoch_keys(shards, 0, 1)
    assert epoch_keys(shards, 0, 2) == one
    assert epoch_keys(shards, 0, 4) == one
    assert len(one) == NUM_SAMPLES // 4
    keys = sum(one, ())
    assert len(set(keys)) == len(keys) == 20


def test_loader_processes_do_not_change_the_order(shards):
    assert epoch_keys(shards, 0, 2, processes=2) == epoch_keys(shards, 0, 2)


def test_part_of_the_samples_can_be_asked_for(shards):
    some = [shards[0], replace(shards[1], at_most=5)]
    first = {f"s{number:02}" for number in range(13)}
    keys = sum(epoch_keys(some, 0, 2), ())
    assert len(set(keys)) == len(keys) == 12
    assert set(keys) <= first
    assert {sample.key for sample in read_samples(some)} == first


def test_epochs_differ(shards):
    assert epoch_keys(shards, 0, 1) != epoch_keys(shards, 1, 1)


def test_a_batch_holds_what_its_keys_say(shards):
    dataset = TrainBatches(
        shards, seed=0, epoch=0, rank=0, world_size=1, global_batch_size=4, input_size_px=(32, 64)
    )
    for batch in dataset:
        numbers = torch.tensor([int(key[1:]) for key in batch.keys])
        assert batch.image.shape == (4, 3, 32, 64)
        assert batch.depth_m.shape == (4, 1, 16, 32)
        assert (batch.image == numbers.view(4, 1, 1, 1)).all()
        expected_m = ((1000 + numbers) / 1000).view(4, 1, 1, 1).expand_as(batch.depth_m)
        torch.testing.assert_close(batch.depth_m, expected_m)
        assert batch.valid.all()


def test_seeds_follow_the_place_in_the_epoch_and_not_the_rank(shards):
    def seeds(world_size: int) -> list[int]:
        ranks = [
            TrainBatches(
                shards,
                seed=0,
                epoch=2,
                rank=rank,
                world_size=world_size,
                global_batch_size=4,
                input_size_px=(32, 64),
            )
            for rank in range(world_size)
        ]
        return [int(s) for parts in zip(*ranks, strict=True) for b in parts for s in b.sample_seeds]

    assert seeds(1) == seeds(2)
    assert len(set(seeds(1))) == 20


def test_validation_reads_each_sample_once_whatever_the_number_of_ranks(shards):
    for world_size in (1, 2, 3):
        keys = [
            key
            for rank in range(world_size)
            for batch in validation_batches(
                shards, rank=rank, world_size=world_size, batch_size=4, input_size_px=(32, 64)
            )
            for key in batch.keys
        ]
        assert sorted(keys) == [f"s{n:02}" for n in range(NUM_SAMPLES)]


def test_test_samples_keep_their_own_size(shards):
    assert {s.depth_m.shape for s in read_samples(shards)} == {(40, 64)}


def test_resizing_averages_inverse_depth():
    depth_m = np.repeat(np.array([[1.0, 4.0]], np.float32), 64, axis=0).repeat(32, axis=1)
    shrunk = resize_depth(depth_m, (1, 1))
    assert shrunk.item() == pytest.approx(1 / ((1 / 1 + 1 / 4) / 2), rel=1e-5)


def test_a_map_without_measurements_stays_without():
    assert (resize_depth(np.zeros((8, 8), np.float32), (4, 4)) == 0).all()


def test_a_constant_map_keeps_its_value_next_to_holes():
    depth_m = np.full((16, 16), 3.0, np.float32)
    depth_m[::3, ::2] = 0
    shrunk = resize_depth(depth_m, (8, 8))
    torch.testing.assert_close(shrunk, torch.full_like(shrunk, 3.0))
