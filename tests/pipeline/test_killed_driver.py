"""``kill -9`` of the driver before each thing that it does outside its own memory, then again.

Whatever the moment, the same command completes the run: equal artifacts, byte for byte, nothing
that had been published computed again, one set of MLflow runs without a step twice.
"""

import json
import multiprocessing
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from cluster.local_store import LocalStore
from cluster.tracking import Tracker, TrackingConfig
from pipeline.records import find_record
from pipeline.runs import load_attempts
from tests.pipeline.driven import EDGES, drive

SUMMARY = [f"{name}/{figure}" for name in EDGES for figure in ("best_epoch", "train_seconds")]
processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload(["tests.pipeline.driven"])


@pytest.fixture(scope="module")
def empty(tmp_path_factory) -> Path:
    """A folder with an MLflow database in which nothing has run: making one takes seconds."""
    folder: Path = tmp_path_factory.mktemp("empty")
    Tracker(TrackingConfig(uri=f"sqlite:///{folder}/mlflow.db"), folder / "files")
    return folder


def driver(folder: Path, kill_before: int | None, number: int) -> int | None:
    """Drive in a process of its own and return how it ended."""
    process = processes.Process(target=drive, args=(folder, kill_before, number))
    process.start()
    process.join()
    return process.exitcode


def outcome(folder: Path) -> dict[str, Any]:
    """Return every artifact and the bytes of every object that it names."""
    store = LocalStore(folder / "store")
    found: dict[str, Any] = {}
    for name, stage in load_attempts(store, "test")[-1].stages.items():
        record = find_record(store, name, stage.fingerprint)
        assert record is not None, name
        objects = {ref.key: store.get_bytes(ref.key) for ref in record.artifact.objects()}
        found[name] = (record.artifact.model_dump(mode="json"), objects)
    return found


def tracked(folder: Path) -> dict[str, Any]:
    """Return run -> status, parameters, the steps of each of its metrics."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    runs = client.search_runs([e.experiment_id for e in client.search_experiments()])
    found: dict[str, Any] = {}
    for run in runs:
        assert run.info.run_name not in found, f"two runs for {run.info.run_name}"
        steps = {
            name: [m.step for m in client.get_metric_history(run.info.run_id, name)]
            for name in run.data.metrics
        }
        found[run.info.run_name] = (run.info.status, run.data.params, steps)
    return found


def ran(folder: Path, number: int) -> list[str]:
    path = folder / f"ran-{number}.json"
    return json.loads(path.read_text()) if path.is_file() else []


def test_a_driver_killed_at_any_moment_loses_nothing(tmp_path: Path, empty: Path):
    undisturbed = tmp_path / "undisturbed"
    shutil.copytree(empty, undisturbed)
    assert driver(undisturbed, None, 1) == 0
    expected, expected_runs = outcome(undisturbed), tracked(undisturbed)
    deeds = (undisturbed / "deeds-1").read_text().splitlines()
    assert {d for d in deeds if d.startswith("put_if_absent records/")} >= {
        f"put_if_absent records/{name}/{_digest(undisturbed, name)}.json" for name in EDGES
    }
    assert expected_runs["e"] == ("FINISHED", {}, {"length": [0]})
    once = {figure: [0] for figure in SUMMARY}
    assert expected_runs["test"] == ("FINISHED", {"name": "test"}, once)
    assert set(expected_runs) == {"test", *EDGES}

    for moment, deed in enumerate(deeds):
        # Before a write of the log everything else is as after the deed before it.
        if deed.startswith("put runs/") and 4 < moment < len(deeds) - 5:
            continue
        folder = tmp_path / f"killed-{moment}"
        shutil.copytree(empty, folder)
        where = f"killed before {moment}: {deed}"
        assert driver(folder, moment, 1) == -signal.SIGKILL, where
        published = {
            key.split("/")[1]
            for key in LocalStore(folder / "store").list_keys("records/")
            if not key.endswith("/latest.json")
        }
        assert driver(folder, None, 2) == 0, where
        assert not published & set(ran(folder, 2)), where
        assert set(ran(folder, 1)) | set(ran(folder, 2)) == set(EDGES), where
        assert outcome(folder) == expected, where
        assert tracked(folder) == expected_runs, where
        shutil.rmtree(folder)


def _digest(folder: Path, name: str) -> str:
    return load_attempts(LocalStore(folder / "store"), "test")[-1].stages[name].fingerprint
