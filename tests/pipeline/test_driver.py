"""What a run holds while it works: its lease, its claims, its own log."""

import io
import itertools
import json
import threading
from typing import Any

import pytest

from cluster.errors import StoreUnavailable, StoreUnwritable
from cluster.local_store import LocalStore
from pipeline import executor as executor_module
from pipeline.claims import Claims
from pipeline.errors import RunHeld
from pipeline.lease import Lease, lease_key, this_process
from pipeline.plan import make_plan
from pipeline.runs import load_events, load_run
from tests.pipeline.small_graph import (
    InProcess,
    Recorder,
    Settings,
    execute,
    executed,
    execution,
    graph,
)

pytestmark = pytest.mark.usefixtures("small_stages")


def test_the_log_has_every_step_as_json_lines(store):
    execute(graph(), store)
    state = load_run(store, "test")
    assert (state.status, state.attempt) == ("finished", 1)
    assert {name: stage.status for name, stage in state.stages.items()} == dict.fromkeys(
        "abcde", "done"
    )
    lines = store.get_bytes("runs/test/0001.jsonl").decode().splitlines()
    events = [json.loads(line) for line in lines]
    assert events == load_events(store, state)
    steps = [(e["event"], e.get("stage")) for e in events]
    assert steps[0] == ("run started", None)
    assert steps[-1] == ("run finished", None)
    for name in "abcde":
        assert steps.index(("runs", name)) < steps.index(("done", name))


def test_a_run_that_finds_all_made_by_others_leaves_a_state_once(store):
    execute(graph(), store, run_id="one")
    for _ in range(2):
        records, recorder, _ = execute(graph(), store, run_id="two")
        assert (set(records), recorder.calls) == ({"a", "b", "c", "d", "e"}, [])
    state = load_run(store, "two")
    assert (state.name, state.status, state.ended_at != "") == ("two@1", "finished", True)
    assert {s.status for s in state.stages.values()} == {"cached"}
    digests = {name: records[name].fingerprint.digest() for name in state.stages}
    assert {n: s.fingerprint for n, s in state.stages.items()} == digests
    assert [e["event"] for e in load_events(store, state)] == ["run started", "run finished"]
    execute(graph(b=Settings(text="B")), store, run_id="three")
    execute(graph(), store, run_id="three")  # back to what was: other results than its last ones
    assert load_run(store, "three").name == "three@2"


def test_a_run_whose_stages_another_run_made_is_finished_all_the_same(store):
    execute(graph(e=Settings(text="e", fail="no luck")), store, run_id="one")
    assert load_run(store, "one").status == "failed"
    execute(graph(), store, run_id="two")
    executed.clear()
    _, recorder, _ = execute(graph(), store, run_id="one")
    assert executed == []
    assert recorder.statuses() == {"one": "FINISHED"}
    assert load_run(store, "one").name == "one@2"
    assert load_run(store, "one").status == "finished"


def test_a_run_without_work_needs_no_right_to_write(store, monkeypatch):
    execute(graph(), store, run_id="one")

    def refuse(self, key, data):
        raise StoreUnwritable(self.url, "read only")

    monkeypatch.setattr(LocalStore, "put_bytes_if_absent", refuse)
    assert set(execute(graph(), store, run_id="two")[0]) == {"a", "b", "c", "d", "e"}


def test_a_driver_that_lost_its_run_stops(store):
    class Stolen(InProcess):
        def wait(self, handles: list[int], timeout_s: float) -> list[int]:
            made.driver._lease.lost_to = "someone"  # it is open
            return []

    recorder = Recorder()
    made = execution(graph(), store, Stolen(recorder), text=io.StringIO())
    with pytest.raises(RunHeld, match="lost the run to someone"):
        made.run()
    assert "KILLED" not in recorder.statuses().values()  # the other driver goes on with them
    assert load_run(store, "test").status == "running"


def test_a_store_that_is_away_when_the_lease_is_given_back_hides_nothing(store, monkeypatch):
    def delete(self: LocalStore, key: str) -> None:
        if key == lease_key("test"):
            raise StoreUnavailable(self.url_of(key), "no answer")
        unspoilt(self, key)

    unspoilt = LocalStore.delete
    monkeypatch.setattr(LocalStore, "delete", delete)
    records, _, text = execute(graph(), store)
    assert set(records) == {"a", "b", "c", "d", "e"}
    assert "the run's lease was not given back and ends by itself soon: " in text
    assert load_run(store, "test").status == "finished"


def test_two_runs_that_need_the_same_stages_compute_them_once(store):
    """Two drivers in threads, with different runs of one graph, started together."""
    barrier = threading.Barrier(2)
    outcomes: dict[str, Any] = {}

    def drive(run_id: str) -> None:
        barrier.wait()
        outcomes[run_id] = execute(graph(), store, run_id=run_id)[0]

    threads = [threading.Thread(target=drive, args=(name,)) for name in ("one", "two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(executed) == ["a", "b", "c", "d", "e"]
    digests = [
        {name: record.artifact.network.sha256 for name, record in outcome.items()}
        for outcome in outcomes.values()
    ]
    assert digests[0] == digests[1]
    assert not list(store.list_keys("claims/"))


def test_what_another_driver_computes_is_looked_at_ever_more_seldom(store, monkeypatch):
    """Three minutes, by a clock of this test's own."""
    clock, looks = [0.0], []

    class Clock:
        monotonic = staticmethod(lambda: clock[0])

        @staticmethod
        def sleep(seconds: float) -> None:
            clock[0] += seconds
            if clock[0] > 180:
                theirs.release_all()
                other.release()

    def counted(self, name):
        looks.append(clock[0])
        return try_claim(self, name)

    nodes = {"a": graph()["a"]}
    theirs = Claims(store, this_process("theirs"))
    other = Lease(store, lease_key("theirs"), theirs._me)
    assert other.try_acquire()
    digest = make_plan(nodes, store)["a"].fingerprint.digest()
    assert theirs.try_claim(f"a/{digest}") is None
    try_claim = Claims.try_claim
    monkeypatch.setattr(Claims, "try_claim", counted)
    monkeypatch.setattr(executor_module, "time", Clock)
    records, _, text = execute(nodes, store)
    assert set(records) == {"a"}
    assert text.count("run theirs, process") == 1
    assert 36 <= len(looks) <= 42
    assert looks[1] - looks[0] < 0.7
    assert max(b - a for a, b in itertools.pairwise(looks)) < 6


def test_a_claim_that_cannot_be_read_stops_the_run_and_says_so(store):
    digest = make_plan(graph(), store)["a"].fingerprint.digest()
    store.put_bytes(f"claims/a/{digest}", b'{"format": 2}')
    error, recorder, _ = execute(graph(), store)
    assert isinstance(error, RunHeld)
    assert f"claims/a/{digest} cannot be read: a driver of another version" in str(error)
    assert load_run(store, "test").status == "failed"
    assert recorder.statuses() == {"test": "FAILED"}
    assert executed == []
