"""MLflow's own process: it does the monitor's work, and ends with the driver however that ends."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from cluster.errors import TrackingError
from cluster.monitor import Monitor
from cluster.tracking import TrackingConfig
from cluster.tracking_process import Address, Connection, tracking_process

DRIVER = """
import sys, time
from pathlib import Path
from cluster.tracking import TrackingConfig
from cluster.tracking_process import tracking_process
with tracking_process(TrackingConfig(uri=sys.argv[1]), None):
    print(*Path("/proc/self/task").glob("*/children"), flush=True)
    time.sleep(600)
"""


def children() -> set[int]:
    """Return the processes that this thread has started and that have not been waited for."""
    tid = threading.get_native_id()
    return {int(pid) for pid in Path(f"/proc/self/task/{tid}/children").read_text().split()}


def runs(pid: int) -> bool:
    """Say whether a process lives; one that has ended and was not waited for does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def ends(pid: int) -> bool:
    """Wait for a process to end."""
    until = time.monotonic() + 60
    while runs(pid) and time.monotonic() < until:
        time.sleep(0.05)
    return not runs(pid)


def test_the_monitor_works_through_the_process_and_goes_on_without_it(tmp_path):
    config = TrackingConfig(uri=f"sqlite:///{tmp_path / 'mlflow.db'}")
    before = children()
    with tracking_process(config, tmp_path / "files") as address:
        (pid,) = children() - before
        monitor = Monitor(config, tmp_path / "files", address)
        run_id = monitor.track("ensure_run", "key", "name", None, {"a": "b"})
        monitor.track("log_metrics", run_id, [(3, {"loss": 1.0})])
        with pytest.raises(TrackingError, match=r"(?s)mlflow\.db.*not found"):
            monitor.track("finish", "0" * 32, "FINISHED")
        assert monitor._tracking._tracker is None  # all of it was done over there
        with pytest.raises((EOFError, OSError)):
            Connection(Address(address.name, "0" * 32)).call("finish", run_id, "FAILED")

        os.kill(pid, signal.SIGKILL)
        assert monitor.track("ensure_run", "key", "name") == run_id  # found by its key
        monitor.track("log_metrics", run_id, [(3, {"loss": 9.0}), (4, {"loss": 0.5})])
        monitor.track("finish", run_id, "FINISHED")
        client = monitor._tracking.open()._client
        assert [(m.step, m.value) for m in client.get_metric_history(run_id, "loss")] == [
            (3, 1.0), (4, 0.5),
        ]  # fmt: skip
        run = client.get_run(run_id)
        assert (run.info.status, run.data.tags["a"]) == ("FINISHED", "b")
    assert not runs(pid)


def test_the_process_ends_with_its_driver(tmp_path):
    config = TrackingConfig(uri=f"sqlite:///{tmp_path / 'mlflow.db'}")
    before = children()
    with tracking_process(config, None):
        (pid,) = children() - before
    assert not runs(pid)

    driver = subprocess.Popen(
        [sys.executable, "-c", DRIVER, config.uri], stdout=subprocess.PIPE, text=True
    )
    try:
        assert driver.stdout is not None
        started = [int(p) for path in driver.stdout.readline().split() for p in pids(path, driver)]
        assert started
        assert all(runs(pid) for pid in started)
    finally:
        driver.kill()
        driver.wait()
    assert all(ends(pid) for pid in started)


def pids(path: str, driver: subprocess.Popen[str]) -> list[str]:
    """Return the children of a thread of the driver."""
    return Path(path.replace("/self/", f"/{driver.pid}/")).read_text().split()
