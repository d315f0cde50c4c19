"""The gate of a store: one driver a run, and none while it is swept."""

import threading

import pytest

from pipeline.errors import RunHeld
from pipeline.lease import Lease, lease_key, this_process
from tests.pipeline.small_graph import execute, executed, graph

pytestmark = pytest.mark.usefixtures("small_stages")


def test_a_living_driver_of_the_same_run_keeps_a_second_one_out(store, monkeypatch):
    monkeypatch.setattr("pipeline.lease.BEAT_S", 0.05)
    first = Lease(store, lease_key("test"), this_process("test"))
    assert first.try_acquire()
    error, recorder, _ = execute(graph(), store)
    assert isinstance(error, RunHeld)
    assert "another driver works on it: run test, process" in str(error)
    assert (executed, recorder.calls) == ([], [])
    threading.Timer(0.3, first.release).start()
    records, _, text = execute(graph(), store, wait=True)
    assert set(records) == {"a", "b", "c", "d", "e"}
    assert "waiting: run test, process" in text


def test_no_run_begins_while_the_store_is_swept(store, monkeypatch):
    monkeypatch.setattr("pipeline.lease.BEAT_S", 0.05)
    sweeper = Lease(store, "sweep/lease", this_process("gc"))
    assert sweeper.try_acquire()
    error, _, _ = execute(graph(), store)
    assert isinstance(error, RunHeld)
    assert executed == []
    assert "is being swept by run gc" in str(error)
    sweeper.release()
