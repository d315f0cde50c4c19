"""The order of an epoch: everything once, at any place at once, another in every epoch."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from densedepth.data import order as order_module
from densedepth.data.order import EpochOrder, num_batches, rank_slice

shard_sizes = st.lists(st.integers(0, 40), min_size=1, max_size=12)
seeds = st.integers(0, 2**64)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Blocks that small data sets have several of."""
    monkeypatch.setattr(order_module, "BLOCK_SIZE", 16)


def whole(order: EpochOrder) -> list[tuple[int, int]]:
    places = order.places(np.arange(order.num_samples))
    return list(zip(places.shards.tolist(), places.numbers.tolist(), strict=True))


@given(shard_sizes, seeds, st.integers(0, 9))
def test_every_sample_stands_at_one_place(sizes: list[int], seed: int, epoch: int):
    order = EpochOrder(sizes, seed, epoch)
    expected = [(shard, n) for shard, size in enumerate(sizes) for n in range(size)]
    assert sorted(whole(order)) == expected
    assert sorted(order.shards.tolist()) == list(range(len(sizes)))


@given(shard_sizes.filter(any), st.data())
def test_any_place_can_be_asked_for_alone(sizes: list[int], data: st.DataObject):
    order = EpochOrder(sizes, 5, 1)
    everything = whole(order)
    n = data.draw(st.lists(st.integers(0, order.num_samples - 1), max_size=9))
    places = EpochOrder(sizes, 5, 1).places(n)
    assert list(zip(places.shards, places.numbers, strict=True)) == [everything[i] for i in n]


@given(shard_sizes.filter(any))
def test_samples_move_within_a_block_of_the_shards_order_only(sizes: list[int]):
    order = EpochOrder(sizes, 1, 2)
    straight = [(int(s), n) for s in order.shards for n in range(sizes[s])]
    found = whole(order)
    for start in range(0, len(found), 16):
        assert sorted(found[start : start + 16]) == sorted(straight[start : start + 16])


def test_seeds_and_epochs_have_orders_of_their_own():
    sizes = [10] * 10
    orders = {tuple(whole(EpochOrder(sizes, seed, epoch))) for seed in (0, 1) for epoch in (0, 1)}
    assert len(orders) == 4
    assert whole(EpochOrder(sizes, 1 + 2**32, 0)) != whole(EpochOrder(sizes, 1, 0))
    assert whole(EpochOrder(sizes, 1, 0)) == whole(EpochOrder(np.array(sizes), 1, 0))


def test_blocks_are_shuffled_each_in_its_own_way():
    order = EpochOrder([48], 1, 0)
    numbers = order.places(np.arange(48)).numbers.reshape(3, 16) - 16 * np.arange(3)[:, None]
    assert len({tuple(row) for row in numbers.tolist()}) == 3
    assert tuple(range(16)) not in {tuple(row) for row in numbers.tolist()}


def test_the_order_is_the_one_that_earlier_runs_had():
    """A run that goes on after an update must not see another order."""
    assert EpochOrder([3] * 6, seed=7, epoch=2).shards.tolist() == [1, 2, 4, 0, 5, 3]
    places = EpochOrder([3, 2, 4], seed=7, epoch=2).places(range(9))
    assert places.shards.tolist() == [1, 0, 2, 1, 0, 2, 0, 2, 2]
    assert places.numbers.tolist() == [1, 1, 1, 0, 0, 2, 2, 3, 0]


def test_shuffling_favours_no_place():
    """Over many epochs every shard and every sample of a block comes first equally often."""
    firsts = np.array([EpochOrder([4] * 4, 0, epoch).places([0]) for epoch in range(2000)])[:, :, 0]
    counts = np.zeros((4, 4), int)
    np.add.at(counts, (firsts[:, 0], firsts[:, 1]), 1)
    assert counts.sum() == 2000
    assert (abs(counts - 125) < 5 * np.sqrt(125)).all()


def test_a_place_outside_of_the_epoch_is_an_error():
    for bad in ([6], [-1]):
        with pytest.raises(IndexError, match="of an epoch of 6 samples"):
            EpochOrder([3, 3], 0, 0).places(bad)


@given(st.integers(1, 8), st.data())
def test_ranks_cut_a_global_batch_into_parts_that_differ_by_one_at_most(world_size: int, data):
    batch = list(range(data.draw(st.integers(world_size, 64))))
    parts = [batch[rank_slice(len(batch), rank, world_size)] for rank in range(world_size)]
    assert [item for part in parts for item in part] == batch
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    assert min(map(len, parts)) > 0


def test_a_batch_with_fewer_samples_than_ranks_says_so():
    with pytest.raises(ValueError, match=r"global_batch_size = 2 cannot be shared by 3 workers"):
        rank_slice(2, 0, 3)


def test_too_few_samples_for_a_batch_say_so():
    assert num_batches(17, 8) == 2
    with pytest.raises(ValueError, match="5 training samples do not fill one batch of 8"):
        num_batches(5, 8)
