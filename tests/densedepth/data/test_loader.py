"""Epochs out of shards: every rank's samples, in their order, by any number of processes."""

import itertools
from dataclasses import replace
from pathlib import Path

from densedepth.data.batch_plans import ValidationBatches
from densedepth.data.loader import BatchLoader, read_samples
from tests.densedepth.data.numbered import (
    CPU,
    NUM_SAMPLES,
    batches,
    epoch_keys,
    picture,
    write_shards,
)


def test_any_number_of_ranks_sees_the_same_global_batches(shards):
    one = epoch_keys(shards)
    for world_size in (2, 3, 4):  # three share four: parts of one and of two
        assert epoch_keys(shards, world_size) == one
    assert len(one) == NUM_SAMPLES // 4
    keys = sum(one, ())
    assert len(set(keys)) == len(keys) == 20


def test_loader_processes_do_not_change_the_order(shards):
    one = epoch_keys(shards)
    assert epoch_keys(shards, 3, processes=2) == one
    assert epoch_keys(shards, 1, processes=1) == one


def test_spawned_processes_deliver_the_same(shards):
    source = batches(shards)
    here = [(b.keys, b.to(CPU).depth_m.sum()) for b in BatchLoader(source)]
    spawned = BatchLoader(source, loader_processes=1, start_method="spawn")
    assert [(b.keys, b.to(CPU).depth_m.sum()) for b in spawned] == here


def test_a_run_goes_on_at_the_next_sample_with_any_number_of_workers(shards):
    whole = epoch_keys(shards)
    for world_size in (1, 2, 4):
        rest = epoch_keys(shards, world_size, next_sample=8)
        assert rest == whole[2:]
    assert epoch_keys(shards, next_sample=20) == []


def test_part_of_the_samples_can_be_asked_for(shards):
    some = replace(shards, at_most=13)
    assert some.num_used_per_shard == (8, 5)
    first = {f"s{number:02}" for number in range(13)}
    keys = sum(epoch_keys(some, 2), ())
    assert len(set(keys)) == len(keys) == 12
    assert set(keys) <= first
    assert {sample.key for sample in read_samples(some)} == first


def test_epochs_differ(shards):
    assert epoch_keys(shards, epoch=0) != epoch_keys(shards, epoch=1)


def validation_rounds(shards, world_size: int, processes: int = 0, next_sample: int = 0):
    """Each round's keys, rank after rank, and its number of samples."""
    sources = [
        ValidationBatches(shards, rank, world_size, 4, (32, 64), next_sample)
        for rank in range(world_size)
    ]
    parts = [[batch.keys for batch in BatchLoader(source, processes)] for source in sources]
    rounds = itertools.zip_longest(*parts, fillvalue=())
    return [[key for part in parts for key in part] for parts in rounds], sources[0].round_size


def test_validation_reads_each_sample_once_in_rounds_whatever_the_number_of_workers(shards):
    names = [f"s{n:02}" for n in range(NUM_SAMPLES)]
    for world_size in (1, 2, 3):
        for processes in (0, 2):
            rounds, size = validation_rounds(shards, world_size, processes)
            assert size == 4 * world_size
            expected = [names[i : i + size] for i in range(0, NUM_SAMPLES, size)]
            assert rounds == expected
        rest, size = validation_rounds(shards, 4 - world_size, next_sample=size)
        assert [key for keys in rest for key in keys] == names[4 * world_size :]


def test_a_split_smaller_than_the_number_of_ranks_leaves_some_without(tmp_path: Path):
    shards = write_shards(tmp_path, [[picture(0)]])
    assert validation_rounds(shards, 3)[0] == [["s00"]]
    lengths = [len(ValidationBatches(shards, rank, 3, 4, (32, 64))) for rank in range(3)]
    assert lengths == [1, 0, 0], "no batch rather than an empty one"
    assert [sample.key for sample in read_samples(shards)] == ["s00"]


def test_test_samples_keep_their_own_size(tmp_path: Path):
    shards = write_shards(tmp_path, [[picture(0, (40, 64))]])
    assert [s.depth_m.shape for s in read_samples(shards)] == [(40, 64)]
