"""One training step: what its settings change, and what it leaves alone."""

import copy
import dataclasses
import math
from typing import Any

import pytest
import torch

from densedepth.augment import draw_decisions
from densedepth.data.batch import Batch
from densedepth.distortion import Distortion
from tests.densedepth.small_training import RANGE, batch, make_learner, train


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
    loss = make_learner(masked=True).train_step(holed).figures[0]
    assert math.isfinite(float(loss))
    spoiled = batch(1)
    spoiled.depth_m[:, :, :8] = 7.7
    spoiled.valid[:, :, :8] = False
    other = make_learner(masked=True).train_step(spoiled).figures[0]
    assert float(other) == pytest.approx(float(loss), rel=1e-5)
    filled = dataclasses.replace(spoiled, valid=torch.ones_like(spoiled.valid))
    unmasked = [make_learner().train_step(b).figures[0] for b in (spoiled, filled)]
    assert unmasked[0] == unmasked[1] != other


def test_gradients_are_clipped_where_asked():
    free, clipped = make_learner(), make_learner(clip_gradient_norm=1e-9)
    before = [p.detach().clone() for p in clipped.network.parameters()]
    free.train_step(batch(1))
    clipped.train_step(batch(1))
    norm = math.sqrt(sum(float(p.grad.square().sum()) for p in clipped.network.parameters()))
    assert norm == pytest.approx(1e-9, rel=1e-2)
    assert before


def test_the_encoder_may_have_a_rate_of_its_own():
    learner = make_learner(encoder_rate_factor=0.1, learning_rate=1e-2)
    learner.train_step(batch(1))
    assert [g["lr"] for g in learner.optimiser.param_groups] == pytest.approx([1e-3, 1e-2])


def test_micro_batches_sum_to_the_gradient_of_the_whole_batch():
    """Batch norms apart, which see a micro-batch at a time: here they keep their statistics."""
    learners = [make_learner(freeze_encoder_norm=True, micro_batch_size=n) for n in (None, 2)]
    whole, parts = (learner.train_step(batch(1, 5)).figures for learner in learners)
    torch.testing.assert_close(parts, whole, rtol=1e-4, atol=1e-5)
    pairs = zip(*(learner.network.parameters() for learner in learners), strict=True)
    for a, b in pairs:
        torch.testing.assert_close(b.grad, a.grad, rtol=1e-3, atol=1e-4)


def test_a_snapshot_stays_as_it_was_while_training_goes_on():
    learner = make_learner(ema_decay=0.9)
    train(learner, 1)
    expected, snapshot = copy.deepcopy(learner.state()), learner.snapshot()
    train(learner, 2)
    assert not torch.equal(snapshot["network"]["conv3.bias"], learner.network.conv3.bias)
    assert snapshot["progress"] == expected["progress"]
    for part in ("network", "ema"):
        assert all(torch.equal(snapshot[part][n], value) for n, value in expected[part].items())
    for number, moments in expected["optimiser"]["state"].items():
        found = snapshot["optimiser"]["state"][number]
        assert all(torch.equal(found[name], value) for name, value in moments.items())


def test_the_moving_average_is_the_formula_by_hand():
    """Its decay begins low: (1 + step) / (10 + step), as TensorFlow's."""
    learner = make_learner(ema_decay=0.25)
    expected = learner.network.conv3.weight.detach().clone()
    for step, decay in ((1, 2 / 11), (2, 0.25), (3, 0.25)):
        learner.train_step(batch(step))
        expected += (1 - decay) * (learner.network.conv3.weight.detach() - expected)
        torch.testing.assert_close(learner.ema.conv3.weight, expected, rtol=1e-5, atol=1e-8)


def test_steps_are_those_of_torchs_own_adam_with_the_same_options():
    options = {"betas": (0.6, 0.7), "amsgrad": True, "weight_decay": 0.1}
    learner = make_learner(schedule="step", learning_rate=1e-2, **options)
    name = "conv3.weight"
    weight = learner.network.get_parameter(name).detach().clone().requires_grad_()
    peer = torch.optim.AdamW([weight], lr=1e-2, **options)
    for step in range(6):
        learner.train_step(batch(step))
        weight.grad = learner.network.get_parameter(name).grad.clone()
        peer.param_groups[0]["lr"] = 1e-2 * 0.1 ** (step // 4)
        peer.step()
        torch.testing.assert_close(learner.network.get_parameter(name).detach(), weight.detach())


def test_a_restart_remembers_skipped_steps_and_the_scale_of_fp16():
    learner = make_learner(precision="fp16")
    learner.num_skipped = 3
    learner.train_step(batch(1))
    learner._scaler.update(1.5)
    again = make_learner(precision="fp16")
    again.load_state(copy.deepcopy(learner.state()))
    assert again.num_skipped == 3
    assert again.state()["scaler"]["scale"] < 2
    assert again.state()["scaler"] == learner.state()["scaler"]


def test_fp16_may_skip_while_it_looks_for_its_scale_and_not_when_that_is_below_one():
    learner = make_learner(precision="fp16")
    learner.train_step(batch(1))
    assert not learner.counts_as_skipped(0.5)
    assert learner.counts_as_skipped(math.nan)
    learner._scaler.update(0.5)
    assert learner.counts_as_skipped(0.5)
    assert make_learner().counts_as_skipped(0.5)


MIRRORED = {"flip_probability": 1.0}
RECOLOURED = {"channel_swap_probability": 1.0}
DISTORTED = {"distortion": Distortion(zoom_max=2.0, rotation_deg=10.0, colour_jitter=0.2)}


def changed_by_hand(plain: Batch, settings: dict[str, Any]) -> list[torch.Tensor]:
    """Colours, metres and mask that a step with these settings trains on."""
    image, depth_m, valid = plain.image, plain.depth_m, plain.valid
    if settings is MIRRORED:
        image, depth_m, valid = (part.flip(-1) for part in (image, depth_m, valid))
    if settings is RECOLOURED:
        _, channels = draw_decisions(plain.sample_seeds, channel_swap_probability=1.0)
        image = torch.stack([one[order] for one, order in zip(image, channels, strict=True)])
    distortion = settings.get("distortion", Distortion())
    return list(distortion.apply(image / 255, depth_m, valid, plain.sample_seeds))


@pytest.mark.parametrize("settings", [MIRRORED, RECOLOURED, DISTORTED])
def test_a_step_trains_on_what_its_settings_make_of_the_batch(settings):
    plain = batch(1, 3)
    plain.image[:, 1, :, :20] //= 2
    plain.depth_m[..., :16] += 2
    plain.valid[:, :, :4] = False
    as_it_is = {"flip_probability": 0.0, "channel_swap_probability": 0.0, "masked": True}
    learner, seen = make_learner(**{**as_it_is, **settings}), []
    learner.network.register_forward_pre_hook(lambda network, given: seen.append(given[0]))
    learner.loss.register_forward_pre_hook(lambda loss, given: seen.extend(given[1:]))
    learner.train_step(plain)
    colours, depth_m, valid = changed_by_hand(plain, settings)
    for found, expected in zip(seen, [colours, RANGE.to_target(depth_m), valid], strict=True):
        assert torch.equal(found, expected)
    assert not torch.equal(colours, plain.image / 255)
