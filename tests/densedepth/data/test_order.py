"""The order of an epoch: everything once, the same for all, another in every epoch."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from densedepth.data.order import epoch_shards, num_batches, rank_slice, shuffled


@given(st.lists(st.integers(), unique=True), st.integers(0, 9), st.integers(0, 9))
def test_every_shard_and_sample_comes_once(items: list[int], seed: int, epoch: int):
    assert sorted(epoch_shards(items, seed, epoch)) == sorted(items)
    assert sorted(shuffled(items, seed, epoch, block_size=3)) == sorted(items)


def test_the_order_is_a_function_of_seed_and_epoch():
    items = list(range(100))
    assert list(shuffled(items, 0, 1)) == list(shuffled(iter(items), 0, 1))
    orders = [tuple(shuffled(items, seed, epoch)) for seed in (0, 1) for epoch in (0, 1)]
    assert len(set(orders)) == 4


def test_samples_move_within_their_block_only():
    order = list(shuffled(range(10), 0, 0, block_size=4))
    assert sorted(order[:4]) == [0, 1, 2, 3]
    assert sorted(order[8:]) == [8, 9]


@given(st.integers(1, 8), st.integers(1, 8))
def test_ranks_cut_a_global_batch_into_equal_parts(per_rank: int, world_size: int):
    batch = list(range(per_rank * world_size))
    parts = [batch[rank_slice(len(batch), rank, world_size)] for rank in range(world_size)]
    assert [item for part in parts for item in part] == batch
    assert {len(part) for part in parts} == {per_rank}


def test_a_batch_that_cannot_be_cut_says_so():
    with pytest.raises(ValueError, match=r"global_batch_size = 8 cannot be cut .* 3 workers"):
        rank_slice(8, 0, 3)


def test_too_few_samples_for_a_batch_say_so():
    assert num_batches(17, 8) == 2
    with pytest.raises(ValueError, match="5 training samples do not fill one batch of 8"):
        num_batches(5, 8)
