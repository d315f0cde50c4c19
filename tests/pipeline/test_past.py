"""Why a stage would run: what it is compared with, and how it last ended."""

import pytest

from pipeline.lease import lease_key, this_process
from pipeline.plan import Decision, make_plan
from pipeline.runs import load_run
from pipeline.selection import select
from tests.pipeline.small_graph import Interrupted, Recorder, Settings, execute, execution, graph

pytestmark = pytest.mark.usefixtures("small_stages")


def test_what_is_stale_is_compared_with_what_the_run_itself_had_else_with_the_nearest(store):
    first, other = Settings(text="b"), Settings(text="B")
    execute(graph(b=first), store, run_id="one")
    execute(graph(b=other), store, run_id="two")
    execute(graph(b=other, a=Settings(text="A")), store, run_id="three")
    execute(graph(b=first), store, run_id="four")  # finds it made

    def decision(run_id: str, **changes: Settings) -> Decision:
        return make_plan(graph(**changes), store, run_id=run_id)["b"]

    now = Settings(text="now")
    assert decision("one", b=now).reason == "text b -> now"
    assert decision("two", b=now).reason == "text B -> now"
    assert decision("three", b=now).reason == "text B -> now; input a"
    assert decision("four", b=now).reason == "text b -> now"
    assert decision("four", b=now).compared_with == ""
    # What "three" had differs by the input as well; of the other two the newer one is taken.
    assert decision("five", b=now).reason == "text B -> now (compared with two)"
    assert decision("five", b=now, a=Settings(text="A")).compared_with == "three"
    behind = decision("one", b=now, a=Settings(text="new"))
    assert (behind.reason, behind.fingerprint) == ("after a; text b -> now", None)
    assert behind.last_seconds is not None
    assert decision("one", a=Settings(text="new")).reason == "after a"
    assert decision("five", a=Settings(text="new")).reason == "after a"
    forced = make_plan(graph(), store, select(graph(), force=["a", "b"]))
    assert [forced[name].reason for name in "abe"] == ["forced", "after a; forced", "after b"]


def test_a_stage_that_only_ever_failed_is_said_to_have_failed(store):
    execute(graph(c=Settings(text="c", fail="no luck\nat all")), store)
    decision = make_plan(graph(c=Settings(text="other")), store)["c"]
    assert decision.reason.startswith("never done: it failed in test at 20")
    assert decision.reason.endswith(": ValueError: no luck")
    execute(graph(), store)
    same = graph(c=Settings(text="C", fail="no luck"))
    execute(same, store)
    causes = make_plan(same, store)["c"].causes
    assert causes[:2] == ("text c -> C", "fail  -> no luck")
    assert causes[2].startswith("it failed in test at 20")
    assert "failed" not in make_plan(graph(c=Settings(text="c2")), store)["c"].reason


def test_a_stage_that_was_stopped_is_said_to_have_been_stopped(store, monkeypatch):
    def reasons(**changes: Settings) -> list[str]:
        plan = make_plan(graph(**changes), store, run_id="test")
        return [plan[name].reason for name in "abc"]

    with pytest.raises(KeyboardInterrupt):
        execution(graph(), store, Interrupted(Recorder())).run()
    stopped = "never done: it was stopped in test@1"
    assert reasons() == [stopped, "after a; never run", stopped]

    state = load_run(store, "test")
    state.status, state.stages["a"].status = "running", "runs"
    store.put_bytes("runs/test/0001.json", state.model_dump_json().encode())
    lives = this_process("test").model_copy(update={"owner": state.owner})
    store.put_bytes(lease_key("test"), lives.data())
    assert reasons()[0] == "never done: test@1 computes it"
    died = lives.model_copy(update={"pid": 2**22 + 1})  # no process has this number
    store.put_bytes(lease_key("test"), died.data())
    assert reasons()[0] == stopped

    execute(graph(), store)
    changed = {"a": Settings(text="A")}
    with pytest.raises(KeyboardInterrupt):
        execution(graph(**changed), store, Interrupted(Recorder())).run()
    assert reasons(**changed)[0] == "text a -> A; it was stopped in test@3"
    assert reasons(a=Settings(text="other"))[0] == "text a -> other"
