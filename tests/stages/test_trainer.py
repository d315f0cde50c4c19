"""What a training comes to: its errors, by name; a store that is gone; the network that is kept."""

from types import SimpleNamespace

import pytest
import ray.train
from ray.exceptions import ActorDiedError, RayTaskError

from cluster.errors import NoSpaceLeft, StorageError, StoreUnavailable
from cluster.local_store import LocalStore
from densedepth.errors import WeightsError
from stages.recipe import Recipe
from stages.scaling import ScalingSettings
from stages.train import keep_network
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
    """A clock that is set by hand, what was slept by it, and when Ray's groups were given back."""
    clock = SimpleNamespace(time_s=1000.0, slept=[], given_back=[])

    def sleep(seconds: float) -> None:
        clock.slept.append(seconds)
        clock.time_s += seconds

    monkeypatch.setattr("stages.trainer.time.sleep", sleep)
    monkeypatch.setattr("stages.trainer.time.monotonic", lambda: clock.time_s)
    monkeypatch.setattr(
        "stages.trainer.release_orphans", lambda: clock.given_back.append(clock.time_s)
    )
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
    assert now.given_back == [1000.0], "others can have what it held and asked for"


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
    if isinstance(error, OSError):  # as the driver's own reading in the store raises it
        with pytest.raises(expected, match=message):
            run_trainer(lambda: Recovering([error]), STORE)
