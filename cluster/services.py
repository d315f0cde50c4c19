"""What a stage is given of the outside world: a store, its MLflow run, a place for progress."""

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cluster.monitor import Beat, MonitorHandle
from cluster.storage import ObjectRef, ObjectStore


@dataclass(frozen=True)
class Services:
    """A small value that Ray carries to the stage's task and on to its workers.

    Attributes:
        store: the object store.
        monitor: progress and MLflow.
        stage: the node's name, ``train.nyu``.
        key: names this execution: (pipeline run, node, fingerprint); the same after a restart.
        run_id: the stage's MLflow run.
        scratch: a folder on the node for downloads, shared by its processes.
        label: the trial's name where this is one; its progress is then words beside the stage's.
    """

    store: ObjectStore
    monitor: MonitorHandle
    stage: str
    key: str
    run_id: str
    scratch: Path
    label: str = ""

    def progress(self, done: float, total: float, unit: str, text: str = "") -> None:
        """Say how far the stage is, or the trial in it."""
        if self.label:
            self.monitor.say(self.stage, f"{self.label}: {done:g}/{total:g} {unit}, {text}")
        else:
            self.monitor.progress(self.stage, done, total, unit, text)

    def say(self, text: str) -> None:
        """Replace the words beside the stage's progress."""
        self.monitor.say(self.stage, f"{self.label}: {text}" if self.label else text)

    def beat(self, rank: int, doing: str, step: int, seconds: float) -> None:
        """Say where a rank of a training is."""
        beat = Beat(node=platform.node(), pid=os.getpid(), doing=doing, step=step, seconds=seconds)
        self.monitor.beat(self.key, rank, beat)

    def end_beats(self, rank: int) -> None:
        """Say that a rank has ended."""
        self.monitor.beat(self.key, rank, None)

    def beats(self) -> dict[int, Beat]:
        """Return the last word of each rank of this training."""
        return self.monitor.beats(self.key)

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Log parameters of the stage's run."""
        self.monitor.log_params(self.run_id, params)

    def log_metrics(self, records: Sequence[tuple[int, Mapping[str, float]]]) -> None:
        """Log (step, metrics) records of the stage's run."""
        self.monitor.log_metrics(self.run_id, records)

    def log_bytes(self, path: str, data: bytes) -> None:
        """Log a file among the stage's artifacts."""
        self.monitor.log_bytes(self.run_id, path, data)

    def log_dataset(self, name: str, version: ObjectRef, context: str) -> None:
        """Log that the stage's run uses a data set; its version is an object's digest."""
        url = self.store.url_of(version.key)
        self.monitor.log_dataset(self.run_id, name, version.sha256, url, context)

    def child(self, name: str) -> "Services":
        """Return the same services with a run of its own below the stage's: a trial."""
        key = f"{self.key}/{name}"
        run_id = self.monitor.ensure_run(key, name, self.run_id, {"depth.stage": self.stage})
        return replace(self, key=key, run_id=run_id, label=name)
