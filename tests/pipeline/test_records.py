"""Two results of one stage: which of them stands."""

import io
from typing import Any

import pytest

from pipeline.driver import Driver
from pipeline.records import StageRecord, find_record, publish_record, record_key
from tests.pipeline.small_graph import InProcess, Recorder, execute, executed, execution, graph

pytestmark = pytest.mark.usefixtures("small_stages")


def test_of_two_results_for_one_stage_the_first_one_stands(store):
    records, _, _ = execute(graph(), store)
    late: StageRecord = records["a"].model_copy(update={"run_id": "late"})
    assert publish_record(store, late).run_id == "test"
    found = find_record(store, "a", late.fingerprint.digest())
    assert found is not None
    assert found.run_id == "test"
    assert publish_record(store, late, instead_of=records["a"]).run_id == "late"
    third = late.model_copy(update={"run_id": "third"})
    assert publish_record(store, third, instead_of=records["a"]).run_id == "late"
    key = record_key("a", late.fingerprint.digest())
    store.put_bytes(key, b"half a record")
    assert publish_record(store, third).run_id == "third"
    store.delete(key)  # as by gc
    assert publish_record(store, late, instead_of=third).run_id == "late"


def test_a_forced_stage_replaces_what_was_forced_while_it_waited_for_its_claim(store, monkeypatch):
    records, _, _ = execute(graph(), store, run_id="one")
    theirs = records["b"].model_copy(update={"run_id": "theirs", "mark": "again-9"})
    claim = Driver.claim

    def overtaken(self, name, digest):
        if find_record(store, name, digest) == records["b"]:
            publish_record(store, theirs, instead_of=records["b"])
        return claim(self, name, digest)

    monkeypatch.setattr(Driver, "claim", overtaken)
    made, _, _ = execute(graph(), store, run_id="two", force=["b"])
    assert (made["b"].run_id, made["b"].mark) == ("two", "again-1")
    assert find_record(store, "b", theirs.fingerprint.digest()) == made["b"]


def test_what_another_driver_published_meanwhile_is_not_overwritten_by_force(store, monkeypatch):
    """A driver whose claim was void, while this one executes what it is forced to."""
    records, _, _ = execute(graph(), store, run_id="one")
    theirs = records["b"].model_copy(update={"run_id": "theirs", "mark": "again-9"})

    class Overtaken(InProcess):
        def result(self, handle: int) -> Any:
            publish_record(store, theirs, instead_of=find_record(store, "b", digest))
            return super().result(handle)

    digest = theirs.fingerprint.digest()
    text = io.StringIO()
    made = execution(
        graph(), store, Overtaken(Recorder()), run_id="two", text=text, force=["b"]
    ).run()
    assert executed[-1] == "b"
    assert (made["b"].run_id, made["b"].mark) == ("theirs", "again-9")
    assert find_record(store, "b", digest) == made["b"]
    assert "what theirs published meanwhile stands" in text.getvalue()
