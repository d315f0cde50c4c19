"""What a training's settings ask of Ray: its workers, their place, its restarts; without a Ray."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import ray
import ray.train
from ray.train._internal.checkpoint_manager import _CheckpointManager
from ray.train._internal.session import _TrainingResult
from ray.train.v2._internal.exceptions import UserExceptionWithTraceback
from ray.train.v2._internal.execution.failure_handling import (
    FailureDecision,
    create_failure_policy,
)

from cluster.errors import NoRoom, StorageError, StoreUnavailable
from cluster.local_store import LocalStore
from densedepth.errors import NonFiniteError
from stages import trainer
from stages.recipe import Recipe
from stages.scaling import ScalingSettings, use_gpu
from stages.train import TrainConfig
from stages.trainer import TrainJob, make_trainer
from tests.stages.ray_policy import Cluster, decide
from tests.stages.report_artifacts import make_shards


@dataclass
class Said:
    """Stands for services: remembers what was said, and whose beats were ended."""

    store: LocalStore
    key: str = "run/train"
    stage: str = "train.rooms"
    ended: list[int] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)

    def end_beats(self, rank: int) -> None:
        self.ended.append(rank)

    def say(self, text: str) -> None:
        self.texts.append(text)


@pytest.fixture
def said(tmp_path: Path) -> Said:
    return Said(LocalStore(tmp_path / "store"))


def make_job(
    splits: Sequence[str] = ("train", "val"), keep: str = "best", **scaling: Any
) -> TrainJob:
    shards = make_shards()
    return TrainJob(
        recipe=Recipe(keep=keep),
        scaling=ScalingSettings(**scaling),
        shards=shards.model_copy(update={"splits": {n: shards.splits[n] for n in splits}}),
    )


@pytest.fixture
def machines(monkeypatch):
    """Set what Ray's machines have; no Ray is asked."""
    monkeypatch.setattr(trainer, "release_orphans", lambda: 0)

    def have(cpus: int, gpus: int = 0, num_nodes: int = 1) -> None:
        monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": cpus, "GPU": gpus})
        monkeypatch.setattr(ray, "nodes", lambda: [{}] * num_nodes)

    have(8)
    return have


@pytest.mark.parametrize(
    "error", [NonFiniteError("3 steps"), ValueError("no"), StorageError("s3://b", "refused")]
)
def test_what_no_restart_cures_is_not_tried_again_and_lost_ranks_are_forgotten(
    error, said, machines
):
    (after,) = make_trainer(print, make_job(num_workers=2), said).run_config.callbacks
    after.after_exception(None, {0: ConnectionError("peer"), 1: StoreUnavailable("s3://b", "503")})
    assert said.ended == [0, 1]
    with pytest.raises(type(error)) as raised:
        after.after_exception(
            None, {0: ConnectionError("peer"), 1: UserExceptionWithTraceback(error, "")}
        )
    assert raised.value is error


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


def test_a_trial_without_workers_takes_a_gpu_where_there_is_one(machines):
    assert not use_gpu(ScalingSettings(num_workers=0))
    machines(8, gpus=1)
    assert use_gpu(ScalingSettings(num_workers=0))


def test_an_elastic_training_takes_gpus_when_there_are_enough_to_begin_with(monkeypatch):
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"GPU": 2, "CPU": 8})
    monkeypatch.setattr(ray, "nodes", lambda: [{}] * 2)
    assert use_gpu(ScalingSettings(num_workers=4, min_workers=2))
    assert not use_gpu(ScalingSettings(num_workers=4, min_workers=3))


def test_what_the_settings_say_of_failures_and_hanging_ranks_is_what_ray_is_told(said, machines):
    made = make_trainer(print, make_job(max_failures=7, max_step_min=2.5), said)
    assert made.backend_config.timeout_s == 150
    policy = create_failure_policy(made.run_config.failure_config)
    lost = ray.train.WorkerGroupError("lost", {0: ConnectionError()})
    decisions = [policy.make_decision(lost) for _ in range(8)]
    assert decisions == [FailureDecision.RETRY] * 7 + [FailureDecision.RAISE]


@pytest.mark.parametrize(
    ("job", "kept"),
    [
        (make_job(), {"second", "third"}),
        (make_job(keep="last"), {"third"}),
        (make_job(splits=["train"]), {"third"}),
    ],
)
def test_ray_keeps_the_epoch_of_the_least_validation_loss_and_the_last(
    said, machines, tmp_path, job, kept
):
    ranked = _CheckpointManager(make_trainer(print, job, said).run_config.checkpoint_config)
    for name, loss in (("first", 0.5), ("second", 0.2), ("third", 0.3)):
        folder = tmp_path / "saved" / name
        folder.mkdir(parents=True)
        saved = ray.train.Checkpoint(str(folder))
        ranked.register_checkpoint(_TrainingResult(saved, {"val_loss": loss}))
    assert {folder.name for folder in (tmp_path / "saved").iterdir()} == kept


def test_a_training_after_a_drivers_death_finds_its_folder_and_no_other_one_does(said, machines):
    first, again, other = (
        make_trainer(print, make_job(), replace(said, key=key)).run_config
        for key in ("run/train", "run/train", "run/train/trial")
    )
    assert first.storage_path == again.storage_path == str(said.store.root / "ray")
    assert first.name == again.name != other.name


@pytest.mark.parametrize(("gpus", "each"), [(0, {"CPU": 2.0}), (4, {"CPU": 2.0, "GPU": 1})])
def test_ray_starts_workers_where_there_is_room_for_what_each_is_given(
    said, machines, monkeypatch, gpus, each
):
    cluster = Cluster(monkeypatch, each)
    machines(8, gpus)
    job = make_job(num_workers=4, min_workers=2, cpus_per_worker=2.0, max_wait_min=1.5)
    made = make_trainer(print, job, said)
    assert made.scaling_config.num_workers == (2, 4)
    assert made.scaling_config.use_gpu == bool(gpus)
    assert made.scaling_config.resources_per_worker == each
    policy = made._initialize_and_run_controller(scaling_policy=None)
    cluster.free = 1
    assert decide(policy) == 0
    assert said.texts[0].startswith("waiting for 2 to 4 workers of 2 CPU")
    assert cluster.asked == (2, "")
    assert said.ended == [0, 1, 2, 3]
    cluster.free = 4
    assert decide(policy) == 4
    cluster.free = 1
    assert decide(policy, num_running=2) == 0
    assert decide(policy) == 0
    cluster.now_s += 89
    assert decide(policy) == 0
    cluster.now_s += 2
    with pytest.raises(NoRoom, match=r"train\.rooms: waited 1\.5 min"):
        decide(policy)


def test_workers_that_can_never_start_are_refused_on_one_machine_and_waited_for_on_a_cluster(
    said, machines
):
    machines(3)
    job = make_job(num_workers=2, cpus_per_worker=2.0)
    with pytest.raises(ValueError, match=r"2 workers need 4 CPUs, but this Ray has 3: lower"):
        make_trainer(print, job, said)
    machines(3, num_nodes=2)
    assert make_trainer(print, job, said)
    machines(4)
    assert make_trainer(print, job, said)


def test_every_worker_has_a_frame_of_the_batch():
    assert TrainConfig(num_workers=8, recipe=Recipe(global_batch_size=8))
    with pytest.raises(ValueError, match=r"num_workers = 9 is more than recipe\.global_batch"):
        TrainConfig(num_workers=9, recipe=Recipe(global_batch_size=8))


def test_fewer_workers_than_the_least_make_no_sense():
    with pytest.raises(ValueError, match="min_workers = 3 is more than num_workers = 2"):
        ScalingSettings(num_workers=2, min_workers=3)


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
