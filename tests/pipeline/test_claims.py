"""Claims: who computes a stage, and when that ends."""

import pytest

from pipeline.claims import Claims
from pipeline.errors import RunHeld
from pipeline.lease import Lease, holder_of, lease_key, this_process
from tests.pipeline.test_lease import elsewhere


def test_a_claim_that_cannot_be_read_is_neither_taken_nor_waited_for(store):
    store.put_bytes("claims/train/abc", b'{"format": 2}')
    with pytest.raises(RunHeld, match=r"claims/train/abc cannot be read: .* gc --delete"):
        Claims(store, this_process("run")).try_claim("train/abc")


def test_a_claim_holds_as_long_as_its_run_has_a_living_driver(store):
    mine, other = Claims(store, this_process("run")), elsewhere("other", "theirs")
    driver = Lease(store, lease_key("theirs"), other)
    assert driver.try_acquire()
    theirs = Claims(store, other)
    assert theirs.try_claim("train/abc") is None
    assert theirs.try_claim("train/abc") is None  # its own
    assert mine.try_claim("train/abc").owner == "other"
    theirs.release("train/abc")
    assert mine.try_claim("train/abc") is None
    assert theirs.try_claim("shard/abc") is None
    driver.release()  # without its lease the driver is gone
    assert mine.try_claim("shard/abc") is None
    mine.release_all()
    assert not list(store.list_keys("claims/"))


def test_a_claim_that_another_one_has_by_now_is_not_given_back(store):
    mine = Claims(store, this_process("run"))
    assert mine.try_claim("train/abc") is None
    store.put_bytes("claims/train/abc", elsewhere("successor").data())
    mine.release_all()
    assert holder_of(store, "claims/train/abc").owner == "successor"


def test_a_claim_of_an_earlier_driver_of_a_run_is_void(store):
    first, second = elsewhere("first", "theirs"), elsewhere("second", "theirs")
    assert Claims(store, first).try_claim("train/abc") is None
    driver = Lease(store, lease_key("theirs"), second)
    assert driver.try_acquire()
    assert Claims(store, this_process("run")).try_claim("train/abc") is None
    driver.release()
