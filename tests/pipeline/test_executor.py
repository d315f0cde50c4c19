"""The executor, on small stages and a session that runs them in this process."""

import contextlib
import io
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from pydantic import BaseModel
from rich.console import Console

from cluster.local_store import LocalStore
from cluster.monitor import MonitorHandle
from pipeline import fingerprint as fingerprint_module
from pipeline.console import RunDisplay
from pipeline.dag import Node, check_graph
from pipeline.errors import StageFailed
from pipeline.executor import Execution
from pipeline.plan import make_plan
from stages.artifacts import ReportFiles


class Settings(BaseModel):
    text: str = "x"
    fail: str = ""


class Recorder:
    """Notes what a tracker would be told."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def track(self, method: str, *args: Any) -> Any:
        self.calls.append((method, *args))
        return args[0] if method == "ensure_run" else None

    def snapshot(self) -> dict[str, Any]:
        return {}

    def progress(self, *args: Any) -> None: ...

    def statuses(self) -> dict[str, str]:
        """Run -> how it ended; ``finish_all`` ends whatever is open."""
        ended: dict[str, str] = {}
        for method, *args in self.calls:
            if method == "ensure_run":
                ended.setdefault(args[0], "RUNNING")
            elif method == "finish":
                ended[args[0]] = args[1]
            elif method == "finish_all":
                ended |= {run: args[0] for run, status in ended.items() if status == "RUNNING"}
        return ended


class InProcess:
    """A session without Ray: submits run at once, in this process."""

    def __init__(self, recorder: Recorder) -> None:
        self.monitor = MonitorHandle(recorder, remote=False)
        self._outcomes: list[Any] = []

    def submit(self, function: Any, *args: Any) -> int:
        try:
            self._outcomes.append(function(*args))
        except Exception as error:
            self._outcomes.append(error)
        return len(self._outcomes) - 1

    def wait(self, handles: list[int], timeout_s: float) -> list[int]:
        return handles

    def result(self, handle: int) -> Any:
        if isinstance(self._outcomes[handle], Exception):
            raise self._outcomes[handle]
        return self._outcomes[handle]

    def cancel(self, handle: int) -> None: ...


executed: list[str] = []


def run(config: Settings, services: Any, **inputs: Any) -> ReportFiles:
    """Write the settings' text; the stage that all nodes of these tests run."""
    if config.fail:
        raise ValueError(config.fail)
    executed.append(services.stage)
    texts = [services.store.get_bytes(a.html.key).decode() for a in inputs.values()]
    data = f"{config.text}({','.join(texts)})".encode()
    ref = services.store.put_bytes(f"out/{services.stage}", data)
    return ReportFiles(html=ref, markdown=ref, data=ref)


@pytest.fixture(autouse=True)
def _stage(monkeypatch):
    executed.clear()
    monkeypatch.setattr(fingerprint_module, "_reached", lambda module: {})


def graph(**changes: Settings) -> dict[str, Node]:
    """Two branches a -> b and c -> d, joined in e."""
    stage = ModuleType(__name__)
    edges = {"a": {}, "b": {"x": "a"}, "c": {}, "d": {"x": "c"}, "e": {"x": "b", "y": "d"}}
    return check_graph(
        Node(name, stage, changes.get(name, Settings(text=name)), inputs)
        for name, inputs in edges.items()
    )


def execute(nodes: dict[str, Node], store: LocalStore) -> tuple[Any, Recorder, str]:
    recorder, text = Recorder(), io.StringIO()
    session = InProcess(recorder)
    execution = Execution(
        graph=nodes,
        store=store,
        run_id="test",
        open_session=lambda: contextlib.nullcontext(session),
        scratch=Path("unused"),
        config={},
        tags={},
        display=RunDisplay(list(nodes), Console(file=text, width=160)),
    )
    try:
        outcome: Any = execution.run()
    except StageFailed as error:
        outcome = error
    return outcome, recorder, text.getvalue()


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


def test_every_stage_runs_once_after_its_inputs(store):
    records, recorder, _ = execute(graph(), store)
    assert sorted(executed) == ["a", "b", "c", "d", "e"]
    assert store.get_bytes(records["e"].artifact.html.key) == b"e(b(a()),d(c()))"
    assert set(recorder.statuses().values()) == {"FINISHED"}


def test_a_second_run_verifies_and_skips_everything_without_a_session(store):
    execute(graph(), store)
    executed.clear()
    records, recorder, text = execute(graph(), store)
    assert executed == []
    assert recorder.calls == []
    assert set(records) == {"a", "b", "c", "d", "e"}
    assert text.count("up to date, 3 objects verified") == 5


def test_a_changed_setting_runs_its_stage_and_what_follows_from_it(store):
    execute(graph(), store)
    executed.clear()
    changed = graph(b=Settings(text="B"))
    plan = make_plan(changed, store)
    assert plan["b"].reason == "text b -> B"
    assert {name for name, d in plan.items() if d.runs} == {"b", "e"}
    execute(changed, store)
    assert executed == ["b", "e"]


def test_an_unchanged_result_of_a_stage_that_ran_stops_the_change_there(store):
    execute(graph(), store)
    executed.clear()
    execute(graph(a=Settings(text="a", fail="")), store)
    assert executed == []
    changed = graph(c=Settings(text="c"))
    execute(changed, store)
    assert executed == []


def test_a_damaged_object_makes_its_stage_run_again_and_says_why(store):
    records, _, _ = execute(graph(), store)
    path = Path(store.url_of(records["b"].artifact.html.key).removeprefix("file://"))
    path.write_bytes(b"rubbish")
    executed.clear()
    assert make_plan(graph(), store)["b"].reason.startswith("damaged: ")
    execute(graph(), store)
    assert executed == ["b"]
    execute(graph(), store)
    assert executed == ["b"]


def test_a_failure_spares_the_other_branch_and_loses_nothing(store):
    failing = graph(b=Settings(text="b", fail="no luck"))
    error, recorder, text = execute(failing, store)
    assert isinstance(error, StageFailed)
    assert str(error) == "b failed: ValueError: no luck"
    assert sorted(executed) == ["a", "c", "d"]
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

    execution = Execution(
        graph=graph(),
        store=store,
        run_id="test",
        open_session=lambda: contextlib.nullcontext(Interrupted(recorder)),
        scratch=Path("unused"),
        config={},
        tags={},
        display=RunDisplay(list(graph()), Console(file=io.StringIO())),
    )
    with pytest.raises(KeyboardInterrupt):
        execution.run()
    assert set(recorder.statuses().values()) == {"KILLED"}
    assert len(recorder.statuses()) == 3
