"""Plans of batches: which samples each rank gets, with which seeds, and where a run goes on."""

import itertools
import pickle
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from densedepth.augment import sample_seed
from densedepth.data import order as order_module
from densedepth.data.batch_plans import TrainBatches
from densedepth.data.order import EpochOrder
from densedepth.data.shard_source import OpenShard, ShardList
from tests.densedepth.data.numbered import NUM_SAMPLES, batches, epoch_keys, picture, write_shards


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Blocks of the order that small data sets have several of."""
    monkeypatch.setattr(order_module, "BLOCK_SIZE", 64)


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
