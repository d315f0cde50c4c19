"""The trainer's errors and where GPUs are asked for, without a cluster."""

from types import SimpleNamespace

import pytest
import ray
import ray.train
from ray.exceptions import ActorDiedError, RayTaskError
from ray.train.v2._internal.exceptions import UserExceptionWithTraceback

from cluster.errors import NoSpaceLeft, StorageError, StoreUnavailable
from cluster.local_store import LocalStore
from densedepth.errors import NonFiniteError, WeightsError
from stages import trainer
from stages.recipe import Recipe
from stages.scaling import ScalingSettings, use_gpu
from stages.train import TrainConfig, keep_network
from stages.trainer import PATIENCE_S, TrainJob, run_trainer


class Store:
    """Stands for a store that does not answer so many times."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)

    def stat(self, key: str) -> None:
        if self.errors:
            raise self.errors.pop(0)

    def url_of(self, key: str) -> str:
        return f"s3://b/{key}"


STORE = Store()


class Failing:
    """Stands for a trainer whose workers fail."""

    def __init__(self, failures: dict[int, Exception]) -> None:
        self.failures = failures

    def fit(self) -> None:
        raise ray.train.WorkerGroupError("workers failed", self.failures)


def test_the_error_that_names_a_cause_comes_out():
    failures = {0: ConnectionError("peer lost"), 1: WeightsError("no file /x.pth: set weights")}
    with pytest.raises(WeightsError, match=r"no file /x\.pth"):
        run_trainer(lambda: Failing(failures), STORE)


def test_without_a_named_cause_the_first_ranks_error_comes_out():
    with pytest.raises(ConnectionError, match="first"):
        run_trainer(
            lambda: Failing({1: ConnectionError("second"), 0: ConnectionError("first")}),
            STORE,
        )


class Said:
    """Stands for services: remembers whose beats were ended."""

    def __init__(self) -> None:
        self.ended: list[int] = []

    def end_beats(self, rank: int) -> None:
        self.ended.append(rank)


@pytest.mark.parametrize(
    "error", [NonFiniteError("3 steps"), ValueError("no"), StorageError("s3://b", "refused")]
)
def test_what_no_restart_cures_is_not_tried_again_and_lost_ranks_are_forgotten(error):
    said = Said()
    after = trainer._after_failures(said, 2)
    after.after_exception(None, {0: ConnectionError("peer"), 1: StoreUnavailable("s3://b", "503")})
    assert said.ended == [0, 1]
    with pytest.raises(type(error)) as raised:
        after.after_exception(
            None, {0: ConnectionError("peer"), 1: UserExceptionWithTraceback(error, "")}
        )
    assert raised.value is error


@pytest.mark.parametrize(("keep", "expected"), [("best", b"second"), ("last", b"third")])
def test_the_network_that_is_kept_is_the_best_epochs_or_the_lasts(keep, expected, tmp_path):
    losses, saved = [0.5, 0.2, 0.3], []
    for name, loss in zip((b"first", b"second", b"third"), losses, strict=True):
        folder = tmp_path / name.decode()
        folder.mkdir()
        (folder / "network.safetensors").write_bytes(name)
        saved.append((ray.train.Checkpoint(str(folder)), {"val_loss": loss, "epoch": len(saved)}))
    history = [
        {"epoch": i, "step": i, "train_loss": 1.0, "metrics": {"loss": loss}, "seconds": 1.0}
        for i, loss in enumerate(losses)
    ]
    result = SimpleNamespace(
        checkpoint=saved[-1][0],
        best_checkpoints=[saved[2], saved[1]],
        return_value={"history": history, "num_parameters": 1, "skipped": []},
    )
    job = TrainJob.model_construct(
        recipe=Recipe(keep=keep),
        scaling=ScalingSettings(),
        shards=SimpleNamespace(splits={"train": 1, "val": 1}, dataset="rooms"),
    )
    store = LocalStore(tmp_path / "store")
    kept = keep_network(job, SimpleNamespace(store=store, key="run/train"), result)
    assert kept.best_epoch == (1 if keep == "best" else 2)
    assert store.get_bytes(kept.network.key) == expected


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


def test_an_elastic_training_takes_gpus_when_there_are_enough_to_begin_with(monkeypatch):
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"GPU": 2, "CPU": 8})
    monkeypatch.setattr(ray, "nodes", lambda: [{}] * 2)
    assert use_gpu(ScalingSettings(num_workers=4, min_workers=2))
    assert not use_gpu(ScalingSettings(num_workers=4, min_workers=3))


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


class Recovering:
    """Stands for a trainer whose controller has the store only after so many tries."""

    def __init__(self, errors: list[Exception]) -> None:
        self.errors = errors

    def fit(self) -> str:
        if self.errors:
            raise self.errors.pop(0)
        return "done"


@pytest.fixture
def now(monkeypatch):
    """A clock that is set by hand, and what was slept by it."""
    clock = SimpleNamespace(time_s=1000.0, slept=[])

    def sleep(seconds: float) -> None:
        clock.slept.append(seconds)
        clock.time_s += seconds

    monkeypatch.setattr("stages.trainer.time.sleep", sleep)
    monkeypatch.setattr("stages.trainer.time.monotonic", lambda: clock.time_s)
    return clock


GONE = OSError("AWS Error NETWORK_CONNECTION during CreateMultipartUpload operation")


def while_it_works() -> Exception:
    """What a controller fails with that cannot write."""
    return ray.train.ControllerError(GONE)


def while_it_begins(error: Exception = GONE) -> Exception:
    """What Ray makes of an error in a controller's beginning, where it reads what was kept."""
    text = f"ray::TrainController.__init__()\n  File ...\n{type(error).__name__}: {error}"
    return ActorDiedError(RayTaskError("TrainController.__init__", text, error, actor_id="ab"))


@pytest.mark.parametrize("failure", [while_it_works, while_it_begins])
def test_a_controller_that_lost_the_store_goes_on_when_it_is_back(now, failure):
    errors = [failure() for _ in range(6)]
    assert run_trainer(lambda: Recovering(errors), STORE) == "done"
    assert now.slept == [1, 2, 4, 8, 15, 15]


def test_no_controller_is_started_for_a_store_that_does_not_answer(now):
    store, made = Store(*(StoreUnavailable("s3://b", "gone") for _ in range(3))), []

    def make():
        made.append(now.time_s)
        return Recovering([])

    assert run_trainer(make, store) == "done"
    assert (now.slept, len(made)) == ([1, 2, 4], 1)


def test_a_store_that_stays_away_ends_the_training(now):
    with pytest.raises(StoreUnavailable, match=r"s3://b/ray: .*NETWORK_CONNECTION"):
        run_trainer(lambda: Recovering([while_it_begins()]), STORE)
    assert PATIENCE_S < sum(now.slept) < PATIENCE_S + 30


def test_after_days_of_training_a_store_is_waited_for_as_at_its_beginning(now):
    errors = [while_it_works(), while_it_begins(), while_it_works(), while_it_begins()]

    def make():
        if len(errors) in (4, 2):
            now.time_s += 1e5
        return Recovering(errors)

    assert run_trainer(make, STORE) == "done"
    assert now.slept == [1, 2, 1, 2]


@pytest.mark.parametrize(
    "error", [while_it_begins(ValueError("a bug in the controller")), ActorDiedError()]
)
def test_a_controller_that_died_of_something_else_is_told_as_ray_tells_it(now, error):
    with pytest.raises(ActorDiedError):
        run_trainer(lambda: Recovering([error]), STORE)
    assert now.slept == []


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
        run_trainer(lambda: Recovering([ray.train.ControllerError(error)]), STORE)
