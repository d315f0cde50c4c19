"""Shared memory for batches: a slot is given to one batch at a time."""

import gc
import shutil
from collections import namedtuple

import pytest
import torch

from densedepth.data.batch_slots import BatchSlots


def test_a_process_takes_its_own_slots_until_all_are_in_use():
    slots = BatchSlots.make(num_processes=2, num_per_process=2, size_bytes=16)
    assert [slots.take(1) for _ in range(3)] == [2, 3, None]
    assert [slots.take(0) for _ in range(3)] == [0, 1, None]


def test_a_slot_is_free_when_the_last_tensor_on_it_is_gone():
    slots = BatchSlots.make(1, 1, 16)
    assert slots.take(0) == 0
    slots.memory[0].fill_(7)
    whole = slots.lend(0)
    part = whole[4:8].view(torch.int16)
    assert part.tolist() == [7 * 257] * 2
    del whole
    gc.collect()
    assert slots.take(0) is None
    del part
    gc.collect()
    assert slots.take(0) == 0


def test_what_a_slot_holds_is_seen_without_a_copy():
    slots = BatchSlots.make(1, 1, 16)
    view = slots.lend(0)
    slots.memory[0][3] = 42
    assert view[3] == 42


def test_too_little_shared_memory_is_told_before_a_process_dies_of_it(monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(64_000_000, 0, 64_000_000))
    with pytest.raises(OSError, match=r"2 loader processes need 98 MB .* 64 MB are free: give"):
        BatchSlots.make(2, 4, 12_288_000)
