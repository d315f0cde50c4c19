"""The training loop: it learns, it is the same twice, and it goes on where it was."""

import math

import pytest
import torch

from densedepth.data.batch import Batch
from densedepth.depth_range import DepthRange
from densedepth.losses import DepthLoss
from densedepth.model import DenseDepth
from densedepth.training import Learner, TrainSettings, fit, rate_factor

RANGE = DepthRange(0.5, 10.0)


def batch(seed: int, size: int = 2) -> Batch:
    """Pictures whose brightness is their depth: something that can be learned at once."""
    generator = torch.Generator().manual_seed(seed)
    near = torch.rand((size, 1, 1, 1), generator=generator)
    ramp = torch.linspace(0, 1, 32).view(1, 1, 32, 1).expand(size, 1, 32, 32)
    depth_m = 1 + 6 * (0.5 * near + 0.5 * ramp)
    shade = ((depth_m - 1) / 6 * 255).to(torch.uint8)
    image = shade.repeat_interleave(2, 2).repeat_interleave(2, 3).expand(size, 3, 64, 64)
    return Batch(
        keys=tuple(f"s{seed}-{i}" for i in range(size)),
        image=image.contiguous(),
        depth_m=depth_m.contiguous(),
        valid=torch.ones_like(depth_m, dtype=torch.bool),
        sample_seeds=torch.arange(size, dtype=torch.int64) + 100 * seed,
    )


def make_learner(**changes) -> Learner:
    torch.manual_seed(0)
    network = DenseDepth("mobilenet_v2", 0.0625)
    settings = TrainSettings(num_steps=12, **{"learning_rate": 1e-3, **changes})
    loss = DepthLoss(RANGE.max_target)
    return Learner(network, network, loss, RANGE, settings, torch.device("cpu"))


def train(learner: Learner, epochs: int):
    """Train on three batches an epoch; return what was reported."""
    steps, results = [], []
    fit(
        learner,
        epochs=epochs,
        train=lambda epoch: [batch(10 * epoch + i) for i in range(3)],
        validation=lambda: [batch(999, 3)],
        on_step=steps.append,
        on_epoch=results.append,
    )
    return steps, results


def test_training_lowers_the_loss_and_reports_every_epoch():
    steps, results = train(make_learner(), 4)
    assert [r.epoch for r in results] == [0, 1, 2, 3]
    assert results[-1].step == 12
    assert results[-1].train_loss < 0.8 * results[0].train_loss
    assert {"loss", "loss_l1", "loss_gradient", "loss_ssim", "learning_rate"} <= set(
        steps[0].metrics
    )
    assert {"loss", "delta1", "abs_rel", "rmse"} <= set(results[-1].metrics)


def test_the_reported_loss_is_the_weighted_sum_of_its_terms():
    steps, _ = train(make_learner(), 1)
    m = steps[0].metrics
    assert m["loss"] == pytest.approx(
        0.1 * m["loss_l1"] + m["loss_gradient"] + m["loss_ssim"], rel=1e-4
    )


def weights(learner: Learner) -> list[torch.Tensor]:
    return [value.clone() for value in learner.best_network.state_dict().values()]


def test_an_interrupted_training_ends_with_the_same_bits():
    whole = make_learner(schedule="cosine", ema_decay=0.9, amsgrad=True)
    train(whole, 3)
    first = make_learner(schedule="cosine", ema_decay=0.9, amsgrad=True)
    train(first, 2)
    state = first.state()
    second = make_learner(schedule="cosine", ema_decay=0.9, amsgrad=True)
    second.load_state(state)
    _, results = train(second, 3)
    assert [r.epoch for r in results] == [2]
    assert all(torch.equal(a, b) for a, b in zip(weights(whole), weights(second), strict=True))


def test_the_moving_average_is_what_is_kept_and_differs_from_the_network():
    learner = make_learner(ema_decay=0.9)
    train(learner, 1)
    assert learner.best_network is learner.ema
    ours = learner.network.conv3.weight
    assert not torch.equal(ours, learner.best_network.conv3.weight)


def test_frozen_statistics_of_the_encoder_stay_while_all_weights_learn():
    learner = make_learner(freeze_encoder_norm=True)
    before = {name: value.clone() for name, value in learner.network.state_dict().items()}
    train(learner, 1)
    changed = {
        name
        for name, value in learner.network.state_dict().items()
        if not torch.equal(value, before[name])
    }
    statistics = {name for name in before if "running_" in name or "num_batches" in name}
    assert statistics
    assert all(name.startswith("encoder.") for name in statistics)
    assert not changed & statistics
    weights = {name for name, _ in learner.network.named_parameters()}
    assert len(changed & weights) > 0.9 * len(weights)
    free = make_learner()
    train(free, 1)
    assert any(
        not torch.equal(free.network.state_dict()[name], before[name]) for name in statistics
    )


def test_holes_are_left_out_of_a_masked_training():
    holed = batch(1)
    holed.depth_m[:, :, :8] = 0
    holed.valid[:, :, :8] = False
    loss = make_learner(masked=True).train_step(holed)["loss"]
    assert math.isfinite(float(loss))
    spoiled = batch(1)
    spoiled.depth_m[:, :, :8] = 7.7
    spoiled.valid[:, :, :8] = False
    other = make_learner(masked=True).train_step(spoiled)["loss"]
    assert float(other) == pytest.approx(float(loss), rel=1e-5)


def test_gradients_are_clipped_where_asked():
    free, clipped = make_learner(), make_learner(clip_gradient_norm=1e-9)
    before = [p.detach().clone() for p in clipped.network.parameters()]
    free.train_step(batch(1))
    clipped.train_step(batch(1))
    norm = math.sqrt(sum(float(p.grad.square().sum()) for p in clipped.network.parameters()))
    assert norm == pytest.approx(1e-9, rel=1e-2)
    assert before


@pytest.mark.parametrize(
    ("step", "schedule", "warmup", "expected"),
    [
        (0, "constant", 0, 1.0),
        (99, "constant", 0, 1.0),
        (0, "constant", 10, 0.1),
        (9, "constant", 10, 1.0),
        (0, "cosine", 0, 1.0),
        (50, "cosine", 0, 0.505),
        (100, "cosine", 0, 0.01),
    ],
)
def test_the_rate_follows_its_schedule(step, schedule, warmup, expected):
    assert rate_factor(step, 100, schedule, warmup, 0.01) == pytest.approx(expected)


def test_the_encoder_may_have_a_rate_of_its_own():
    learner = make_learner(encoder_rate_factor=0.1, learning_rate=1e-2)
    learner.train_step(batch(1))
    assert [g["lr"] for g in learner.optimiser.param_groups] == pytest.approx([1e-3, 1e-2])
