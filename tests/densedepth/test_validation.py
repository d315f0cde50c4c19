"""Figures of a split: however it is cut into batches, of measured pixels only, changing nothing."""

import copy
import dataclasses

import pytest
import torch

from densedepth.validation import validate
from tests.densedepth.small_training import batch, make_learner


def test_a_splits_figures_do_not_depend_on_its_batches():
    whole = batch(1, 4)
    parts = [
        dataclasses.replace(
            whole,
            keys=whole.keys[part],
            **{n: getattr(whole, n)[part] for n in ("image", "depth_m", "valid", "sample_seeds")},
        )
        for part in (slice(0, 3), slice(3, 4))
    ]
    expected = validate(make_learner(), [whole])
    assert validate(make_learner(), parts) == pytest.approx(expected, rel=1e-4)


def test_what_was_not_measured_counts_nowhere():
    holed = batch(1)
    holed.valid[:, :, :8] = False
    other = copy.deepcopy(holed)
    other.depth_m[:, :, :8] = 9.0
    assert validate(make_learner(), [other]) == validate(make_learner(), [holed])


def test_a_validation_in_the_middle_of_training_changes_nothing_of_the_network():
    learner = make_learner()
    learner.train_step(batch(1))
    before = copy.deepcopy(learner.network.state_dict())
    validate(learner, [batch(2)])
    for name, value in learner.network.state_dict().items():
        assert torch.equal(value, before[name]), name
    learner.train_step(batch(3))
    changed = learner.network.state_dict()
    statistics = [name for name in before if "running_mean" in name]
    assert all(not torch.equal(changed[name], before[name]) for name in statistics)
