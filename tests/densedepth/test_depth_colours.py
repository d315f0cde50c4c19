"""Depth in colour: what is near is bright, what is unknown is grey."""

import numpy as np
import pytest
from jaxtyping import TypeCheckError

from densedepth.depth_colours import (
    ERROR_LIMIT,
    HOLE,
    colorize_depth,
    colorize_error,
    shown_range_m,
)


def luminance(colours: np.ndarray) -> np.ndarray:
    return colours.astype(float) @ [0.2126, 0.7152, 0.0722]


def test_depth_gets_darker_with_distance() -> None:
    colours = colorize_depth(np.linspace(1, 10, 200)[None], 1.0, 10.0)
    steps = np.diff(luminance(colours[0]))
    assert (steps <= 1.0).all()
    assert luminance(colours[0, 0]) > 200
    assert luminance(colours[0, -1]) < 60


def test_equal_ratios_get_equal_steps() -> None:
    colours = colorize_depth(np.array([[1.0, 2.0, 4.0, 8.0]]), 1.0, 8.0)
    thirds = colorize_depth(10 ** np.linspace(0, 1, 4)[None], 1.0, 10.0)
    np.testing.assert_array_equal(colours, thirds)


def test_depth_beyond_the_range_takes_the_last_colour() -> None:
    colours = colorize_depth(np.array([[0.5, 1.0, 10.0, 99.0]]), 1.0, 10.0)
    np.testing.assert_array_equal(colours[0, 0], colours[0, 1])
    np.testing.assert_array_equal(colours[0, 2], colours[0, 3])


def test_holes_are_grey_and_nothing_else_is() -> None:
    depth_m = np.array([[0.0, np.nan, np.inf, -1.0, 2.0]])
    colours = colorize_depth(depth_m, 1.0, 10.0)
    assert [tuple(c) == HOLE for c in colours[0].tolist()] == [True, True, True, True, False]
    ramp = colorize_depth(np.linspace(1, 10, 500)[None], 1.0, 10.0)
    assert np.abs(ramp[0].astype(int) - HOLE).sum(1).min() > 30


@pytest.mark.parametrize(("low", "high"), [(5.0, 2.0), (0.0, 3.0), (-1.0, 3.0), (2.0, 2.0)])
def test_a_range_upside_down_is_refused(low: float, high: float) -> None:
    with pytest.raises(ValueError, match=f"min_m={low}, max_m={high}"):
        colorize_depth(np.ones((2, 2)), low, high)


def test_errors_are_blue_for_too_near_white_for_right_red_for_too_far() -> None:
    near, right, far, hole = colorize_error(np.array([[-0.4, 0.0, 0.4, np.nan]]))[0].tolist()
    assert near[2] > near[0] + 50
    assert far[0] > far[2] + 50
    assert min(right) > 240
    assert tuple(hole) == HOLE
    ends = colorize_error(np.array([[-ERROR_LIMIT, -9.0, ERROR_LIMIT, 9.0]]))[0]
    np.testing.assert_array_equal(ends[::2], ends[1::2])


def test_a_wrong_shape_is_refused() -> None:
    with pytest.raises(TypeCheckError):
        colorize_depth(np.ones((2, 2, 3)), 1.0, 2.0)


def test_the_shown_range_leaves_out_the_farthest_and_the_nearest() -> None:
    depth_m = np.linspace(2.0, 4.0, 201)[None]
    depth_m[0, :2] = 0.0, np.inf  # no measurements
    low_m, high_m = shown_range_m([depth_m, np.zeros((1, 5))])
    measured = np.sort(depth_m[0, 2:])
    assert (measured < low_m).sum() == (measured > high_m).sum() == 2
    assert shown_range_m([np.full((2, 2), 3.0)]) == (3.0, pytest.approx(3.3))
    assert shown_range_m([np.zeros((2, 2))]) == (1.0, 10.0)
