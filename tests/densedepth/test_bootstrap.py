"""Confidence intervals over images."""

import numpy as np
import pytest

from densedepth.bootstrap import bootstrap_interval, resample_means


def test_the_interval_is_that_of_the_normal_law_for_many_images():
    values = np.random.default_rng(1).normal(5.0, 2.0, 800)
    interval = bootstrap_interval(values, num_resamples=2000)
    half_width = 1.96 * values.std(ddof=1) / np.sqrt(800)
    assert interval.low == pytest.approx(values.mean() - half_width, abs=0.1 * half_width)
    assert interval.high == pytest.approx(values.mean() + half_width, abs=0.1 * half_width)


def test_nineteen_of_twenty_intervals_hold_the_true_mean():
    rng = np.random.default_rng(2)
    hits = 0
    for trial in range(100):
        interval = bootstrap_interval(rng.normal(0.0, 1.0, 60), num_resamples=100, seed=trial)
        hits += interval.low <= 0.0 <= interval.high
    assert 88 <= hits <= 99


def test_the_same_seed_gives_the_same_interval_and_another_seed_another():
    values = np.random.default_rng(3).random(50)
    assert bootstrap_interval(values, 100, seed=4) == bootstrap_interval(values, 100, seed=4)
    assert bootstrap_interval(values, 100, seed=4) != bootstrap_interval(values, 100, seed=5)


def test_every_draw_holds_whole_images():
    means = resample_means(np.eye(4), 50, seed=0)
    np.testing.assert_allclose(means.sum(axis=1), 1.0)
    np.testing.assert_allclose(means * 4, np.round(means * 4))


def test_equal_values_have_an_interval_without_width():
    interval = bootstrap_interval(np.full(10, 0.125))
    assert (interval.low, interval.high, interval.level) == (0.125, 0.125, 0.95)


def test_a_higher_level_is_wider():
    values = np.random.default_rng(6).random(40)
    narrow, wide = (bootstrap_interval(values, level=level) for level in (0.5, 0.99))
    assert wide.low < narrow.low < narrow.high < wide.high


def test_a_paired_difference_is_narrower_than_either_model():
    rng = np.random.default_rng(7)
    difficulty = rng.random(100)
    first, second = difficulty + 0.01, difficulty + rng.normal(0.0, 0.01, 100)
    paired, alone = bootstrap_interval(first - second), bootstrap_interval(first)
    assert (paired.high - paired.low) < 0.2 * (alone.high - alone.low)


@pytest.mark.parametrize("values", [[], [1.0, np.nan]])
def test_values_without_a_mean_are_refused(values):
    with pytest.raises(ValueError, match="finite values"):
        bootstrap_interval(np.array(values))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"level": 1.0}, "level must lie between"), ({"num_resamples": 0}, "num_resamples must be 1")],
)
def test_nonsense_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        bootstrap_interval(np.ones(3), **arguments)
