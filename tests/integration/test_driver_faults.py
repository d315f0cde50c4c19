"""Drivers that are killed, stopped, doubled and too slow, with real Ray and real training."""

import contextlib
import functools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cluster.local_store import LocalStore
from pipeline.history import standing
from pipeline.records import find_record
from pipeline.runs import RunState, list_runs
from tests.integration.test_pipeline import MINI, PROJECT, pipeline

WORDS = (
    "train.nyu.recipe.epochs=12",
    "train.nyu.checkpoint_every_steps=2",
    "train.nyu.num_workers=2",
    "session.num_cpus=2",
    "--to",
    "train",
)


@pytest.fixture(scope="module")
def start() -> Iterator[Callable[..., "subprocess.Popen[str]"]]:
    """Start ``python -m pipeline`` with these words, in a process group of its own."""
    started: list[subprocess.Popen[str]] = []

    def begin(outputs: Path, *words: str) -> "subprocess.Popen[str]":
        driver = subprocess.Popen(
            [sys.executable, "-m", "pipeline", *words],
            cwd=PROJECT,
            env={**os.environ, "DEPTH_OUTPUTS": str(outputs)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        started.append(driver)
        return driver

    yield begin
    for driver in started:  # of a test that failed
        if driver.poll() is None:
            driver.terminate()
            driver.communicate(timeout=60)


@pytest.fixture(scope="module")
def limited(start, tmp_path_factory) -> Callable[[], tuple[Path, "subprocess.Popen[str]"]]:
    """Start a run with a time limit, once; beside the other test, which mostly waits."""

    @functools.cache
    def begin() -> tuple[Path, "subprocess.Popen[str]"]:
        outputs = outputs_with_mini(tmp_path_factory.mktemp("limited") / "outputs")
        settings = (
            'execution.time_limits_s={"train.nyu" = 20}',
            "train.nyu.recipe.epochs=4000",
            "ablate.nyu.studies={}",
            "ablate.nyu.num_workers=0",
            "ablate.nyu.cpus_per_worker=2",
            "ablate.nyu.max_concurrent_trials=1",
            "session.num_cpus=2",
        )
        words = ("run", str(outputs / "mini.toml"), "--to", "train,ablate", "--keep-going")
        return outputs, start(outputs, *words, *settings)

    return begin


def state_of(outputs: Path) -> RunState | None:
    runs = list_runs(LocalStore(outputs / "store"))
    return runs[0] if runs else None


def wait_for(outputs: Path, attempt: int, reached: Callable[[RunState], bool]) -> RunState:
    """Wait until an attempt has reached something."""
    until = time.monotonic() + 300
    while time.monotonic() < until:
        state = state_of(outputs)
        if state is not None and state.attempt == attempt and reached(state):
            return state
        time.sleep(0.2)
    raise AssertionError(f"never reached; the run is {state_of(outputs)}")


def trains(state: RunState) -> bool:
    """Whether the training has done steps, and is not done."""
    train = state.stages["train.nyu"]
    return train.status == "runs" and "loss" in train.note


def outputs_with_mini(folder: Path) -> Path:
    folder.mkdir()
    (folder / "mini.toml").write_text(MINI)
    return folder


def network_of(outputs: Path) -> tuple[str, list[object]]:
    """Return the digest of the trained network, and its curve without the times."""
    state = state_of(outputs)
    assert state is not None
    record = find_record(
        LocalStore(outputs / "store"), "train.nyu", state.stages["train.nyu"].fingerprint
    )
    assert record is not None
    epochs = record.artifact.epochs
    best = min(epochs, key=lambda epoch: epoch.metrics["loss"])
    assert record.artifact.best_epoch == best.epoch, [e.metrics["loss"] for e in epochs]
    return record.artifact.network.sha256, [e.model_dump(exclude={"seconds"}) for e in epochs]


def test_a_run_that_is_killed_then_stopped_ends_as_if_nothing_had_happened(
    start, limited, tmp_path: Path
):
    from mlflow.tracking import MlflowClient

    other = outputs_with_mini(tmp_path / "undisturbed")  # runs beside the others all the while
    undisturbed = start(other, "run", str(other / "mini.toml"), *WORDS)
    outputs = outputs_with_mini(tmp_path / "outputs")
    store = LocalStore(outputs / "store")
    first = start(outputs, "run", str(outputs / "mini.toml"), *WORDS)
    state = wait_for(outputs, 1, trains)
    assert standing(store, state) == "running"

    second = pipeline(outputs, str(outputs / "mini.toml"), *WORDS)
    assert second.returncode == 4, second.stdout + second.stderr
    assert "another driver works on it" in second.stderr

    first.send_signal(signal.SIGKILL)
    first.wait()
    first.stdout.close()
    died = wait_for(outputs, 1, lambda state: standing(store, state) == "died")
    assert died.stages["shard.nyu"].status == "done"

    stopped = start(outputs, "resume", died.run_id)
    limited()
    wait_for(outputs, 2, trains)
    stopped.send_signal(signal.SIGTERM)
    time.sleep(0.2)
    with contextlib.suppress(ProcessLookupError):  # Ctrl-C in a terminal goes to Ray's as well
        os.killpg(stopped.pid, signal.SIGINT)
    output, _ = stopped.communicate(timeout=60)
    assert stopped.returncode == 143, output
    assert "Traceback" not in output
    killed = state_of(outputs)
    assert killed is not None
    assert (killed.status, killed.stages["train.nyu"].status) == ("killed", "killed")
    assert killed.stages["shard.nyu"].status == "cached"
    client = MlflowClient(f"sqlite:///{outputs / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("depth").experiment_id
    statuses = {r.info.run_name: r.info.status for r in client.search_runs([experiment])}
    assert statuses.pop("shard.nyu") == "FINISHED"
    assert set(statuses.values()) == {"KILLED"}

    last = start(outputs, "resume", died.run_id)
    for outputs_of, driver in ((outputs, last), (other, undisturbed)):
        output, _ = driver.communicate(timeout=400)
        assert driver.returncode == 0, (outputs_of, output)
    assert network_of(outputs) == network_of(other)
    runs = client.search_runs([experiment])
    names = sorted(run.info.run_name for run in runs)
    assert names == sorted([died.run_id, "shard.nyu", "train.nyu"])
    assert {run.info.status for run in runs} == {"FINISHED"}
    train = next(run for run in runs if run.info.run_name == "train.nyu")
    for name, expected in (("epoch/val_loss", range(12)), ("step/loss", range(3, 39, 3))):
        steps = [m.step for m in client.get_metric_history(train.info.run_id, name)]
        assert steps == list(expected), name


def test_a_stage_beyond_its_time_limit_is_stopped_and_its_cpus_are_free_again(limited):
    outputs, driver = limited()
    output, _ = driver.communicate(timeout=500)
    assert driver.returncode == 6, output
    assert "it took longer than its limit of 20 s" in output
    state = state_of(outputs)
    assert state is not None
    # Both want the two CPUs: one of them could only begin when the other had let them go.
    assert state.stages["train.nyu"].status == "failed"
    assert state.stages["ablate.nyu"].status == "done", output
