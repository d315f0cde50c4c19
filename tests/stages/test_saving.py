"""When the state is saved, and that an upload waits for a store that comes back."""

import shutil
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
import ray.train
import torch

from cluster.errors import NoSpaceLeft, StorageError, StoreUnavailable
from densedepth.checkpoint import load_network
from densedepth.depth_range import NYU
from densedepth.learner import Learner
from densedepth.losses import DepthLoss
from densedepth.model import DenseDepth
from densedepth.schedule import Schedule
from densedepth.train_settings import TrainSettings
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
    assert not clock.is_due(None), "a validation's round is no step"


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


def test_ranks_on_gpus_hear_the_answer_in_the_next_step(now):
    due = {}
    for is_ahead in (False, True):
        now.time_s = 0.0
        clock = SaveClock(None, 5.0, 10, 1)
        clock.is_ahead = is_ahead
        due[is_ahead] = []
        for step in range(1, 19):
            now.time_s += 1.0
            if clock.is_due(step):
                due[is_ahead].append(step)
    assert due == {False: [6, 11, 16], True: [7, 17]}  # looked at every fifth


def test_short_steps_are_looked_at_every_tenth(now, monkeypatch):
    looks = []
    monkeypatch.setattr(ray.train, "get_preemption_info", lambda: looks.append(now.time_s))
    clock = SaveClock(None, 60.0, 10, 1)
    for step in range(1, 31):
        now.time_s = 0.01 * step
        clock.is_due(step)
    assert looks == pytest.approx([0.01, 0.11, 0.21])


def test_a_validations_rounds_are_looked_at_as_steps_are(now, monkeypatch):
    looks = []
    monkeypatch.setattr(ray.train, "get_preemption_info", lambda: looks.append(now.time_s))
    clock, due = SaveClock(4, 20.0, 10, 1), []
    for number in range(1, 25):
        now.time_s += 1.0
        if clock.is_due(None):
            due.append(number)
    assert looks == [1.0, 6.0, 11.0, 16.0, 21.0]
    assert due == [21]


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
        return saver._upload(SimpleNamespace(path=str(folder)), "c1"), storage

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


@pytest.fixture
def reported(monkeypatch) -> list[tuple]:
    """What was given to Ray, whose background thread the test is."""
    reported: list[tuple] = []
    monkeypatch.setattr(saving, "report", lambda *given: reported.append(given))
    return reported


def make_saver(folder: Path) -> tuple[Saver, Learner]:
    torch.manual_seed(0)
    network = DenseDepth("mobilenet_v2", 0.0625)
    settings = TrainSettings(Schedule(9), ema_decay=0.5)
    learner = Learner(network, network, DepthLoss(20.0), NYU, settings, torch.device("cpu"))
    services = SimpleNamespace(scratch=folder, key="a/b")
    return Saver(services, SimpleNamespace(input_size_px=(64, 64))), learner


def test_what_is_saved_is_the_state_at_the_time_though_training_goes_on(
    reported, tmp_path, monkeypatch
):
    def upload(self, checkpoint, name):
        return shutil.copytree(checkpoint.path, tmp_path / name)

    monkeypatch.setattr(Saver, "_upload", upload)
    saver, learner = make_saver(tmp_path)
    history = {"skipped": [{"step": 1}]}
    with torch.no_grad():
        learner.ema.conv3.bias.add_(1)  # another than the network's
    before = learner.ema.conv3.bias.clone()
    saver.save(learner, history, {"step": 3})
    with torch.no_grad():
        learner.ema.conv3.bias.add_(1)
    history["skipped"].append({"step": 2})
    ((figures, checkpoint, keep),) = reported
    assert figures == {"step": 3}
    folder = keep(checkpoint, "c1")
    assert not list(saver.waiting.iterdir())
    state = torch.load(folder / "state.pt", weights_only=True)
    assert state["skipped"] == [{"step": 1}]
    assert torch.equal(state["ema"]["conv3.bias"], before)
    saved, depth_range, extra = load_network(folder / "network.safetensors")
    assert torch.equal(saved.conv3.bias, before)
    assert (depth_range, extra) == (NYU, {"input_size_px": [64, 64]})


def test_a_full_disk_of_the_node_is_named_and_what_was_written_is_deleted(reported, tmp_path):
    saver, learner = make_saver(tmp_path)
    saver.save(learner, {}, {"step": 3})
    ((_, checkpoint, keep),) = reported
    (Path(checkpoint.path) / "state.pt").symlink_to("/dev/full")
    with pytest.raises(NoSpaceLeft, match=f"{checkpoint.path}: No space left"):
        keep(checkpoint, "c1")
    assert not list(saver.waiting.iterdir())
    saver.waiting.rmdir()
    saver.waiting.touch()
    with pytest.raises(StorageError, match=f"{saver.waiting}: a file or folder is in the way"):
        saver.save(learner, {}, {"step": 4})


def test_rays_own_second_try_of_an_upload_ends_with_the_first_ones_error(
    reported, tmp_path, monkeypatch
):
    uploads = []

    def upload(self, checkpoint, name):
        uploads.append(name)
        raise StoreUnavailable("s3://b", "AWS Error NETWORK_CONNECTION")

    monkeypatch.setattr(Saver, "_upload", upload)
    saver, learner = make_saver(tmp_path)
    saver.save(learner, {}, {"step": 3})
    ((_, checkpoint, keep),) = reported
    for _ in range(2):
        with pytest.raises(StoreUnavailable, match="NETWORK_CONNECTION"):
            keep(checkpoint, "c1")
    assert uploads == ["c1"]


def test_a_third_save_waits_for_the_first_ones_end(reported, tmp_path, monkeypatch):
    """Else a store that is slower than the training would fill the memory with states."""
    monkeypatch.setattr(Saver, "_upload", lambda self, checkpoint, name: name)
    saver, learner = make_saver(tmp_path)
    for step in (1, 2):
        saver.save(learner, {}, {"step": step})
    third = threading.Thread(target=saver.save, args=(learner, {}, {"step": 3}), daemon=True)
    third.start()
    third.join(0.3)
    assert [figures["step"] for figures, _, _ in reported] == [1, 2]
    _, checkpoint, keep = reported[0]
    assert keep(checkpoint, "c1") == "c1"
    third.join(60)
    assert [figures["step"] for figures, _, _ in reported] == [1, 2, 3]
