"""Small stages, and a session that runs them in this process: what the executor's tests drive."""

import contextlib
import io
from pathlib import Path
from types import ModuleType
from typing import Any

from rich.console import Console

from cluster.monitor import MonitorHandle
from cluster.storage import ObjectStore
from pipeline.console import RunDisplay
from pipeline.dag import Node, check_graph
from pipeline.driver import Driver
from pipeline.errors import PipelineError
from pipeline.executor import Execution
from pipeline.retry import ExecutionConfig
from pipeline.selection import select
from stages.artifacts import Checkpoint, EpochRecord
from stages.settings import Settings as StageSettings


class Settings(StageSettings):
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
                ended[args[0]] = "RUNNING"
            elif method == "finish":
                ended[args[0]] = args[1]
            elif method == "finish_all":
                ended |= {run: args[0] for run, status in ended.items() if status == "RUNNING"}
        return ended


class InProcess:
    """A session without Ray: submits run at once, in this process."""

    def __init__(self, monitor: Any) -> None:
        self.monitor = MonitorHandle(monitor, remote=False)
        self.cancelled: list[tuple[int, bool]] = []
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

    def cancel(self, handle: int, force: bool = False) -> None:
        self.cancelled.append((handle, force))


class Interrupted(InProcess):
    """A session whose driver is interrupted while it waits for what it has begun."""

    def wait(self, handles: list[int], timeout_s: float) -> list[int]:
        raise KeyboardInterrupt


executed: list[str] = []
"""The stages that ran, in their order; a test clears it."""
errors: dict[str, list[Exception]] = {}
"""Stage -> what its next executions raise, one after the other."""


def run(config: Settings, services: Any, **inputs: Any) -> Checkpoint:
    """Write the settings' text; the stage that all nodes of these tests run."""
    executed.append(services.stage)
    if errors.get(services.stage):
        raise errors[services.stage].pop(0)
    if config.fail:
        raise ValueError(config.fail)
    services.log_metrics([(0, {"length": float(len(config.text))})])
    texts = [services.store.get_bytes(a.network.key).decode() for a in inputs.values()]
    data = f"{config.text}({','.join(texts)})".encode()
    ref = services.store.put_bytes(f"networks/{services.stage}-{config.text}", data)
    epoch = EpochRecord(epoch=0, step=1, train_loss=0.0, metrics={}, seconds=0.0)
    return Checkpoint(
        dataset=services.stage,
        network=ref,
        recipe={},
        best_epoch=0,
        epochs=(epoch,),
        num_parameters=0,
        train_seconds=float(len(data)),
        num_workers=1,
    )


EDGES = {"a": {}, "b": {"x": "a"}, "c": {}, "d": {"x": "c"}, "e": {"x": "b", "y": "d"}}
"""Two branches a -> b and c -> d, joined in e."""


def graph(**changes: Settings) -> dict[str, Node]:
    """Return the graph of ``EDGES``; each stage's text is its name unless it is changed."""
    stage = ModuleType(__name__)
    return check_graph(
        Node(name, stage, changes.get(name, Settings(text=name)), inputs)
        for name, inputs in EDGES.items()
    )


def execution(
    nodes: dict[str, Node],
    store: ObjectStore,
    session: Any,
    *,
    run_id: str = "test",
    text: io.StringIO | None = None,
    settings: ExecutionConfig | None = None,
    keep_going: bool = False,
    wait: bool = False,
    **choice: Any,
) -> Execution:
    """Make an execution of a graph; ``choice`` goes to ``select``."""
    selection = select(nodes, **choice)
    display = RunDisplay(list(nodes), Console(file=text or io.StringIO(), width=200))
    forced = dict.fromkeys(sorted(selection.forced), "again-1")
    driver = Driver(
        store=store,
        run_id=run_id,
        open_session=lambda: contextlib.nullcontext(session),
        scratch=Path("unused"),
        config={"name": run_id},
        tags={"depth.preset": "small"},
        wait=wait,
        say=display.say,
        plan={"chosen": tuple(sorted(selection.chosen)), "forced": forced},
    )
    return Execution(
        graph=nodes,
        driver=driver,
        display=display,
        chosen=selection.chosen,
        forced=dict(forced),
        settings=settings or ExecutionConfig(),
        keep_going=keep_going,
    )


def execute(
    nodes: dict[str, Node], store: ObjectStore, **options: Any
) -> tuple[Any, Recorder, str]:
    """Execute a graph; return its records or the error, what MLflow was told, what was shown."""
    recorder, text = Recorder(), io.StringIO()
    made = execution(nodes, store, InProcess(recorder), text=text, **options)
    try:
        outcome: Any = made.run()
    except PipelineError as error:
        outcome = error
    return outcome, recorder, text.getvalue()
