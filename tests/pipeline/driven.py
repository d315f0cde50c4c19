"""A driver that kills itself: the body of the processes of ``test_killed_driver.py``."""

import json
import os
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import mlflow.tracking  # noqa: F401 - loaded once by the server that forks the drivers

from cluster.local_store import LocalStore
from cluster.monitor import Monitor
from cluster.tracking import TrackingConfig
from pipeline import fingerprint, runs
from pipeline.dag import Node, check_graph
from tests.pipeline import small_graph
from tests.pipeline.small_graph import InProcess, Settings, execution

EDGES: dict[str, dict[str, str]] = {"a": {}, "c": {}, "e": {"x": "a", "y": "c"}}
"""Two stages side by side, and one that joins them."""


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
        return super().put_bytes(key, data)

    def put_bytes_if_absent(self, key: str, data: bytes) -> bool:
        fuse.deed(f"put_if_absent {key}")
        return super().put_bytes_if_absent(key, data)

    def replace_bytes(self, key: str, data: bytes, expected_sha256: str) -> bool:
        fuse.deed(f"replace {key}")
        return super().replace_bytes(key, data, expected_sha256)

    def delete(self, key: str) -> None:
        fuse.deed(f"delete {key}")
        super().delete(key)


class KillingMonitor(Monitor):
    """A monitor whose every call to MLflow may be the driver's last moment."""

    def track(self, method: str, *args: Any) -> Any:
        fuse.deed(f"track {method}")
        return super().track(method, *args)


def graph() -> dict[str, Node]:
    """Return the graph of ``EDGES``."""
    stage = ModuleType(small_graph.__name__)
    return check_graph(
        Node(name, stage, Settings(text=name), inputs) for name, inputs in EDGES.items()
    )


def drive(folder: Path, kill_before: int | None, number: int) -> None:
    """Drive the run in this process; leave what was done in ``deeds-N`` and ``ran-N.json``."""
    global fuse
    fuse = Fuse(folder / f"deeds-{number}", kill_before)
    runs.SAVE_EVERY_S = 0.0  # every event is written, so that each is a moment to die in
    fingerprint._reached = lambda module: {}  # type: ignore[assignment] # these stages have no file
    small_graph.executed = Noted(folder / f"ran-{number}.json")
    monitor = KillingMonitor(TrackingConfig(uri=f"sqlite:///{folder}/mlflow.db"), folder / "files")
    execution(graph(), KillingStore(folder / "store"), InProcess(monitor)).run()


class Noted(list[str]):
    """The stages that began, on disk before they go on."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path

    def append(self, name: str) -> None:
        super().append(name)
        self._path.write_text(json.dumps(self))


Drive = Callable[[Path, int | None, int], None]
