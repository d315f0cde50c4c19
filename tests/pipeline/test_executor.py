"""The executor, on small stages and a session that runs them in this process."""

import io
import itertools
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster.errors import StoreUnavailable, StoreUnwritable
from cluster.local_store import LocalStore
from pipeline import executor as executor_module
from pipeline import source_code
from pipeline.driver import Driver
from pipeline.errors import CodeEdited, RunHeld, StageFailed, StageTimeout, UsageMistake
from pipeline.lease import Claims, Lease, lease_key, this_process
from pipeline.plan import Decision, make_plan
from pipeline.records import (
    StageRecord,
    find_record,
    publish_record,
    record_key,
)
from pipeline.retry import ExecutionConfig
from pipeline.runs import load_events, load_run
from pipeline.selection import select, upstream_of
from tests.pipeline import small_graph
from tests.pipeline.small_graph import (
    InProcess,
    Recorder,
    Settings,
    errors,
    execute,
    executed,
    execution,
    graph,
)

pytestmark = pytest.mark.usefixtures("small_stages")


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


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

    class Interrupted(InProcess):
        def wait(self, handles: list[int], timeout_s: float) -> list[int]:
            raise KeyboardInterrupt

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


@pytest.mark.parametrize(
    ("choice", "ran"),
    [
        ({"only": ["b"]}, {"b"}),
        ({"only": ["b"], "downstream": True}, {"b", "e"}),
        ({"first": ["b"]}, {"b", "e"}),
        ({"last": ["b"]}, {"b"}),
        ({"first": ["b"], "last": ["b"]}, {"b"}),
    ],
)
def test_only_what_is_chosen_runs(store, choice, ran):
    execute(graph(), store)
    executed.clear()
    text = {name: Settings(text=name.upper()) for name in ("b", "e")}
    _, _, shown = execute(graph(**text), store, **choice)
    assert set(executed) == ran
    left_out = [line.split()[0] for line in shown.splitlines() if "left out" in line]
    needed = upstream_of(graph(), ran)
    assert left_out == [name for name in graph() if name not in needed]  # in the graph's order


def test_a_chosen_stage_whose_input_is_stale_is_refused_before_anything_runs(store):
    execute(graph(), store)
    executed.clear()
    error, recorder, _ = execute(graph(a=Settings(text="A")), store, only=["b"])
    assert isinstance(error, UsageMistake)
    assert "b needs a, which is not up to date (text a -> A)" in str(error)
    assert (executed, recorder.calls) == ([], [])


def test_a_gap_between_chosen_stages_is_refused_before_anything_runs(store):
    """b, between a and e, is up to date now, but not once a has run."""
    execute(graph(), store)
    executed.clear()
    changed = graph(a=Settings(text="A"))
    error, recorder, _ = execute(changed, store, only=["a", "e"])
    assert str(error) == (
        "e needs b, which is not up to date (after a) and not among the chosen stages: "
        "choose it too"
    )
    assert (executed, recorder.calls) == ([], [])
    with pytest.raises(UsageMistake) as refused:
        make_plan(changed, store, select(changed, only=["a", "e"]))
    assert str(refused.value) == str(error)
    execute(graph(), store, only=["a", "e"])  # where a need not run there is no gap
    assert executed == []


def test_a_forced_stage_that_this_run_has_published_is_not_forced_again(store):
    """As after a driver that died before it could note that it had done what it was forced to."""
    execute(graph(), store)
    executed.clear()
    execute(graph(), store, force=["c"])
    records, _, text = execute(graph(), store, force=["c"])
    assert executed == ["c"]
    assert text.count("up to date") == 5
    assert records["c"].mark == "again-1"
    execute(graph(), store, force=["c"], run_id="another")
    assert executed == ["c", "c"]


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


def test_a_stage_that_was_stopped_is_said_to_have_been_stopped(store, monkeypatch):
    class Interrupted(InProcess):
        def wait(self, handles: list[int], timeout_s: float) -> list[int]:
            raise KeyboardInterrupt

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


def test_a_run_without_work_needs_no_right_to_write(store, monkeypatch):
    execute(graph(), store, run_id="one")

    def refuse(self, key, data):
        raise StoreUnwritable(self.url, "read only")

    monkeypatch.setattr(LocalStore, "put_bytes_if_absent", refuse)
    assert set(execute(graph(), store, run_id="two")[0]) == {"a", "b", "c", "d", "e"}


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


def test_a_forced_stage_runs_as_an_execution_of_its_own(store):
    execute(graph(), store)
    executed.clear()
    _, recorder, _ = execute(graph(), store, force=["c"], downstream=True)
    assert executed == ["c", "d", "e"]
    keys = [args[0] for method, *args in recorder.calls if method == "ensure_run"]
    assert [key.rpartition("/")[2] for key in keys[1:]] == ["again-1"] * 3
    assert load_run(store, "test").forced == {}


def test_what_a_retry_can_cure_is_tried_again_and_the_rest_is_not(store):
    settings = ExecutionConfig(retry_wait_s=0.01)
    errors["a"] = [StoreUnavailable("s3://b", "slow down"), StoreUnavailable("s3://b", "again")]
    errors["c"] = [ConnectionResetError("gone")]
    records, recorder, text = execute(graph(), store, settings=settings)
    assert set(records) == {"a", "b", "c", "d", "e"}
    assert (executed.count("a"), executed.count("c"), executed.count("b")) == (3, 2, 1)
    assert "try 2 in 0 s after StoreUnavailable" in text
    assert set(recorder.statuses().values()) == {"FINISHED"}
    assert load_run(store, "test").stages["a"].tries == 3

    executed.clear()
    errors["b"] = [ValueError("always")]
    error, _, _ = execute(graph(b=Settings(text="B")), store, settings=settings)
    assert isinstance(error, StageFailed)
    assert error.exit_code == 1
    assert executed == ["b"]


def test_retries_end(store):
    settings = ExecutionConfig(retry_wait_s=0.0, max_retries=1)
    errors["a"] = [StoreUnavailable("s3://b", "down")] * 3
    error, _, _ = execute(graph(), store, settings=settings)
    assert "a failed: StoreUnavailable: s3://b: down" in str(error)
    assert error.exit_code == 5
    assert executed.count("a") == 2


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


def test_a_store_that_is_away_for_a_moment_costs_nothing(store, monkeypatch):
    """The first write of each record and claim, and a write of the log, find nobody."""
    monkeypatch.setattr("pipeline.retry.time.sleep", lambda seconds: None)
    refused: set[str] = set()

    def flaky(put):
        def write(self, key, data):
            began = self.stat("runs/test/0001.json") is not None
            if began and key not in refused and not key.endswith("/lease"):
                refused.add(key)
                raise StoreUnavailable(self.url, "nobody answers")
            return put(self, key, data)

        return write

    for name in ("put_bytes", "put_bytes_if_absent"):
        monkeypatch.setattr(LocalStore, name, flaky(getattr(LocalStore, name)))
    settings = ExecutionConfig(retry_wait_s=0.0)  # the stages' own writes are refused too
    records, _, _ = execute(graph(), store, settings=settings)
    assert set(records) == {"a", "b", "c", "d", "e"}
    assert {key.split("/")[0] for key in refused} == {"claims", "networks", "records", "runs"}


@pytest.fixture
def edited_file(tmp_path: Path, monkeypatch) -> Iterator[Path]:
    """A file that the small stages reach, in a project of two files."""
    monkeypatch.undo()  # here they have files whose code counts
    small_graph.executed.clear()
    code = tmp_path / "code"
    stage, used = code / "tests/pipeline/small_graph.py", code / "densedepth/used.py"
    for path, text in ((stage, "from densedepth.used import f\n"), (used, "def f(): return 1\n")):
        path.parent.mkdir(parents=True)
        path.write_text(text)
    monkeypatch.setattr(source_code, "PROJECT_ROOT", code)
    monkeypatch.setattr(source_code, "LOOK_AGAIN_S", 0.0)
    monkeypatch.setenv("DEPTH_OUTPUTS", str(tmp_path / "outputs"))
    forget()
    yield used
    forget()


def forget() -> None:
    """Forget what this process has read of the code, as another one would not know it."""
    source_code.reached.cache_clear()
    source_code._read.cache_clear()


class Editing(InProcess):
    """Edits a file while a stage runs: what Ray's workers have is a copy."""

    def __init__(self, path: Path, text: str, while_in: str) -> None:
        super().__init__(Recorder())
        self.path, self.text, self.while_in = path, text, while_in

    def submit(self, function: Any, *args: Any) -> int:
        if args[2].stage == self.while_in:
            self.path.write_text(self.text)
        return super().submit(function, *args)


def test_an_edit_while_a_run_goes_on_changes_none_of_its_results(store, edited_file: Path):
    before = edited_file.read_text()
    execution(graph(), store, Editing(edited_file, "def f(): return 2\n", while_in="a")).run()
    assert sorted(executed) == list("abcde")

    forget()  # the next run is planned with the edit
    executed.clear()
    execute(graph(), store)
    assert sorted(executed) == list("abcde")

    edited_file.write_text(before)  # every stage's result stands under the code that computed it
    forget()
    executed.clear()
    execute(graph(), store)
    assert executed == []


def test_an_edit_between_the_plan_and_the_copy_stops_the_run_before_any_stage(
    store, edited_file: Path, monkeypatch
):
    made = execution(graph(), store, InProcess(Recorder()))
    opened = made.driver.open

    def edit_then_open(states: Any) -> None:
        edited_file.write_text("def f(): return 3\n")
        opened(states)

    monkeypatch.setattr(made.driver, "open", edit_then_open)
    with pytest.raises(CodeEdited, match=r"densedepth/used\.py was edited while the run") as found:
        made.run()
    assert found.value.exit_code == 7
    assert executed == []
    assert load_run(store, "test").status == "failed"


@pytest.mark.parametrize(
    "text", ["def f(): return 1  # a comment\n", '\n\ndef f():\n    """What."""\n    return 1\n']
)
def test_an_edit_without_a_meaning_stops_nothing(store, edited_file: Path, monkeypatch, text):
    made = execution(graph(), store, InProcess(Recorder()))
    opened = made.driver.open

    def edit_then_open(states: Any) -> None:
        edited_file.write_text(text)
        opened(states)

    monkeypatch.setattr(made.driver, "open", edit_then_open)
    assert set(made.run()) == set("abcde")


def test_a_driver_that_lost_its_run_stops(store):
    class Stolen(InProcess):
        def wait(self, handles: list[int], timeout_s: float) -> list[int]:
            made.driver._lease.lost_to = "someone"  # type: ignore[union-attr] # it is open
            return []

    recorder = Recorder()
    made = execution(graph(), store, Stolen(recorder), text=io.StringIO())
    with pytest.raises(RunHeld, match="lost the run to someone"):
        made.run()
    assert "KILLED" not in recorder.statuses().values()  # the other driver goes on with them
    assert load_run(store, "test").status == "running"
