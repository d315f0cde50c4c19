"""Batches: what each rank gets, where a run goes on, and what is in them."""

import itertools
import pickle
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from densedepth.augment import sample_seed
from densedepth.data import batch_reader
from densedepth.data import order as order_module
from densedepth.data.batch import Batch, PackedBatch
from densedepth.data.batch_reader import BatchPlan, BatchReader
from densedepth.data.depth_codec import pack_depth, unpack_depth
from densedepth.data.encode import encode_image_png
from densedepth.data.loader import BatchLoader, TrainBatches, ValidationBatches, read_samples
from densedepth.data.order import EpochOrder, Places
from densedepth.data.shard_source import LocalShards, OpenShard, ShardList
from densedepth.data.shards import write_shard
from densedepth.errors import CorruptShardError
from densedepth.sample import EncodedSample

NUM_SAMPLES = 22
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Blocks of the order that small data sets have several of."""
    monkeypatch.setattr(order_module, "BLOCK_SIZE", 64)


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


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> ShardList:
    samples = [picture(number) for number in range(NUM_SAMPLES)]
    return write_shards(
        tmp_path_factory.mktemp("shards"), [samples[:8], samples[8:16], samples[16:]]
    )


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


@dataclass(frozen=True)
class Nowhere:
    """Shards that nothing reads: plans are made without them."""

    opened: list[int] = field(default_factory=list)

    def open_shard(self, number: int) -> OpenShard:
        raise AssertionError("planning opens no shard")

    def prefetch(self, numbers: Sequence[int]) -> None:
        raise AssertionError("planning fetches no shard")


def planned(sources: Iterable[TrainBatches], index: int) -> list[tuple[int, int, int]]:
    """Return (shard, number, seed) of a global batch, put together from all ranks."""
    rows = []
    for source in sources:
        plan = source.plan(index)
        shards, numbers = plan.places.shards.tolist(), plan.places.numbers.tolist()
        rows += list(zip(shards, numbers, plan.sample_seeds, strict=True))
    return rows


def plans(
    sizes: list[int], batch: int, world_size: int, seed: int, next_sample: int = 0
) -> list[list[tuple[int, int, int]]]:
    sources = [
        TrainBatches(
            ShardList(tuple(sizes), Nowhere()),
            seed=seed,
            epoch=1,
            rank=rank,
            world_size=world_size,
            global_batch_size=batch,
            input_size_px=(2, 2),
            next_sample=next_sample,
        )
        for rank in range(world_size)
    ]
    assert len({len(source) for source in sources}) == 1
    return [planned(sources, index) for index in range(len(sources[0]))]


sizes_of_shards = st.lists(st.integers(1, 60), min_size=1, max_size=30)


@given(
    sizes_of_shards, st.integers(1, 4), st.sampled_from([1, 2, 3, 4, 6, 12]), st.integers(0, 2**32)
)
def test_each_sample_comes_once_and_its_seed_is_that_of_its_place(sizes, factor, world_size, seed):
    batch = 12 * factor
    sizes = [*sizes, 48]
    seen = plans(sizes, batch, world_size, seed)
    assert seen == plans(sizes, batch, 1, seed)
    assert len(seen) == sum(sizes) // batch
    order = EpochOrder(sizes, seed, 1)
    for index, rows in enumerate(seen):
        positions = range(index * batch, (index + 1) * batch)
        places = order.places(positions)
        expected = zip(
            places.shards.tolist(),
            places.numbers.tolist(),
            [sample_seed(seed, 1, n) for n in positions],
            strict=True,
        )
        assert sorted(rows) == sorted(expected)


@given(sizes_of_shards, st.data())
def test_a_stopped_run_goes_on_with_the_next_sample_on_any_number_of_workers(sizes, data):
    sizes = [*sizes, 48]
    before, after = (data.draw(st.sampled_from([1, 2, 4, 8])) for _ in range(2))
    whole = plans(sizes, 8, before, 5)
    done = data.draw(st.integers(0, len(whole)))
    assert plans(sizes, 8, after, 5, next_sample=8 * done) == whole[done:]
    # With another batch size the places follow on too, whatever the remainder.
    rest = plans(sizes, 16, 2, 5, next_sample=8 * done)
    order = EpochOrder(sizes, 5, 1)
    places = order.places(range(8 * done, 8 * done + 16 * len(rest)))
    seen = [row[:2] for rows in rest for row in rows]
    assert sorted(seen) == sorted(zip(places.shards.tolist(), places.numbers.tolist(), strict=True))
    assert 0 <= sum(sizes) - 8 * done - len(seen) < 16


@settings(max_examples=8, suppress_health_check=list(HealthCheck))
@given(
    cuts=st.lists(st.integers(1, NUM_SAMPLES - 1), max_size=4, unique=True),
    world_size=st.integers(1, 4),
    processes=st.integers(0, 2),
    next_sample=st.integers(0, NUM_SAMPLES),
)
def test_real_shards_are_read_as_planned(
    tmp_path_factory, cuts, world_size, processes, next_sample
):
    edges = [0, *sorted(cuts), NUM_SAMPLES]
    parts = [[picture(n) for n in range(*pair)] for pair in itertools.pairwise(edges)]
    shards = write_shards(tmp_path_factory.mktemp("cut"), parts)
    rows = plans([len(p) for p in parts], 4, 1, 9, next_sample)
    expected = [tuple(f"s{edges[s] + n:02}" for s, n, _ in batch) for batch in rows]
    found = epoch_keys(shards, world_size, processes, seed=9, epoch=1, next_sample=next_sample)
    assert found == expected


def test_a_rank_opens_only_the_shards_of_its_own_samples(tmp_path: Path):
    @dataclass(frozen=True)
    class Watched:
        inner: LocalShards
        opened: list[int] = field(default_factory=list)
        fetched: list[int] = field(default_factory=list)

        def open_shard(self, number: int) -> OpenShard:
            assert number in self.fetched
            self.opened.append(number)
            return self.inner.open_shard(number)

        def prefetch(self, numbers: Sequence[int]) -> None:
            self.fetched.extend(numbers)

    parts = [[picture(n) for n in range(8 * i, 8 * i + 8)] for i in range(4)]
    local = write_shards(tmp_path, parts)
    opened = []
    for rank in range(4):
        watched = Watched(local.source)
        shards = ShardList(local.num_samples_per_shard, watched)
        list(BatchLoader(batches(shards, rank=rank, world_size=4, global_batch_size=32)))
        assert len(watched.opened) == len(set(watched.opened)) == 1
        assert watched.fetched == watched.opened
        opened += watched.opened
    assert sorted(opened) == [0, 1, 2, 3]


def test_a_reader_closes_the_shard_it_used_longest_ago_and_has_it_fetched_again(
    shards, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(batch_reader, "MAX_OPEN_SHARDS", 2)
    opened: list[OpenShard] = []
    fetched: list[int] = []

    @dataclass(frozen=True)
    class Watched:
        inner: LocalShards

        def open_shard(self, number: int) -> OpenShard:
            opened.append(self.inner.open_shard(number))
            return opened[-1]

        def prefetch(self, numbers: Sequence[int]) -> None:
            fetched.extend(numbers)

    reader = BatchReader(replace(shards, source=Watched(shards.source)), (32, 64))
    first = BatchPlan(Places(np.array([0]), np.array([1])), (0,))
    for _ in range(2):
        reader.announce(first)
    keys = [reader.read(shard, 1).key for shard in (0, 1, 0, 2, 0, 1)]
    assert keys == ["s01", "s09", "s01", "s17", "s01", "s09"]
    assert [shard.name[-5:] for shard in opened] == ["0.tar", "1.tar", "2.tar", "1.tar"]
    assert [shard.file.closed for shard in opened] == [False, True, True, False]
    reader.announce(first)
    assert fetched == [0], "it is open"
    reader.read(2, 1)
    reader.announce(first)
    assert fetched == [0, 0]
    reader.close()
    assert all(shard.file.closed for shard in opened)


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


def assert_holds_what_its_keys_say(batch: Batch) -> None:
    numbers = torch.tensor([number_of(key) for key in batch.keys]).view(-1, 1, 1, 1)
    assert (batch.image == numbers).all()
    expected_m = ((100 + numbers) / 100).expand_as(batch.depth_m)
    torch.testing.assert_close(batch.depth_m, expected_m)
    assert batch.valid.all()


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


def test_validation_reads_each_sample_once_whatever_the_number_of_workers(shards):
    for world_size in (1, 2, 3):
        for processes in (0, 2):
            found = [
                list(
                    BatchLoader(ValidationBatches(shards, rank, world_size, 4, (32, 64)), processes)
                )
                for rank in range(world_size)
            ]
            keys = [key for part in found for batch in part for key in batch.keys]
            assert keys == [f"s{n:02}" for n in range(NUM_SAMPLES)]
            assert all(len(batch.keys) == 4 for part in found for batch in part[:-1])


def test_a_split_smaller_than_the_number_of_ranks_leaves_some_without(tmp_path: Path):
    shards = write_shards(tmp_path, [[picture(0)]])
    counts = [len(list(BatchLoader(ValidationBatches(shards, r, 3, 4, (32, 64))))) for r in (0, 1)]
    assert sum(counts) <= 1
    assert [s.key for r in range(3) for s in read_samples(shards, rank=r, world_size=3)] == ["s00"]


def test_test_samples_keep_their_own_size(tmp_path: Path):
    shards = write_shards(tmp_path, [[picture(0, (40, 64))]])
    assert [s.depth_m.shape for s in read_samples(shards)] == [(40, 64)]


@pytest.mark.parametrize("processes", [0, 1])
def test_damage_is_told_with_shard_and_key(tmp_path: Path, processes: int):
    broken = replace(picture(5), image=picture(5).image[:-20])
    shards = write_shards(tmp_path, [[picture(0), broken, picture(2), picture(3)]])
    with pytest.raises(CorruptShardError, match=r"0\.tar: sample s05 cannot be decoded: .*truncat"):
        list(BatchLoader(batches(shards), loader_processes=processes))


def test_a_shard_with_another_count_than_the_manifests_is_refused(shards):
    stale = replace(shards, num_samples_per_shard=(8, 9, 6))
    with pytest.raises(CorruptShardError, match=r"1\.tar: 8 samples where the manifest says 9"):
        list(read_samples(stale))


def test_a_start_beyond_the_epoch_and_too_few_samples_are_refused(shards):
    with pytest.raises(ValueError, match="next_sample = 23 is not in an epoch of 22 samples"):
        batches(shards, next_sample=23)
    with pytest.raises(ValueError, match="22 training samples do not fill one batch of 24"):
        batches(shards, global_batch_size=24)
    with pytest.raises(ValueError, match="cannot be shared by 30 workers"):
        batches(shards, world_size=30)


def test_sources_of_batches_can_be_sent_to_another_process(shards):
    source = batches(shards)
    source.plan(0)
    assert pickle.loads(pickle.dumps(source)).plan(3).sample_seeds == source.plan(3).sample_seeds
