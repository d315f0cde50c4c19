"""The training loop: it learns, is the same twice, goes on where it was, and tells its figures."""

import io
import json
from collections.abc import Iterator

import pytest
import torch

from densedepth import training
from densedepth.data.batch import Batch
from densedepth.profiling import step_profiler
from densedepth.training import Listeners, fit
from tests.densedepth.small_training import (
    AVERAGE,
    DEVICES,
    batch,
    batches,
    make_learner,
    train,
    weights,
)

PAPER = {}
BF16 = {"schedule": "one_cycle", "precision": "bf16", "clip_gradient_norm": 1.0}
FP16 = {"schedule": "step", "precision": "fp16", "micro_batch_size": 1}


def test_training_lowers_the_loss_and_reports_every_epoch():
    told = train(make_learner(), 4)
    steps, results = told["steps"], told["epochs"]
    assert [r.epoch for r in results] == [0, 1, 2, 3]
    assert results[-1].step == 12
    assert results[-1].train_loss < 0.8 * results[0].train_loss
    assert {"loss", "loss_l1", "loss_gradient", "loss_ssim", "learning_rate"} <= set(
        steps[0].metrics
    )
    assert {"loss", "delta1", "abs_rel", "rmse"} <= set(results[-1].metrics)


def test_the_reported_loss_is_the_weighted_sum_of_its_terms():
    m = train(make_learner(), 1)["steps"][0].metrics
    assert m["loss"] == pytest.approx(
        0.1 * m["loss_l1"] + m["loss_gradient"] + m["loss_ssim"], rel=1e-4
    )


def test_an_interrupted_training_ends_with_the_same_bits():
    whole = make_learner(schedule="cosine", ema_decay=0.9, amsgrad=True)
    train(whole, 3)
    first = make_learner(schedule="cosine", ema_decay=0.9, amsgrad=True)
    train(first, 2)
    state = first.state()
    second = make_learner(schedule="cosine", ema_decay=0.9, amsgrad=True)
    second.load_state(state)
    assert [r.epoch for r in train(second, 3)["epochs"]] == [2]
    assert all(torch.equal(a, b) for a, b in zip(weights(whole), weights(second), strict=True))


@pytest.mark.parametrize(
    ("changes", "stopped_at"),
    [(PAPER, 1), (PAPER, 3), (PAPER, 5), (AVERAGE, 2), (AVERAGE, 4), (BF16, 2), (FP16, 2)],
)
def test_a_training_stopped_after_any_step_ends_with_the_same_bits(changes, stopped_at):
    whole, first, second = (make_learner(**changes) for _ in range(3))
    undisturbed = train(whole, 2)
    (state,) = train(first, 2, save_at={stopped_at}, stop=True)["states"]
    second.load_state(state)
    resumed = train(second, 2)
    assert all(torch.equal(a, b) for a, b in zip(weights(whole), weights(second), strict=True))
    assert [r.train_loss for r in resumed["epochs"]] == [
        r.train_loss for r in undisturbed["epochs"][-len(resumed["epochs"]) :]
    ]
    assert resumed["epochs"][-1].metrics == undisturbed["epochs"][-1].metrics


def test_saving_changes_neither_the_weights_nor_the_records():
    quiet, saving = make_learner(), make_learner()
    expected = train(quiet, 2)
    told = train(saving, 2, save_at={1, 2, 4, 6})
    assert len(told["states"]) == 4
    assert all(torch.equal(a, b) for a, b in zip(weights(quiet), weights(saving), strict=True))
    assert [s.metrics["loss"] for s in told["steps"]] == [
        s.metrics["loss"] for s in expected["steps"]
    ]


def twelve_batches(epoch: int, next_sample: int = 0) -> list[Batch]:
    """More than make a record."""
    return [batch(20 * epoch + i) for i in range(next_sample // 2, 12)]


@pytest.mark.parametrize("device", DEVICES)
def test_a_gpu_is_in_the_next_step_when_figures_are_told(device, monkeypatch):
    if device == "cpu":
        monkeypatch.setattr(training, "works_ahead", lambda device: True)
    learner, told = make_learner(device=device), []
    fit(
        learner,
        epochs=2,
        train=twelve_batches,
        listeners=Listeners(
            on_step=lambda record: told.append((record.step, learner.step)),
            on_epoch=lambda result: told.append((result.step, learner.step)),
        ),
    )
    assert told == [(10, 11), (12, 12), (12, 12), (22, 23), (24, 24), (24, 24)]


@pytest.mark.parametrize("save_at", [(), {1, 4}, {10}, {9, 11, 12}, {8, 20, 21, 24}])
def test_figures_told_a_step_later_are_the_same(save_at, monkeypatch):
    changes = {"schedule": "cosine", "clip_gradient_norm": 1.0}
    expected = train(make_learner(**changes), 2, twelve_batches, save_at=save_at)
    monkeypatch.setattr(training, "works_ahead", lambda device: True)
    told = train(make_learner(**changes), 2, twelve_batches, save_at=save_at)
    for ours, theirs in zip(told["steps"], expected["steps"], strict=True):
        assert (ours.epoch, ours.step) == (theirs.epoch, theirs.step)
        for name in ("loss", "gradient_norm", "learning_rate", "skipped_steps"):
            assert ours.metrics[name] == theirs.metrics[name]
    assert [e.train_loss for e in told["epochs"]] == [e.train_loss for e in expected["epochs"]]
    for ours, theirs in zip(told["states"], expected["states"], strict=True):
        assert {**ours["progress"], "seconds": 0} == {**theirs["progress"], "seconds": 0}
        assert ours["step"] == theirs["step"]


def test_the_learning_rate_told_is_that_of_the_last_step():
    learner = make_learner(schedule="cosine")
    told = train(learner, 1, twelve_batches)["steps"]
    rates = [1e-3 * learner.settings.schedule.factor(step) for step in (9, 11)]
    assert [record.metrics["learning_rate"] for record in told] == rates
    assert learner.optimiser.param_groups[-1]["lr"] == rates[-1]


def test_times_and_speeds_are_those_of_the_clock(monkeypatch):
    """A batch takes 3 s to come and the network 1 s, in the validation too."""
    now = [0.0]
    monkeypatch.setattr("densedepth.training.time.monotonic", lambda: now[0])

    def passes(seconds: float) -> None:
        now[0] += seconds

    def slow(epoch: int, next_sample: int = 0) -> Iterator[Batch]:
        for one in twelve_batches(epoch, next_sample):
            passes(3)
            yield one

    learner, again = make_learner(), make_learner()
    for each in (learner, again):
        each.network.register_forward_hook(lambda *call: passes(1))
    told = train(learner, 1, slow, save_at={5})
    for record, num_steps in zip(told["steps"], (10, 2), strict=True):
        assert record.metrics["images_per_second"] == 2 * num_steps / (4 * num_steps)
        assert record.metrics["data_wait_share"] == 0.75
    (state,), (result,) = told["states"], told["epochs"]
    assert (state["progress"]["seconds"], result.seconds) == (20, 49)
    again.load_state(state)
    assert train(again, 1, slow)["epochs"][0].seconds == 49


def test_random_layers_draw_the_same_after_a_restart():
    """EfficientNet drops layers at random."""
    whole, first, second = (make_learner("efficientnet_b0") for _ in range(3))
    train(whole, 1)
    torch.manual_seed(12345)
    (state,) = train(first, 1, save_at={2}, stop=True)["states"]
    second.load_state(state)
    torch.manual_seed(54321)
    train(second, 1)
    assert all(torch.equal(a, b) for a, b in zip(weights(whole), weights(second), strict=True))


@pytest.mark.parametrize("device", DEVICES)
def test_the_state_goes_on_where_it_was_and_on_another_device(device):
    """Bits are promised on the CPU only: a GPU sums in any order."""
    precision = "fp16" if device == "cuda" else "bf16"  # fp16 on the CPU is slow, and tested above
    changes = {**AVERAGE, "precision": precision, "device": device}
    first, second = make_learner(**changes), make_learner(**changes)
    (state,) = train(first, 2, save_at={4}, stop=True)["states"]
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    second.load_state(torch.load(file, map_location=device, weights_only=True))
    told = train(second, 2)
    whole = train(make_learner(**changes), 2)
    assert told["epochs"][-1].train_loss == pytest.approx(whole["epochs"][-1].train_loss, rel=1e-2)
    file.seek(0)
    on_cpu = make_learner(**{**changes, "device": "cpu"})
    on_cpu.load_state(torch.load(file, map_location="cpu", weights_only=True))
    for name, value in first.state()["network"].items():
        assert torch.equal(value.cpu(), on_cpu.network.state_dict()[name]), name


def test_a_trace_of_a_training_that_is_too_short_has_the_steps_there_were(tmp_path):
    written = []
    profiler = step_profiler(50, tmp_path / "trace.json", written.append)
    profiler.start()
    learner = make_learner()
    fit(
        learner,
        epochs=2,
        train=batches,
        listeners=Listeners(on_step=lambda record: None, on_epoch=lambda result: None),
        profiler=profiler,
    )
    assert written == [tmp_path / "trace.json"]
    names = {event.get("name") for event in json.loads(written[0].read_text())["traceEvents"]}
    assert "ProfilerStep#3" in names
    assert "aten::conv2d" in names
