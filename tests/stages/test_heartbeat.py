"""Which rank is named when a training stands still."""

import os
import threading
from pathlib import Path

from cluster.local_store import LocalStore
from cluster.monitor import Beat, Monitor, MonitorHandle
from cluster.services import Services
from cluster.tracking import TrackingConfig
from stages import heartbeat
from stages.heartbeat import Heart, watched, who_stalls


def beat(doing: str, step: int, seconds: float, silent_s: float = 1.0) -> Beat:
    return Beat(node="n1", pid=9, doing=doing, step=step, seconds=seconds, silent_s=silent_s)


def test_nobody_is_named_while_all_work():
    assert who_stalls({}, 100) == ""
    assert who_stalls({0: beat("step", 5, 3), 1: beat("batch", 5, 99)}, 100) == ""


def test_a_rank_that_waits_for_its_batch_is_named_and_not_those_that_wait_for_it():
    beats = {0: beat("step", 7, 300), 1: beat("batch", 6, 301), 2: beat("step", 7, 300)}
    text = who_stalls(beats, 100)
    assert text == "rank 1 (process 9 on n1) has waited 301 s for its batch 6: loader stalls"


def test_a_silent_process_is_named_first():
    beats = {0: beat("batch", 7, 300), 1: beat("step", 6, 2, silent_s=90)}
    assert "rank 1" in who_stalls(beats, 100)
    assert "its process hangs" in who_stalls(beats, 100)
    assert "rank 0" not in who_stalls(beats, 100)


def test_of_ranks_in_a_step_the_one_behind_is_named():
    beats = {0: beat("step", 8, 200), 1: beat("step", 7, 210), 2: beat("step", 8, 200)}
    assert who_stalls(beats, 100) == "rank 1 (process 9 on n1) has been 210 s in its step 7"


def test_a_rank_at_the_end_of_a_validation_waits_for_those_that_have_more_frames():
    beats = {0: beat("step", 33, 2), 1: beat("end", 32, 200)}
    assert who_stalls(beats, 100) == ""
    assert who_stalls(beats | {0: beat("step", 33, 150)}, 100) == (
        "rank 0 (process 9 on n1) has been 150 s in its step 33"
    )


def test_ranks_that_do_nothing_behind_the_last_frame_are_named():
    beats = {0: beat("end", 33, 150), 1: beat("end", 32, 90)}
    assert who_stalls(beats, 100) == (
        "rank 0 (process 9 on n1) has been 150 s behind the last of its 33 steps"
    )


def make_services(folder: Path) -> Services:
    monitor = Monitor(TrackingConfig(uri=f"sqlite:///{folder / 'mlflow.db'}"), folder / "artifacts")
    handle = MonitorHandle(monitor, remote=False)
    run_id = handle.ensure_run("r", "r")
    return Services(LocalStore(folder / "store"), handle, "train.x", "r/train.x", run_id, folder)


def test_a_stalled_loader_is_named_while_it_stalls_and_forgotten_afterwards(tmp_path, monkeypatch):
    monkeypatch.setattr(heartbeat, "BEAT_S", 0.05)
    services = make_services(tmp_path)
    services.progress(0, 10, "steps", "loss 1")
    is_named = threading.Event()
    said = []

    def loader():
        yield "first"
        assert is_named.wait(30), said
        yield "second"

    monkeypatch.setattr(Services, "say", lambda self, text: (said.append(text), is_named.set()))
    with watched(services, stalled_after_s=0.3), Heart(services, 3, 4) as heart:
        assert list(heart.waiting(loader())) == ["first", "second"]
    assert said[0].startswith(f"rank 3 (process {os.getpid()} on ")
    assert "for its batch 1: loader stalls" in said[0]
    assert services.beats() == {}


def test_ranks_that_an_elastic_training_has_no_more_are_forgotten(tmp_path):
    """A killed one says no last word, and would be named as hanging to the training's end."""
    services = make_services(tmp_path)
    for rank in range(4):
        services.beat(rank, "step", 5, 1.0)
    with Heart(services, 1, 2):
        assert sorted(services.beats()) == [0, 1, 2, 3]
    services.beat(1, "step", 5, 1.0)
    with Heart(services, 0, 2):
        assert sorted(services.beats()) == [0, 1]
    assert sorted(services.beats()) == [1]
