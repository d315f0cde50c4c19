"""The trainer's errors and where GPUs are asked for, without a cluster."""

import pytest
import ray
import ray.train

from cluster.errors import NoSpaceLeft, StorageError
from densedepth.errors import WeightsError
from stages.train import TrainConfig
from stages.trainer import ScalingSettings, run_trainer, tries_within, use_gpu


class Failing:
    """Stands for a trainer whose workers fail."""

    def __init__(self, failures: dict[int, Exception]) -> None:
        self.failures = failures

    def fit(self) -> None:
        raise ray.train.WorkerGroupError("workers failed", self.failures)


def test_the_error_that_names_a_cause_comes_out():
    failures = {0: ConnectionError("peer lost"), 1: WeightsError("no file /x.pth: set weights")}
    with pytest.raises(WeightsError, match=r"no file /x\.pth"):
        run_trainer(lambda: Failing(failures), "s3://b/ray")


def test_without_a_named_cause_the_first_ranks_error_comes_out():
    with pytest.raises(ConnectionError, match="first"):
        run_trainer(
            lambda: Failing({1: ConnectionError("second"), 0: ConnectionError("first")}),
            "s3://b/ray",
        )


@pytest.mark.parametrize(
    ("wanted", "gpus", "nodes", "cpus", "expected"),
    [
        ("auto", 0, 1, 2, False),
        ("auto", 1, 1, 2, False),
        ("auto", 2, 1, 2, True),
        (False, 8, 1, 2, False),
        (True, 2, 1, 2, True),
        (True, 0, 1, 0, True),
        (True, 0, 2, 8, True),
        (True, 1, 1, 8, "this machine has 1 GPUs"),
        (True, 0, 1, 8, "this machine has 0 GPUs"),
    ],
)
def test_gpus_are_asked_for_where_they_are_or_may_come(
    monkeypatch, wanted, gpus, nodes, cpus, expected
):
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"GPU": gpus, "CPU": cpus})
    monkeypatch.setattr(ray, "nodes", lambda: [{}] * nodes)
    scaling = ScalingSettings(num_workers=2, use_gpu=wanted)
    if isinstance(expected, str):
        with pytest.raises(ValueError, match=expected):
            use_gpu(scaling)
    else:
        assert use_gpu(scaling) == expected


def test_fewer_workers_than_the_least_make_no_sense():
    with pytest.raises(ValueError, match="min_workers = 3 is more than num_workers = 2"):
        ScalingSettings(num_workers=2, min_workers=3)


@pytest.mark.parametrize(
    ("minutes", "expected"), [(None, -1), (0.1, 0), (1.0, 0), (2.0, 1), (9.5, 9)]
)
def test_a_wait_becomes_a_number_of_tries_of_a_minute(monkeypatch, minutes, expected):
    monkeypatch.delenv("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", raising=False)
    assert tries_within(minutes) == expected


def test_what_decides_the_weights_decides_the_fingerprint_and_nothing_else_does():
    base = TrainConfig()
    for changes in (
        {"max_failures": 9},
        {"checkpoint_every_s": 5.0},
        {"checkpoint_every_steps": 7},
        {"loader_processes": 3},
        {"stalled_after_s": 9.0},
        {"num_panel_frames": 0},
        {"profile_steps": 3},
        {"max_wait_min": 3.0},
        {"max_step_min": 3.0},
    ):
        assert TrainConfig(**changes).deciding() == base.deciding(), changes
    for changes in ({"num_workers": 2}, {"max_train_samples": 9}, {"recipe": {"seed": 1}}):
        assert TrainConfig(**changes).deciding() != base.deciding(), changes


class Recovering:
    """Stands for a trainer whose controller cannot write to the store for a while."""

    def __init__(self, errors: list[Exception]) -> None:
        self.errors = errors

    def fit(self) -> str:
        if self.errors:
            raise ray.train.ControllerError(self.errors.pop(0))
        return "done"


def test_a_controller_that_lost_the_store_goes_on_when_it_is_back(monkeypatch):
    slept = []
    monkeypatch.setattr("stages.trainer.time.sleep", slept.append)
    gone = OSError("AWS Error NETWORK_CONNECTION during CreateMultipartUpload operation")
    errors = [gone, gone, gone]
    assert run_trainer(lambda: Recovering(errors), "s3://b/ray") == "done"
    assert slept == [1, 2, 4]


@pytest.mark.parametrize(
    ("error", "expected", "message"),
    [
        (OSError(28, "No space left on device"), NoSpaceLeft, "s3://b/ray: No space left"),
        (OSError("AWS Error ACCESS_DENIED"), StorageError, "ACCESS_DENIED"),
        (RuntimeError("a bug"), ray.train.ControllerError, "a bug"),
    ],
)
def test_what_waiting_cannot_cure_comes_out_of_the_controller_at_once(error, expected, message):
    with pytest.raises(expected, match=message):
        run_trainer(lambda: Recovering([error]), "s3://b/ray")
