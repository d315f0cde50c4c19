"""A driver in a process of its own, that dies or hangs where a test wants it to.

It goes through the command line; only the graph is a small one, and its stages run in the driver.
"""

import contextlib
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

# Loaded once, by the server that forks the drivers:
import mlflow.store.model_registry.sqlalchemy_store
import mlflow.store.tracking.sqlalchemy_store
import mlflow.tracking  # noqa: F401
from sqlalchemy import event
from sqlalchemy.engine import Engine

from cluster import local_store, tracking
from cluster.local_store import LocalStore
from cluster.monitor import Monitor
from pipeline import cli, config, launch, runs, source_code
from pipeline.dag import Node, check_graph
from stages import register, shard
from tests.pipeline import small_graph
from tests.pipeline.small_graph import InProcess, Settings

EDGES: dict[str, dict[str, str]] = {"a": {}, "c": {}, "e": {"x": "a", "y": "c"}}
"""Two stages side by side, and one that joins them."""
PRESET = '[shard.x]\nformat = "nyu_densedepth"\nroot = "."\n'
ANCHORS = (
    (config, "anchored"),
    (shard, "anchored"),
    (tracking, "anchored_uri"),
    (register, "anchored_uri"),
)
"""Where a configuration's relative paths are made absolute."""
RUN = ("run", "small.toml", "store=store", "tracking.uri=sqlite:///mlflow.db")
"""The command; its paths are relative, so that in every folder it is the same run."""


@dataclass
class Fuse:
    """Counts what the driver's own thread does outside, and kills it before the n-th deed."""

    path: Path
    kill_before: int | None
    done: int = 0

    def deed(self, what: str) -> None:
        """Note a deed that is about to be done; perhaps die instead."""
        if threading.current_thread() is not threading.main_thread():
            return
        if self.done == self.kill_before:
            os.kill(os.getpid(), signal.SIGKILL)
        self.done += 1
        with self.path.open("a") as file:
            file.write(f"{what}\n")


fuse: Fuse


class KillingStore(LocalStore):
    """A folder whose every change may be the driver's last moment."""

    def put_bytes(self, key: str, data: bytes) -> Any:
        fuse.deed(f"put {key}")
        with half_written(key):
            return super().put_bytes(key, data)

    def put_bytes_if_absent(self, key: str, data: bytes) -> bool:
        fuse.deed(f"put_if_absent {key}")
        with half_written(key):
            return super().put_bytes_if_absent(key, data)

    def replace_bytes(self, key: str, data: bytes, expected_sha256: str) -> bool:
        fuse.deed(f"replace {key}")
        with half_written(key):
            return super().replace_bytes(key, data, expected_sha256)

    def delete(self, key: str) -> None:
        fuse.deed(f"delete {key}")
        super().delete(key)


@contextlib.contextmanager
def half_written(key: str) -> Iterator[None]:
    """Make the middle of writing a stage's bytes or its record a moment to die in, too."""
    if not key.startswith(("networks/", "records/")) or key.endswith("/latest.json"):
        yield
        return

    def write_all(file: Any, data: bytes) -> None:
        file.write(data[: len(data) // 2])
        fuse.deed(f"half of {key}")
        file.write(data[len(data) // 2 :])

    before = local_store._write_all
    local_store._write_all = write_all
    try:
        yield
    finally:
        local_store._write_all = before


class KillingMonitor(Monitor):
    """A monitor whose every call to MLflow may be the driver's last moment."""

    def track(self, method: str, *args: Any) -> Any:
        fuse.deed(f"track {method}")
        return super().track(method, *args)


class SlowMonitor(Monitor):
    """A monitor that ends its runs when the test lets it."""

    def track(self, method: str, *args: Any) -> Any:
        if method == "finish_all":
            Path("stops").touch()
            while not Path("go").exists():
                time.sleep(0.02)
        return super().track(method, *args)


class Hanging(InProcess):
    """A session in which stage ``c`` never ends."""

    def wait(self, handles: list[int], timeout_s: float) -> list[int]:
        ended = [handle for handle in handles if small_graph.executed[handle] != "c"]
        if not ended:
            Path("hangs").touch()
            time.sleep(timeout_s)
        return ended


def graph(configuration: Any = None) -> dict[str, Node]:
    """Return the graph of ``EDGES``, whatever the configuration says."""
    stage = ModuleType(small_graph.__name__)
    return check_graph(
        Node(name, stage, Settings(text=name), inputs) for name, inputs in EDGES.items()
    )


def drive(
    folder: Path, words: tuple[str, ...], kill_before: int | None, number: int, hangs: bool = False
) -> None:
    """Run a command in this process; leave what was done in ``deeds-N`` and ``ran-N.json``.

    Args:
        folder: outputs and working directory.
        words: the command.
        kill_before: the deed before which the process kills itself.
        number: the process's, for the names of its files.
        hangs: whether stage ``c`` hangs, and the stop waits for the file ``go``.
    """
    global fuse
    fuse = Fuse(folder / f"deeds-{number}", kill_before)
    os.chdir(folder)
    os.environ |= {"DEPTH_OUTPUTS": str(folder), "DEPTH_COMMIT": "abc"}
    signal.signal(signal.SIGINT, signal.default_int_handler)  # who starts the tests may have
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # them ignored, as nohup does
    _leave_the_disk_alone()
    runs.SAVE_EVERY_S = 0.0  # every event is written, so that each is a moment to die in
    shown = (folder / f"shown-{number}").open("w")
    os.dup2(shown.fileno(), 2)  # what is written past the streams, too
    sys.stdout = sys.stderr = shown
    for module, name in ANCHORS:
        setattr(module, name, str)  # relative paths stay: in every folder it is the same run
    source_code.reached = lambda module: {}  # these stages have no file
    small_graph.executed = Noted(folder / f"ran-{number}.json")
    launch.build_graph = graph
    launch.open_store = lambda url: KillingStore(folder / url)
    session, monitor = (Hanging, SlowMonitor) if hangs else (InProcess, KillingMonitor)
    launch.open_session = lambda _, tracking, files, module: contextlib.nullcontext(
        session(monitor(tracking, files))
    )
    sys.exit(cli.main(words))


def _leave_the_disk_alone() -> None:
    """Skip what only a power cut would show: a killed process loses nothing that it has written."""
    os.fsync = lambda descriptor: None
    event.listen(
        Engine, "connect", lambda connection, _: connection.execute("PRAGMA synchronous = OFF")
    )


class Noted(list[str]):
    """The stages that began, on disk before they go on."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path

    def append(self, name: str) -> None:
        super().append(name)
        self._path.write_text(json.dumps(self))
