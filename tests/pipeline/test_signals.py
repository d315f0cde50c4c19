"""Signals to a driver in a process of its own: exit code, MLflow, and that ``resume`` completes."""

import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

from pipeline.runs import list_runs
from tests.pipeline.driven import EDGES, RUN, drive
from tests.pipeline.test_killed_driver import (
    command,
    empty,
    finished,
    outcome,
    processes,
    ran,
    store_of,
    tracked,
)

__all__ = ["empty", "finished"]
INT, TERM, HUP = signal.SIGINT, signal.SIGTERM, signal.SIGHUP


def wait_for(path: Path, driver: Any) -> None:
    until = time.monotonic() + 300
    while not path.exists():
        assert driver.exitcode is None, f"ended with {driver.exitcode} before {path.name}"
        assert time.monotonic() < until, f"no {path.name}"
        time.sleep(0.02)


def test_a_driver_that_is_told_to_stop_tells_mlflow_however_often(tmp_path: Path, empty, finished):
    """The first signal stops; a second one during the stop changes nothing; a third one kills."""
    cases = {"int": (INT,), "two-int": (INT, INT), "term-int": (TERM, INT), "hup": (HUP,)}
    cases |= {"three-int": (INT, INT, INT)}
    drivers = {}
    for name in cases:
        shutil.copytree(empty, tmp_path / name)
        args = (tmp_path / name, RUN, None, 2, True)
        drivers[name] = processes.Process(target=drive, args=args)
        drivers[name].start()
    for name, numbers in cases.items():
        driver, folder = drivers[name], tmp_path / name
        for number, reached in zip(numbers, ("hangs", "stops", "told"), strict=False):
            if reached == "told":  # the handler of the second one has answered
                until = time.monotonic() + 60
                while "stopping already" not in (folder / "shown-2").read_text():
                    assert time.monotonic() < until
                    time.sleep(0.02)
            else:
                wait_for(folder / reached, driver)
            os.kill(driver.pid, number)
        if len(numbers) < 3:
            wait_for(folder / "stops", driver)
            time.sleep(0.1)  # a signal that would spoil the stop has arrived
            (folder / "go").touch()
        driver.join(300)
        assert driver.exitcode == 128 + numbers[0], name
    for name, numbers in cases.items():
        folder = tmp_path / name
        is_killed = len(numbers) == 3
        (state,) = list_runs(store_of(folder))
        statuses = {key.partition("/")[2][:1]: run[0] for key, run in tracked(folder).items()}
        open_status = "RUNNING" if is_killed else "KILLED"
        assert statuses == {"": open_status, "a": "FINISHED", "c": open_status}, name
        assert state.status == ("running" if is_killed else "killed"), name
        assert list(store_of(folder).list_keys(f"runs/{state.run_id}/lease")) == (
            [f"runs/{state.run_id}/lease"] if is_killed else []
        ), name
        shown = (folder / "shown-2").read_text()
        assert shown.count("stopping already, wait some seconds") == (len(numbers) > 1), name
        assert "Traceback" not in shown
        assert command(folder, ("resume", state.run_id, "--store", "store"), None, 3) == 0
        assert set(ran(folder, 2)) == {"a", "c"}
        assert set(ran(folder, 3)) == EDGES.keys() - {"a"}, name
        assert outcome(folder) == outcome(finished), name
        assert tracked(folder) == tracked(finished), name
