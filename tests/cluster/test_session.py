"""A session on a Ray of this machine: tasks, their errors, and what Ray must not take over."""

import importlib
import os
import signal
import socket
import sqlite3
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray

from cluster.errors import TrackingError
from cluster.session import (
    NAMESPACE,
    PACKAGES,
    PROJECT_ROOT,
    Session,
    SessionConfig,
    _connect,
    _start_here,
    check_address,
    cluster_address,
    open_session,
)
from cluster.tracking import TrackingConfig
from cluster.transient import is_transient

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    made: Path = tmp_path_factory.mktemp("session")
    return made


@pytest.fixture(scope="module")
def session(folder: Path) -> Iterator[Session]:
    before = signal.getsignal(signal.SIGTERM)
    tracking = TrackingConfig(uri=f"sqlite:///{folder}/mlflow.db")
    with open_session(SessionConfig(num_cpus=1), tracking, folder / "files") as session:
        assert signal.getsignal(signal.SIGTERM) is before
        yield session
    assert not ray.is_initialized()


def outcome(session: Session, handle: object) -> object:
    """Wait for a task and return what it returned or raised."""
    until = time.monotonic() + 120
    while not session.wait([handle], 0.5):
        assert time.monotonic() < until
    try:
        return session.result(handle)
    except Exception as error:
        return error


def test_a_task_returns_its_value_or_its_own_error(session: Session):
    assert ray.cluster_resources()["CPU"] == 1
    assert outcome(session, session.submit(lambda: 7)) == 7
    error = outcome(session, session.submit(lambda: int("no number")))
    assert isinstance(error, ValueError)
    assert "no number" in str(error)
    assert not is_transient(error)


def imported_from(module: str) -> str:
    return str(importlib.import_module(module).__file__)


def test_tasks_import_a_copy_of_the_code_so_that_edits_do_not_reach_them(session: Session):
    for module in ("pipeline.errors", "stages.artifacts", "cluster.errors", "densedepth.errors"):
        assert module.partition(".")[0] in PACKAGES
        path = outcome(session, session.submit(imported_from, module))
        assert isinstance(path, str), path
        assert "working_dir_files" in path
        assert not Path(path).is_relative_to(PROJECT_ROOT)


def test_a_task_whose_process_dies_may_be_tried_again_and_ray_does_not_by_itself(
    session: Session, folder: Path
):
    def die() -> None:
        with (folder / "tries").open("a") as file:
            file.write("x")
        os.kill(os.getpid(), signal.SIGKILL)

    error = outcome(session, session.submit(die))
    assert isinstance(error, Exception)
    assert is_transient(error), repr(error)
    assert (folder / "tries").read_text() == "x"


def test_a_task_that_is_cancelled_by_force_ends_soon(session: Session):
    handle = session.submit(lambda: time.sleep(600))
    assert session.wait([handle], 3.0) == []
    session.cancel(handle, force=True)
    assert isinstance(outcome(session, handle), Exception)


def test_the_first_task_that_is_done_ends_the_waiting(session: Session):
    slow, quick = session.submit(lambda: time.sleep(600)), session.submit(lambda: 1)
    began = time.monotonic()
    done: list[object] = []
    while not done and time.monotonic() - began < 60:
        done = session.wait([slow, quick], 60.0)
    assert done == [quick]
    session.cancel(slow)


def test_progress_and_runs_go_through_the_monitor(session: Session):
    session.monitor.progress("train.nyu", 1, 4, "steps", "loss 1")
    run_id = session.monitor.ensure_run("key", "name")
    assert session.monitor.ensure_run("key", "name") == run_id
    until = time.monotonic() + 20
    while "train.nyu" not in session.monitor.snapshot() and time.monotonic() < until:
        time.sleep(0.1)
    assert session.monitor.snapshot()["train.nyu"].done == 1


def test_a_stop_does_not_wait_long_for_mlflow_and_opens_no_run_any_more(session, folder: Path):
    """The last test that uses the session's MLflow."""
    run_id = session.monitor.ensure_run("stopped", "stopped")
    with sqlite3.connect(folder / "mlflow.db", isolation_level=None) as database:
        database.execute("BEGIN EXCLUSIVE")
        with pytest.raises(TrackingError, match=r"no answer within 0.3 s"):
            session.monitor.finish_all("KILLED", timeout_s=0.3)
        database.execute("ROLLBACK")
        message = "no run late is begun while the driver stops"
        with pytest.raises(TrackingError, match=message) as raised:
            session.monitor.ensure_run("late", "late")
        assert type(raised.value) is TrackingError  # and not what Ray makes of it, with a traceback
        session.monitor.finish(run_id, "FAILED")  # as a trial does that was stopped
        names = dict(database.execute("SELECT name, status FROM runs"))
    assert names["stopped"] == "KILLED"
    assert "late" not in names


def test_a_ray_that_starts_slowly_is_started_again_and_other_errors_come_out(monkeypatch):
    slow = RuntimeError("The current node timed out during startup.")
    failures: list[Exception] = [slow, slow]

    def init(**arguments: object) -> None:
        if failures:
            raise failures.pop()

    monkeypatch.setattr("ray.init", init)
    monkeypatch.setattr("ray.shutdown", lambda: None)
    _start_here()
    assert not failures
    for errors, message in (
        ([slow] * 4, "timed out during startup"),
        ([slow, RuntimeError("no such option")], "no such option"),
    ):
        failures[:] = errors
        with pytest.raises(RuntimeError, match=message):
            _start_here()
        assert failures == [slow]


def test_sigterm_while_ray_starts_is_answered_by_this_process_after_ray(monkeypatch):
    """Ray puts answers of its own in the place of this process's while it starts."""
    answers = []

    def own(number: int, frame: object) -> None:
        answers.append("own")
        sys.exit(128 + number)

    def init(**arguments: object) -> None:
        assert arguments["address"] == "local"  # a Ray of its own, also where another one runs

        def rays(number: int, frame: object) -> None:
            answers.append("Ray's")
            sys.exit(1)

        signal.signal(signal.SIGTERM, rays)
        signal.raise_signal(signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, own)
    monkeypatch.setattr("ray.init", init)
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    try:
        with (
            pytest.raises(SystemExit, match="143"),
            open_session(SessionConfig(), TrackingConfig()),
        ):
            pytest.fail("Ray did not start")
        assert answers == ["Ray's", "own"]
        assert signal.getsignal(signal.SIGTERM) is own
    finally:
        signal.signal(signal.SIGTERM, before)


def test_an_address_at_which_something_listens_a_moment_later_is_found(monkeypatch):
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        monkeypatch.setattr("cluster.session.time.sleep", lambda seconds: server.listen())
        check_address(f"127.0.0.1:{server.getsockname()[1]}")


@pytest.mark.parametrize("job", ["", "{}"])
def test_runs_on_a_cluster_share_a_namespace_where_a_name_is_one_actors_at_a_time(monkeypatch, job):
    told: list[dict[str, object]] = []
    monkeypatch.setattr("ray.init", lambda **arguments: told.append(arguments))
    monkeypatch.delenv("RAY_JOB_CONFIG_JSON_ENV_VAR", raising=False)
    if job:  # as `ray job submit` does
        monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", job)
    _connect(SessionConfig(), None if job else "head:6379")
    assert [(arguments.get("address"), arguments["namespace"]) for arguments in told] == [
        (None if job else "head:6379", NAMESPACE)
    ]


def test_where_ray_is_follows_from_settings_and_environment(monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert cluster_address(SessionConfig()) is None
    monkeypatch.setenv("RAY_ADDRESS", "head:1")
    assert cluster_address(SessionConfig()) == "head:1"
    assert cluster_address(SessionConfig(address="other:2")) == "other:2"
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    assert cluster_address(SessionConfig(address="other:2")) == "auto"
