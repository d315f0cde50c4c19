"""Figures of a split: however it is cut into batches, of measured pixels only, changing nothing."""

import copy
import dataclasses
import io

import numpy as np
import pytest
import torch

from densedepth.metric_table import MetricTable
from densedepth.metrics import image_metrics
from densedepth.validation import NO_VALIDATION, Validation, ValidationSplit, validate
from tests.densedepth.small_training import batch, make_learner, split_of, train


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
    expected = validate(make_learner(), split_of([whole]))
    assert validate(make_learner(), split_of(parts)) == pytest.approx(expected, rel=1e-4)


def test_what_was_not_measured_counts_nowhere():
    holed = batch(1)
    holed.valid[:, :, :8] = False
    other = copy.deepcopy(holed)
    other.depth_m[:, :, :8] = 9.0
    assert validate(make_learner(), split_of([other])) == validate(
        make_learner(), split_of([holed])
    )


def test_a_validation_in_the_middle_of_training_changes_nothing_of_the_network():
    learner = make_learner()
    learner.train_step(batch(1))
    before = copy.deepcopy(learner.network.state_dict())
    validate(learner, split_of([batch(2)]))
    for name, value in learner.network.state_dict().items():
        assert torch.equal(value, before[name]), name
    learner.train_step(batch(3))
    changed = learner.network.state_dict()
    statistics = [name for name in before if "running_mean" in name]
    assert all(not torch.equal(changed[name], before[name]) for name in statistics)


def test_the_moving_average_is_validated_where_there_is_one():
    averaged, plain = make_learner(ema_decay=0.5), make_learner()
    for learner in (averaged, plain):
        learner.train_step(batch(1))
    plain.network.load_state_dict(averaged.ema.state_dict())
    split = split_of([batch(2)])
    assert validate(averaged, split) == validate(plain, split)
    plain.network.load_state_dict(averaged.network.state_dict())
    assert validate(averaged, split) != validate(plain, split)


def test_without_a_split_there_are_no_figures():
    assert validate(make_learner(), NO_VALIDATION) == {}


def frame(number: int) -> tuple[str, object]:
    """A frame as a protocol scores it; of every third one nothing counts."""
    truth_m = np.full((4, 5), 1.0 + number, dtype=np.float32)
    valid = np.full((4, 5), number % 3 != 2)
    return f"f{number}", image_metrics(truth_m * np.float32(1.1 + number / 100), truth_m, valid)


def scored_split() -> ValidationSplit:
    """Seven samples in rounds of two, scored beside their losses."""

    def scored(first: int):
        yield from ([frame(n) for n in range(i, min(i + 2, 7))] for i in range(first, 7, 2))

    def batches(first: int):
        return [batch(40 + i, min(2, 7 - i)) for i in range(first, 7, 2)]

    return ValidationSplit(7, 2, batches, scored, lambda: MetricTable("whole_image"))


@pytest.mark.parametrize(
    "make_split", [lambda: split_of([batch(n, 1 + n % 2) for n in range(4)]), scored_split]
)
def test_a_validation_that_is_interrupted_after_any_round_has_the_same_figures(make_split):
    expected = validate(make_learner(), make_split())
    for interruptions in (1, 2, 3):
        learner, file = make_learner(), io.BytesIO()
        validation = Validation(learner, make_split())
        for i, num_done in enumerate(validation.rounds(), 1):
            if i in (1, interruptions):  # saved once more: what was noted does not count twice
                validation.note(num_done)
            if i == interruptions:
                torch.save(learner.state(), file)
                break
        file.seek(0)
        resumed = make_learner()
        resumed.load_state(torch.load(file, weights_only=True))
        rest = Validation(resumed, make_split())
        assert len(list(rest.rounds())) == 3 - interruptions
        assert rest.figures() == expected


def test_a_validation_that_is_interrupted_after_every_round_has_the_same_figures():
    expected, saved = validate(make_learner(), scored_split()), []
    learner = make_learner()
    for _ in range(3):
        validation = Validation(learner, scored_split())
        num_done = next(validation.rounds())
        validation.note(num_done)
        state = learner.state()
        saved.append((num_done, len(state["progress"]["found"]["losses"])))
        learner = make_learner()
        learner.load_state(state)
    assert saved == [(2, 1), (4, 2), (6, 3)]
    assert validate(learner, scored_split()) == expected


def test_a_rank_whose_frames_end_a_round_before_the_others_goes_through_the_last_one_too():
    """Three samples in rounds of two: what a second rank has of them is in the first round."""

    def scored(first: int):
        yield from ([frame(1)] for _ in range(first, 2, 2))

    split = ValidationSplit(
        3, 2, lambda first: [batch(1, 1)], scored, lambda: MetricTable("whole_image")
    )
    validation = Validation(make_learner(), split)
    assert list(validation.rounds()) == [2]
    assert validation.figures()["abs_rel"] == pytest.approx(0.11, rel=1e-5)


def test_a_protocols_figures_take_the_place_of_those_at_the_networks_size():
    found = validate(make_learner(), scored_split())
    ratios = [1.1 + n / 100 for n in range(7) if n % 3 != 2]
    assert found["abs_rel"] == pytest.approx(sum(ratios) / len(ratios) - 1, rel=1e-5)
    pairs = [batch(40 + i, min(2, 7 - i)) for i in range(0, 7, 2)]
    assert found["loss"] == validate(make_learner(), split_of(pairs))["loss"]


def test_a_training_that_is_interrupted_in_a_validation_does_not_begin_it_anew():
    split = split_of([batch(50 + n) for n in range(4)])
    expected = train(make_learner(), 2, val=split)
    assert expected["validated"] == [(n, 4) for n in (1, 2, 3)] * 2
    first, second = make_learner(), make_learner()
    (state,) = train(first, 2, val=split, save_at={None}, stop=True)["states"]
    assert (state["step"], state["epoch"], state["progress"]["validated"]) == (3, 0, 1)
    assert state["progress"]["seconds"] > 0
    second.load_state(state)
    told = train(second, 2, val=split)
    assert told["validated"] == [(n, 4) for n in (2, 3, 1, 2, 3)]
    for ours, theirs in zip(told["epochs"], expected["epochs"], strict=True):
        assert (ours.metrics, ours.train_loss) == (theirs.metrics, theirs.train_loss)
    assert second.state()["progress"]["found"] == {}
