"""MLflow: runs that a restart continues, metrics that no restart repeats.

Every run has a key of ours in the tag ``depth.key``: asking for the same key again finds the same
run. Nothing else in the project talks to MLflow.
"""

import math
import os
import re
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

from cluster.errors import TrackingError
from cluster.registry import register_model
from cluster.tracking_server import check_server, tracking_errors

KEY_TAG = "depth.key"
EXPERIMENT_TAGS = {
    "mlflow.experimentKind": "custom_model_development",  # pages for training, not for chats
    "mlflow.note.content": (
        "One run per pipeline run, with a child per stage and a grandchild per ablation trial. "
        "To compare networks, select pipeline runs and add columns such as nyu/per_image_delta1; "
        "to compare studies, expand ablate.* and select its trials. Figures of trials, and those "
        "called val_*, are per-image means."
    ),
}
_MAX_BATCH = 900


def anchored_uri(uri: str) -> str:
    """Return an address that means the same from every working directory, as workers have."""
    file = uri.removeprefix("sqlite:///")
    return uri if file == uri else "sqlite:///" + os.path.abspath(file)


class TrackingConfig(BaseModel):
    """Where runs are tracked."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    uri: str = Field(
        "", description="sqlite:///FILE or http(s)://SERVER; empty = outputs/mlflow.db"
    )
    experiment: str = Field("depth", description="MLflow experiment")

    @field_validator("uri")
    @classmethod
    def _check_uri(cls, uri: str) -> str:
        if uri and not re.fullmatch(r"sqlite:///.+|https?://.+", uri):
            raise ValueError("give sqlite:///FILE, http://SERVER or https://SERVER")
        return anchored_uri(uri)


class Tracking:
    """Calls a tracker that is made at the first call, with errors of our own tree.

    Args:
        config: server and experiment.
        artifact_root: where files go with an sqlite URI.
    """

    def __init__(self, config: TrackingConfig, artifact_root: Path | None = None) -> None:
        self._config, self._artifact_root = config, artifact_root
        self._tracker: Tracker | None = None

    def open(self) -> "Tracker":
        """Return the tracker.

        Raises:
            TrackingError: MLflow's server or database cannot be used.
        """
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # before MLflow is imported
        with tracking_errors(self._config.uri):
            if self._tracker is None:
                self._tracker = Tracker(self._config, self._artifact_root)
            return self._tracker

    def call(self, method: str, *args: Any) -> Any:
        """Call a method of the tracker.

        Raises:
            TrackingError: MLflow's server or database cannot be used.
        """
        tracker = self.open()
        with tracking_errors(self._config.uri):
            return getattr(tracker, method)(*args)


class Tracker:
    """One process's way to MLflow; there is only one of a run.

    Args:
        config: server and experiment.
        artifact_root: where files go with an sqlite URI; a server has its own place.
    """

    def __init__(self, config: TrackingConfig, artifact_root: Path | None = None) -> None:
        from mlflow.exceptions import MlflowException
        from mlflow.tracking import MlflowClient

        if config.uri.startswith("http"):
            check_server(config.uri)
        if config.uri.startswith("sqlite:///"):
            Path(config.uri.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
        self._uri = config.uri
        self._client = MlflowClient(tracking_uri=config.uri, registry_uri=config.uri)
        self._last_steps: dict[str, dict[str, int]] = {}
        self._open_runs: set[str] = set()
        self._is_closed = False
        # What this tracker knows without asking, since it is the only writer of its runs:
        self._ids: dict[str, str] = {}  # key -> run
        self._new: set[str] = set()  # runs made here: nothing below them is older
        self._figures: dict[str, dict[str, float]] = {}  # run -> its summary
        experiment = self._client.get_experiment_by_name(config.experiment)
        if experiment is None:
            location = None
            if artifact_root is not None and config.uri.startswith("sqlite"):
                location = artifact_root.absolute().as_uri()
            try:
                self._experiment_id = self._client.create_experiment(
                    config.experiment, location, tags=EXPERIMENT_TAGS
                )
            except MlflowException:  # another driver made it in the meantime
                self._experiment_id = self._client.get_experiment_by_name(
                    config.experiment
                ).experiment_id
        else:
            self._experiment_id = experiment.experiment_id

    def ensure_run(
        self, key: str, name: str, parent_id: str | None = None, tags: Mapping[str, str] = {}
    ) -> str:
        """Return the id of the run with this key, made now or by an earlier attempt.

        Raises:
            TrackingError: all runs were ended, since the driver stops.
        """
        if self._is_closed:
            raise TrackingError(self._uri, f"no run {name} is begun while the driver stops")
        run_id = self._find(key, parent_id)
        if run_id is not None:
            self._open_runs.add(run_id)
            self._client.update_run(run_id, status="RUNNING")
            for tag, value in tags.items():
                self._client.set_tag(run_id, tag, value)
            return run_id
        all_tags = {KEY_TAG: key, "mlflow.runName": name, **tags}
        if parent_id:
            all_tags["mlflow.parentRunId"] = parent_id
        run = self._client.create_run(
            self._experiment_id, start_time=int(time.time() * 1000), tags=all_tags, run_name=name
        )
        run_id = str(run.info.run_id)
        self._ids[key] = run_id
        self._new.add(run_id)
        self._open_runs.add(run_id)
        return run_id

    def _find(self, key: str, parent_id: str | None) -> str | None:
        if key not in self._ids and parent_id not in self._new:
            found = self._client.search_runs(
                [self._experiment_id], f"tags.`{KEY_TAG}` = '{key}'", max_results=1
            )
            if found:
                self._ids[key] = str(found[0].info.run_id)
        return self._ids.get(key)

    def log_params(self, run_id: str, params: Mapping[str, Any]) -> None:
        """Log parameters that the run does not have yet; MLflow's are immutable."""
        from mlflow.entities import Param

        known = self._client.get_run(run_id).data.params
        new = [Param(k, str(v)[:6000]) for k, v in flat(params).items() if k not in known]
        for start in range(0, len(new), 90):
            self._client.log_batch(run_id, params=new[start : start + 90])

    def set_tags(self, run_id: str, tags: Mapping[str, str]) -> None:
        """Set tags; a later value replaces an earlier one."""
        for tag, value in tags.items():
            self._client.set_tag(run_id, tag, value)

    def log_metrics(self, run_id: str, records: Sequence[tuple[int, Mapping[str, float]]]) -> None:
        """Log (step, metrics) records, leaving out steps that the run has already."""
        from mlflow.entities import Metric

        last = self._last_steps.setdefault(run_id, {})
        now_ms = int(time.time() * 1000)
        batch = []
        for step, metrics in records:
            for name, value in metrics.items():
                if name not in last:
                    last[name] = self._last_step(run_id, name)
                if step > last[name] and math.isfinite(value):
                    batch.append(Metric(name, float(value), now_ms, step))
                    last[name] = step
        for start in range(0, len(batch), _MAX_BATCH):
            self._client.log_batch(run_id, metrics=batch[start : start + _MAX_BATCH])

    def log_summary(self, run_id: str, figures: Mapping[str, float]) -> None:
        """Log figures that replace earlier ones of the same names: a run's latest summary."""
        from mlflow.entities import Metric

        now_ms = int(time.time() * 1000)
        if run_id not in self._figures:
            self._figures[run_id] = dict(self._client.get_run(run_id).data.metrics)
        known = self._figures[run_id]
        values = {
            name: float(v)
            for name, v in figures.items()
            if math.isfinite(v) and known.get(name) != v
        }
        metrics = [Metric(name, value, now_ms, 0) for name, value in values.items()]
        self._client.log_batch(run_id, metrics=metrics[:_MAX_BATCH])
        known |= values

    def _last_step(self, run_id: str, name: str) -> int:
        if name not in self._client.get_run(run_id).data.metrics:
            return -1
        return max(m.step for m in self._client.get_metric_history(run_id, name))

    def log_dataset(self, run_id: str, name: str, digest: str, source: str, context: str) -> None:
        """Say which data a run used; the digest is cut to MLflow's 36 characters."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        dataset = Dataset(
            name=name,
            digest=digest[:36],
            source_type="object_store",
            source=f'{{"url": "{source}"}}',
        )
        tags = [InputTag(key="mlflow.data.context", value=context)]
        self._client.log_inputs(run_id, [DatasetInput(dataset, tags=tags)])

    def log_bytes(self, run_id: str, path: str, data: bytes) -> None:
        """Log a file among the run's artifacts; ``path`` may have folders."""
        folder, _, name = path.rpartition("/")
        with tempfile.TemporaryDirectory() as scratch:
            file = Path(scratch) / name
            file.write_bytes(data)
            self._client.log_artifact(run_id, str(file), folder or None)

    def register_model(self, run_id: str, *args: Any) -> tuple[int, str]:
        """Log a model and register it; see ``cluster.registry.register_model``."""
        return register_model(self._uri, self._client, run_id, *args)

    def finish(self, run_id: str, status: str) -> None:
        """End a run as FINISHED, FAILED or KILLED; one that was ended with all stays as it is."""
        if self._is_closed:
            return
        self._client.set_terminated(run_id, status)
        self._open_runs.discard(run_id)

    def finish_left(self, run_ids: Sequence[str]) -> None:
        """End runs as FINISHED whose results stand, where an earlier driver left them open."""
        for run_id in run_ids:
            if self._client.get_run(run_id).info.status != "FINISHED":
                self.finish(run_id, "FINISHED")

    def finish_all(self, status: str) -> None:
        """End every run that was opened here and has not ended, trials too.

        What still comes of workers that are being stopped opens or ends none any more.
        """
        for run_id in sorted(self._open_runs):
            self.finish(run_id, status)
        self._is_closed = True


def flat(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested tables to dotted keys."""
    out: dict[str, Any] = {}
    for key, value in table.items():
        if isinstance(value, Mapping) and value:
            out.update(flat(value, f"{prefix}{key}."))
        else:
            out[f"{prefix}{key}"] = value
    return out
