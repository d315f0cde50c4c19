"""One actor beside the driver: progress of every stage, and the only writer to MLflow of a run.

Workers anywhere send to it and do not wait; the driver asks it what to show.
"""

import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from cluster.errors import RayUnavailable, TrackingError
from cluster.tracking import Tracking, TrackingConfig
from cluster.tracking_process import Address, Connection


class Progress(BaseModel):
    """How far a stage is.

    Attributes:
        stage: the node's name, ``train.nyu``.
        done: units done.
        total: units in all; 0 = not known yet.
        unit: what is counted, ``frames`` or ``steps``.
        text: the latest figures, such as ``loss 0.213``.
        first: units done when counting began, as after a restart.
        elapsed_s: seconds since counting began.
    """

    model_config = ConfigDict(frozen=True)

    stage: str
    done: float
    total: float
    unit: str
    text: str
    elapsed_s: float
    first: float = 0.0

    def eta_s(self) -> float | None:
        """Seconds left at the speed so far; None while nothing can be said."""
        counted = self.done - self.first
        if self.total <= 0 or counted <= 0:
            return None
        return self.elapsed_s * (self.total - self.done) / counted


class Beat(BaseModel):
    """A rank's last word: where it is in its training.

    Attributes:
        node: the machine's name.
        pid: the process's number there.
        doing: ``batch`` (waits for one), ``step``, ``end`` (of an epoch's), or what comes before.
        step: steps that this process began.
        seconds: how long it has been doing that.
        silent_s: seconds since it said so.
    """

    model_config = ConfigDict(frozen=True)

    node: str
    pid: int
    doing: str
    step: int
    seconds: float
    silent_s: float = 0.0


class Monitor:
    """The actor's body; also used as it is where there is no Ray.

    Args:
        tracking: MLflow's server and experiment.
        artifact_root: where files go with an sqlite URI.
        process: where MLflow's own process listens; None = this one does what that would do.
    """

    def __init__(
        self,
        tracking: TrackingConfig,
        artifact_root: Path | None = None,
        process: Address | None = None,
    ) -> None:
        self._tracking = Tracking(tracking, artifact_root)
        self._process = process
        self._connection: Connection | None = None
        self._lock = threading.RLock()
        self._progress: dict[str, Progress] = {}
        self._started: dict[str, float] = {}
        self._first: dict[str, float] = {}
        self._beats: dict[str, dict[int, tuple[float, Beat]]] = {}

    def progress(self, stage: str, done: float, total: float, unit: str, text: str) -> None:
        """Note how far a stage is."""
        known = self._progress.get(stage)
        if known is None or (known.unit, known.total) != (unit, total):
            self._started[stage], self._first[stage] = time.monotonic(), done
        started = self._started[stage]
        self._progress[stage] = Progress(
            stage=stage,
            done=done,
            total=total,
            unit=unit,
            text=text,
            first=self._first[stage],
            elapsed_s=time.monotonic() - started,
        )

    def say(self, stage: str, text: str) -> None:
        """Replace the words beside a stage's progress, not its count."""
        if stage in self._progress:
            known = self._progress[stage]
            elapsed_s = time.monotonic() - self._started[stage]
            self._progress[stage] = known.model_copy(update={"text": text, "elapsed_s": elapsed_s})

    def snapshot(self) -> dict[str, Progress]:
        """Return the latest progress of each stage."""
        return dict(self._progress)

    def beat(self, key: str, rank: int, beat: Beat | None) -> None:
        """Note a rank's word; None = it has ended."""
        if beat is None:
            self._beats.get(key, {}).pop(rank, None)
        else:
            self._beats.setdefault(key, {})[rank] = (time.monotonic(), beat)

    def beats(self, key: str) -> dict[int, Beat]:
        """Return the last word of each rank of a training."""
        now = time.monotonic()
        return {
            rank: beat.model_copy(update={"silent_s": now - heard})
            for rank, (heard, beat) in self._beats.get(key, {}).items()
        }

    def track(self, method: str, *args: Any) -> Any:
        """Call a method of the tracker, one call at a time."""
        with self._lock:
            if self._process is not None:
                try:
                    if self._connection is None:
                        self._connection = Connection(self._process)
                    return self._connection.call(method, *args)
                except (OSError, EOFError):
                    # It died, or Ray is somebody else's. To do again what it may have done is safe:
                    # runs are found by their keys, and what MLflow has already is left out.
                    self._process = None
            return self._tracking.call(method, *args)


class MonitorHandle:
    """A way to the monitor that can be sent anywhere: an actor's handle, or the object itself."""

    def __init__(self, target: Any, remote: bool) -> None:
        self._target = target
        self._remote = remote

    def progress(self, stage: str, done: float, total: float, unit: str, text: str = "") -> None:
        """Note how far a stage is, without waiting."""
        if self._remote:
            self._target.progress.options(concurrency_group="show").remote(
                stage, done, total, unit, text
            )
        else:
            self._target.progress(stage, done, total, unit, text)

    def say(self, stage: str, text: str) -> None:
        """Replace the words beside a stage's progress, without waiting."""
        if self._remote:
            self._target.say.options(concurrency_group="show").remote(stage, text)
        else:
            self._target.say(stage, text)

    def beat(self, key: str, rank: int, beat: Beat | None) -> None:
        """Note where a training's rank is, without waiting; None = it has ended."""
        if self._remote:
            self._target.beat.options(concurrency_group="show").remote(key, rank, beat)
        else:
            self._target.beat(key, rank, beat)

    def beats(self, key: str) -> dict[int, Beat]:
        """Return the last word of each rank of a training."""
        result: dict[int, Beat] = self._wait("beats", key)
        return result

    def snapshot(self) -> dict[str, Progress]:
        """Return the latest progress of each stage."""
        result: dict[str, Progress] = self._wait("snapshot")
        return result

    def ensure_run(
        self, key: str, name: str, parent_id: str | None = None, tags: Mapping[str, str] = {}
    ) -> str:
        """Return the id of the MLflow run with this key, made if need be."""
        return str(self._wait("track", "ensure_run", key, name, parent_id, dict(tags)))

    def log_params(self, run_id: str, params: Mapping[str, Any]) -> None:
        """Log parameters that the run does not have yet."""
        self._wait("track", "log_params", run_id, dict(params))

    def set_tags(self, run_id: str, tags: Mapping[str, str]) -> None:
        """Set tags."""
        self._wait("track", "set_tags", run_id, dict(tags))

    def log_metrics(self, run_id: str, records: Sequence[tuple[int, Mapping[str, float]]]) -> None:
        """Log (step, metrics) records without waiting; known steps are left out."""
        if self._remote:
            self._target.track.options(concurrency_group="track").remote(
                "log_metrics", run_id, list(records)
            )
        else:
            self._target.track("log_metrics", run_id, list(records))

    def log_summary(self, run_id: str, figures: Mapping[str, float]) -> None:
        """Log figures that replace earlier ones of the same names."""
        self._wait("track", "log_summary", run_id, dict(figures))

    def log_dataset(self, run_id: str, name: str, digest: str, source: str, context: str) -> None:
        """Say which data a run used."""
        self._wait("track", "log_dataset", run_id, name, digest, source, context)

    def log_bytes(self, run_id: str, path: str, data: bytes) -> None:
        """Log a file among the run's artifacts."""
        self._wait("track", "log_bytes", run_id, path, data)

    def finish(self, run_id: str, status: str) -> None:
        """End a run as FINISHED, FAILED or KILLED."""
        self._wait("track", "finish", run_id, status)

    def finish_left(self, run_ids: Sequence[str]) -> None:
        """End runs whose results stand, where an earlier driver left them open."""
        self._wait("track", "finish_left", list(run_ids))

    def finish_all(self, status: str, timeout_s: float | None = None) -> None:
        """End every run of this pipeline run that has not ended, and take no more of them.

        Raises:
            TrackingError: it was not done after ``timeout_s``; MLflow itself tries for minutes.
        """
        self._wait("track", "finish_all", status, timeout_s=timeout_s)

    def register_model(self, *args: Any) -> tuple[int, str]:
        """Log a model and register it; see ``cluster.registry.register_model``."""
        result: tuple[int, str] = self._wait("track", "register_model", *args)
        return result

    def _wait(self, method: str, *args: Any, timeout_s: float | None = None) -> Any:
        if not self._remote:
            return getattr(self._target, method)(*args)
        import ray

        group = "track" if method == "track" else "show"
        call = getattr(self._target, method).options(concurrency_group=group)
        try:
            return ray.get(call.remote(*args), timeout=timeout_s)
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, TrackingError):
                raise error.cause from None
            raise
        except ray.exceptions.GetTimeoutError:
            raise TrackingError("MLflow", f"no answer within {timeout_s:g} s") from None
        except ray.exceptions.ActorDiedError as error:
            advice = "Give the same command again; Ray's logs say what ended it"
            reason = "the process that tells MLflow has died"
            raise RayUnavailable("Ray", reason, advice) from error
