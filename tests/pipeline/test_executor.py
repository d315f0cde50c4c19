"""The executor, on small stages and a session that runs them in this process."""

import itertools
import time
from pathlib import Path
from typing import Any

import pytest

from pipeline import executor as executor_module
from pipeline.errors import StageFailed, StageTimeout
from pipeline.lease import lease_key
from pipeline.plan import make_plan
from pipeline.retry import ExecutionConfig
from pipeline.runs import load_run
from tests.pipeline.small_graph import (
    InProcess,
    Interrupted,
    Recorder,
    Settings,
    execute,
    executed,
    execution,
    graph,
)

pytestmark = pytest.mark.usefixtures("small_stages")


def test_every_stage_runs_once_after_its_inputs(store):
    records, recorder, _ = execute(graph(), store)
    assert sorted(executed) == ["a", "b", "c", "d", "e"]
    assert store.get_bytes(records["e"].artifact.network.key) == b"e(b(a()),d(c()))"
    assert set(recorder.statuses().values()) == {"FINISHED"}


def test_a_second_run_verifies_and_skips_everything_and_writes_nothing(store):
    execute(graph(), store)
    before = {key: store.get_bytes(key) for key in store.list_keys()}
    executed.clear()
    records, recorder, text = execute(graph(), store)
    assert executed == []
    assert recorder.calls == []
    assert set(records) == {"a", "b", "c", "d", "e"}
    assert text.count("up to date, 1 object verified") == 5
    assert {key: store.get_bytes(key) for key in store.list_keys()} == before


def test_a_changed_setting_runs_its_stage_and_what_follows_from_it(store):
    execute(graph(), store)
    executed.clear()
    changed = graph(b=Settings(text="B"))
    plan = make_plan(changed, store, run_id="test")
    assert plan["b"].reason == "text b -> B"
    assert {name for name, d in plan.items() if d.runs} == {"b", "e"}
    execute(changed, store)
    assert executed == ["b", "e"]


def test_an_unchanged_result_of_a_stage_that_ran_stops_the_change_there(store):
    execute(graph(), store)
    executed.clear()
    execute(graph(), store, force=["a"])
    assert executed == ["a"]


def test_a_damaged_object_makes_its_stage_run_again_and_says_why(store):
    records, _, _ = execute(graph(), store)
    path = Path(store.url_of(records["b"].artifact.network.key).removeprefix("file://"))
    path.write_bytes(b"rubbish")
    executed.clear()
    reason = make_plan(graph(), store)["b"].reason  # which gives no advice: it is made anew
    size_bytes = records["b"].artifact.network.size_bytes
    assert reason == f"damaged: file://{path}: it has 7 bytes instead of {size_bytes}"
    execute(graph(), store)
    assert executed == ["b"]
    execute(graph(), store)
    assert executed == ["b"]


def test_after_a_failure_nothing_new_begins_and_nothing_is_lost(store):
    failing = graph(a=Settings(text="a", fail="no luck"))
    error, recorder, text = execute(failing, store)
    assert isinstance(error, StageFailed)
    assert str(error) == "a failed: ValueError: no luck"
    assert sorted(executed) == ["a", "c"]  # both were ready together
    assert "not begun after a failed" in text
    assert recorder.statuses()["test"] == "FAILED"
    executed.clear()
    execute(graph(), store)
    assert sorted(executed) == ["a", "b", "d", "e"]


def test_keep_going_runs_all_that_does_not_need_what_failed(store):
    failing = graph(b=Settings(text="b", fail="no luck"))
    error, recorder, text = execute(failing, store, keep_going=True)
    assert str(error) == "b failed: ValueError: no luck"
    assert sorted(executed) == ["a", "b", "c", "d"]
    assert "not run: an input failed" in text
    assert recorder.statuses()["test"] == "FAILED"
    executed.clear()
    records, _, _ = execute(graph(), store)
    assert executed == ["b", "e"]
    assert set(records) == {"a", "b", "c", "d", "e"}


def test_an_interrupt_marks_what_ran_as_killed(store):
    recorder = Recorder()
    session = Interrupted(recorder)
    with pytest.raises(KeyboardInterrupt):
        execution(graph(), store, session).run()
    assert set(recorder.statuses().values()) == {"KILLED"}
    assert len(recorder.statuses()) == 3
    assert session.cancelled == [(0, False), (1, False)]
    state = load_run(store, "test")
    assert state.status == "killed"
    assert {n for n, s in state.stages.items() if s.status == "killed"} == {"a", "c"}
    assert not list(store.list_keys("claims/"))
    assert store.stat(lease_key("test")) is None


def test_a_stage_beyond_its_limit_is_stopped_then_killed(store, monkeypatch):
    monkeypatch.setattr(executor_module, "GRACE_S", 0.05)

    class Endless(InProcess):
        def wait(self, handles: list[int], timeout_s: float) -> list[int]:
            time.sleep(0.01)
            return [handle for handle in handles if handle != 0]

    session = Endless(Recorder())
    limits = ExecutionConfig(time_limits_s={"a": 0.05})
    with pytest.raises(StageTimeout, match=r"a failed: it took longer than its limit of 0.05 s"):
        execution(graph(), store, session, settings=limits).run()
    assert session.cancelled == [(0, False), (0, True)]
    assert load_run(store, "test").stages["a"].status == "failed"


def test_progress_is_asked_for_at_most_every_poll(store):
    asked = []

    class Asked(Recorder):
        def snapshot(self) -> dict[str, Any]:
            asked.append(time.monotonic())
            return {}

    execution(graph(), store, InProcess(Asked())).run()  # five stages, one after the other
    gaps = [b - a for a, b in itertools.pairwise(asked)]
    assert asked
    assert all(gap >= executor_module.POLL_S for gap in gaps)
