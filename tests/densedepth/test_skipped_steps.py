"""Steps whose loss or gradient is no number: nothing changes, and the samples are named."""

import copy
import math

import pytest
import torch

from densedepth import training
from densedepth.errors import NonFiniteError
from tests.densedepth.small_training import (
    DEVICES,
    afraid_of_white,
    batch,
    make_learner,
    spoilt,
    train,
)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_step_without_a_number_changes_nothing_and_names_the_sample(precision, device):
    learner = afraid_of_white(precision=precision, device=device, ema_decay=0.9, amsgrad=True)
    train(learner, 1)
    networks = (learner.network, learner.ema)
    before = [copy.deepcopy(network.state_dict()) for network in networks]
    moments = copy.deepcopy(learner.optimiser.state_dict()["state"])
    told = train(learner, 2, lambda epoch, sample: [spoilt(7)])
    (skipped,) = told["skipped"]
    assert (skipped.epoch, skipped.step, skipped.keys) == (1, 3, ("s7-1",))
    assert math.isnan(skipped.loss)
    assert (learner.num_skipped, learner.step) == (1, 4)
    for network, values in zip(networks, before, strict=True):
        for name, value in network.state_dict().items():
            if "num_batches" not in name:
                assert torch.equal(value, values[name]), name
    for number, state in learner.optimiser.state_dict()["state"].items():
        assert all(torch.equal(value, moments[number][name]) for name, value in state.items())


def test_training_goes_on_after_a_skipped_step_and_counts_it():
    learner = afraid_of_white()
    told = train(learner, 2, lambda epoch, sample: [batch(1), spoilt(2), batch(3)])
    assert [s.step for s in told["skipped"]] == [1, 4]
    assert all(math.isfinite(r.train_loss) for r in told["epochs"])
    assert told["steps"][-1].metrics["skipped_steps"] == 2
    assert math.isfinite(told["steps"][-1].metrics["loss"])


def test_steps_that_were_skipped_are_told_when_their_figures_have_arrived(monkeypatch):
    monkeypatch.setattr(training, "works_ahead", lambda device: True)
    learner = afraid_of_white()
    feed = [spoilt(i) if i in (2, 9, 11) else batch(i) for i in range(12)]
    told = train(learner, 1, lambda epoch, sample: feed)
    assert [(s.step, s.keys) for s in told["skipped"]] == [(i, (f"s{i}-1",)) for i in (2, 9, 11)]
    assert [s.metrics["skipped_steps"] for s in told["steps"]] == [2, 3]


def test_too_many_skipped_steps_end_the_training_with_the_samples_names():
    learner = afraid_of_white(max_skipped_steps=1)
    with pytest.raises(NonFiniteError, match=r"2 steps .* on s3-1; max_skipped_steps = 1"):
        train(learner, 1, lambda epoch, sample: [spoilt(2), spoilt(3)])


def test_an_estimate_that_overflows_spoils_no_statistics():
    learner = make_learner()
    learner.train_step(batch(1))
    before = [b.clone() for n, b in learner.network.named_buffers() if "running" in n]
    with torch.no_grad():
        next(learner.network.parameters()).mul_(math.inf)
    result = learner.train_step(batch(2))
    assert result.figures[-1] == 1
    after = [b for n, b in learner.network.named_buffers() if "running" in n]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_a_gradient_that_overflows_names_the_whole_batch_and_spoils_no_record():
    learner, calls = make_learner(), []

    def overflow(gradient: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        return gradient * math.inf if len(calls) == 2 else gradient

    learner.network.conv3.weight.register_hook(overflow)
    told = train(learner, 1)
    (skipped,) = told["skipped"]
    assert (skipped.step, skipped.keys) == (1, ("s1-0", "s1-1"))
    assert math.isfinite(skipped.loss)
    assert math.isfinite(told["steps"][0].metrics["gradient_norm"])
