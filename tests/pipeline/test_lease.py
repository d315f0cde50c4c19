"""Leases: who holds one, and how the dead are told from the living."""

import math
import threading
import time

import pytest

from cluster.errors import StoreUnavailable
from cluster.local_store import LocalStore
from pipeline import lease as module
from pipeline.lease import Holder, Lease, Watch, acquire, holder_of, lease_key, this_process

KEY = lease_key("run")


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(module, "BEAT_S", 0.05)
    monkeypatch.setattr(module, "DEAD_AFTER_S", 0.4)


def elsewhere(owner: str = "other", run_id: str = "run") -> Holder:
    """Return a driver on a machine whose processes cannot be looked up here."""
    return Holder(owner=owner, run_id=run_id, host="far", machine="far/boot/pids", pid=1)


def take(store: LocalStore, wait: bool = False) -> Lease | Holder:
    return acquire(store, KEY, this_process("run"), wait=wait, say=lambda text: None)


def test_a_lease_is_held_renewed_and_given_back(store):
    lease = take(store)
    assert isinstance(lease, Lease)
    time.sleep(0.2)
    holder = holder_of(store, KEY)
    assert holder is not None
    assert holder.owner == lease.me.owner
    assert holder.beat >= 2
    lease.release()
    assert holder_of(store, KEY) is None


def test_a_living_holder_elsewhere_is_known_by_its_heartbeat(store):
    other = Lease(store, KEY, elsewhere())
    assert other.try_acquire()
    found = take(store)
    assert isinstance(found, Holder)
    assert found.owner == "other"
    other.release()


def test_a_dead_holder_elsewhere_is_replaced_when_its_heartbeat_has_ended(store):
    store.put_bytes(KEY, elsewhere().data())
    began = time.monotonic()
    lease = take(store)
    assert isinstance(lease, Lease)
    assert time.monotonic() - began >= 0.4
    assert holder_of(store, KEY).owner == lease.me.owner
    lease.release()


def test_a_dead_process_of_this_machine_is_replaced_at_once(store, monkeypatch):
    monkeypatch.setattr(module, "DEAD_AFTER_S", math.inf)  # no heartbeat is waited for
    gone = this_process("run").model_copy(update={"pid": 2**22 + 1, "owner": "gone"})
    store.put_bytes(KEY, gone.data())
    lease = take(store)
    assert isinstance(lease, Lease)
    lease.release()


def test_of_many_that_take_over_from_the_dead_one_wins(store):
    store.put_bytes(KEY, elsewhere("dead").data())
    taken: list[Lease | Holder] = []
    threads = [threading.Thread(target=lambda: taken.append(take(store))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    winners = [x for x in taken if isinstance(x, Lease)]
    assert len(winners) == 1
    assert {x.owner for x in taken if isinstance(x, Holder)} == {winners[0].me.owner}
    winners[0].release()


def test_waiting_ends_when_the_holder_gives_back(store):
    other = Lease(store, KEY, elsewhere())
    assert other.try_acquire()
    told: list[str] = []
    threading.Timer(0.3, other.release).start()
    lease = acquire(store, KEY, this_process("run"), wait=True, say=told.append)
    assert isinstance(lease, Lease)
    assert told == ["waiting: run run, process 1 on far has it, or died less than 0.4 s ago"]
    lease.release()


def test_a_holder_that_stood_still_and_was_replaced_notices(store):
    lease = take(store)
    assert isinstance(lease, Lease)
    store.put_bytes(KEY, elsewhere("thief").data())
    time.sleep(0.3)
    assert lease.lost_to == "run run, process 1 on far"
    lease.release()
    assert holder_of(store, KEY).owner == "thief"


def test_a_store_that_is_away_for_a_while_costs_no_lease(store, monkeypatch):
    lease = take(store)
    assert isinstance(lease, Lease)
    replace = LocalStore.replace_bytes

    def away(self, *args):
        raise StoreUnavailable("store", "no answer")

    monkeypatch.setattr(LocalStore, "replace_bytes", away)
    time.sleep(0.2)
    monkeypatch.setattr(LocalStore, "replace_bytes", replace)
    before = holder_of(store, KEY).beat
    time.sleep(0.2)
    assert lease.lost_to is None
    assert holder_of(store, KEY).beat > before
    lease.release()


def test_an_unreadable_lease_is_nobodys(store):
    store.put_bytes(KEY, b"half a li")
    lease = take(store)
    assert isinstance(lease, Lease)
    lease.release()


def test_a_lease_of_another_version_lives_while_its_bytes_change(store):
    watch = Watch(store, KEY)
    for beat in range(8):  # for longer than the dead may keep still
        store.put_bytes(KEY, b'{"format": 2, "pulse": %d}' % beat)
        holder, lives = watch.look()
        assert lives is not False
        time.sleep(0.08)
    assert "a driver whose lease cannot be read" in str(holder)
    time.sleep(0.45)
    assert watch.look()[1] is False


def test_a_store_that_was_away_is_not_held_against_the_holder(store, monkeypatch):
    store.put_bytes(KEY, elsewhere().data())
    watch = Watch(store, KEY)
    watch.look()
    watch._looked -= 60  # nobody could look for a minute
    watch._since -= 60
    assert watch.look() == (elsewhere(), None)


def test_a_watch_says_what_it_does_not_know_yet(store):
    watch = Watch(store, KEY)
    assert watch.look() == (None, False)
    store.put_bytes(KEY, elsewhere().data())
    assert watch.look() == (elsewhere(), None)
    time.sleep(0.45)
    assert watch.look() == (elsewhere(), False)
