"""When the state is saved, and that an upload waits for a store that comes back."""

from types import SimpleNamespace

import pytest
import ray.train
import torch

from cluster.errors import NoSpaceLeft, StorageError
from densedepth.checkpoint import load_network
from densedepth.depth_range import NYU
from densedepth.learner import Learner, TrainSettings
from densedepth.losses import DepthLoss
from densedepth.model import DenseDepth
from densedepth.schedule import Schedule
from stages import saving
from stages.saving import SaveClock, Saver


@pytest.fixture
def now(monkeypatch):
    """A clock that is set by hand, and no word of nodes that go."""
    clock = SimpleNamespace(time_s=0.0, info=None)
    monkeypatch.setattr(saving.time, "monotonic", lambda: clock.time_s)
    monkeypatch.setattr(saving.time, "sleep", lambda s: setattr(clock, "time_s", clock.time_s + s))
    monkeypatch.setattr(ray.train, "get_preemption_info", lambda: clock.info)
    return clock


def test_the_state_is_saved_after_so_many_steps(now):
    clock = SaveClock(4, None, 10, 1)
    assert [step for step in range(1, 13) if clock.is_due(step)] == [4, 8, 12]


@pytest.mark.parametrize(
    ("step_s", "expected"),
    [
        (7.0, [9, 18, 27, 36]),  # looked at after each step: no more than a step late
        (1.0, [61]),  # after 1, then every 5
        (0.01, []),
    ],
)
def test_the_state_is_saved_after_so_much_time_at_the_next_look(now, step_s, expected):
    clock = SaveClock(None, 60.0, 10, 1)
    due = []
    for step in range(1, 41 if step_s > 1 else 101):
        now.time_s += step_s
        if clock.is_due(step):
            due.append(step)
    assert due == expected


def test_short_steps_are_looked_at_every_tenth(now, monkeypatch):
    looks = []
    monkeypatch.setattr(ray.train, "get_preemption_info", lambda: looks.append(now.time_s))
    clock = SaveClock(None, 60.0, 10, 1)
    for step in range(1, 31):
        now.time_s = 0.01 * step
        clock.is_due(step)
    assert looks == pytest.approx([0.01, 0.11, 0.21])


def test_neither_steps_nor_time_means_epochs_only(now):
    clock = SaveClock(None, None, 5, 1)
    now.time_s = 1e6
    assert not any(clock.is_due(step) for step in range(1, 100))


def test_a_node_that_will_be_taken_away_makes_one_save(now):
    clock = SaveClock(None, None, 5, 1)
    assert not clock.is_due(1)
    now.info = object()
    assert [step for step in range(2, 31) if clock.is_due(step)] == [6]


class Storage:
    """Stands for Ray's: fails as told, then copies."""

    def __init__(self, errors: list[OSError]) -> None:
        self.errors, self.calls = errors, 0

    def persist_current_checkpoint(self, checkpoint, name):
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return f"kept {name}"


@pytest.fixture
def upload(now, tmp_path, monkeypatch):
    """Upload a checkpoint to a store that fails as told; return (result, storage)."""

    def run(errors: list[OSError]):
        storage = Storage(errors)
        context = SimpleNamespace(get_storage=lambda: storage)
        monkeypatch.setattr(ray.train, "get_context", lambda: context)
        store = SimpleNamespace(url_of=lambda key: f"s3://bucket/{key}")
        services = SimpleNamespace(scratch=tmp_path, key="a/b", store=store)
        folder = tmp_path / "checkpoint"
        folder.mkdir()
        saver = Saver(services, recipe=None)
        result = saver._upload(SimpleNamespace(path=str(folder)), "c1")
        assert not folder.exists()
        return result, storage

    return run


def test_an_upload_goes_on_when_the_store_answers_again(upload, now):
    gone = [OSError("AWS Error NETWORK_CONNECTION during PutObject")] * 5
    result, storage = upload(list(gone))
    assert (result, storage.calls) == ("kept c1", 6)
    assert 30 <= now.time_s <= 60


def test_an_upload_gives_up_after_its_patience(upload, now):
    with pytest.raises(StorageError, match="s3://bucket/ray: AWS Error NETWORK_CONNECTION"):
        upload([OSError("AWS Error NETWORK_CONNECTION during PutObject")] * 1000)
    assert now.time_s < saving.PATIENCE_S + 20


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), OSError("AWS Error ACCESS_DENIED")]
)
def test_what_waiting_cannot_cure_is_told_at_once(upload, now, error):
    with pytest.raises(StorageError) as caught:
        upload([error])
    assert now.time_s == 0
    assert isinstance(caught.value, NoSpaceLeft) == (error.errno == 28)


def test_what_is_saved_is_the_state_at_the_time_though_training_goes_on(now, tmp_path, monkeypatch):
    reported = []
    monkeypatch.setattr(saving, "report", lambda *given: reported.append(given))
    monkeypatch.setattr(Saver, "_upload", lambda self, checkpoint, name: (checkpoint.path, name))
    torch.manual_seed(0)
    network = DenseDepth("mobilenet_v2", 0.0625)
    settings = TrainSettings(Schedule(9), ema_decay=0.5)
    learner = Learner(network, network, DepthLoss(20.0), NYU, settings, torch.device("cpu"))
    services = SimpleNamespace(scratch=tmp_path, key="a/b")
    recipe = SimpleNamespace(input_size_px=(64, 64))
    history = {"skipped": [{"step": 1}]}
    before = learner.ema.conv3.bias.clone()
    Saver(services, recipe).save(learner, history, {"step": 3})
    with torch.no_grad():
        learner.ema.conv3.bias.add_(1)
    history["skipped"].append({"step": 2})
    ((figures, checkpoint, keep),) = reported
    assert figures == {"step": 3}
    folder, name = keep(checkpoint, "c1")
    assert name == "c1"
    state = torch.load(f"{folder}/state.pt", weights_only=True)
    assert state["skipped"] == [{"step": 1}]
    assert torch.equal(state["ema"]["conv3.bias"], before)
    saved, depth_range, extra = load_network(f"{folder}/network.safetensors")
    assert torch.equal(saved.conv3.bias, before)
    assert (depth_range, extra) == (NYU, {"input_size_px": [64, 64]})
