"""The depth range and the inverse-depth target."""

import math
import pickle

import pytest
import torch

from densedepth.depth_range import KITTI, NYU, DepthRange


def test_the_target_is_the_far_end_over_the_depth():
    depth_m = torch.tensor([0.1, 0.5, 2.0, 4.0, 10.0])
    expected = torch.tensor([100.0, 20.0, 5.0, 2.5, 1.0])
    torch.testing.assert_close(NYU.to_target(depth_m), expected)


def test_nyu_is_the_papers_formula_in_centimetres():
    depth_m = torch.linspace(0.1, 10, 50)
    torch.testing.assert_close(NYU.to_target(depth_m), 1000 / (depth_m * 100))
    assert NYU.max_target == pytest.approx(1000 / 10)


def test_kitti_reaches_from_1_to_80_metres():
    assert KITTI.max_target == 80.0
    torch.testing.assert_close(
        KITTI.to_target(torch.tensor([1.0, 80.0])), torch.tensor([80.0, 1.0])
    )


def test_depths_outside_the_range_are_clamped_to_its_ends():
    target = NYU.to_target(torch.tensor([0.05, 25.0]))
    torch.testing.assert_close(target, torch.tensor([100.0, 1.0]))


def test_holes_become_zero():
    holes_m = torch.tensor([0.0, -0.0, -3.0, math.nan, math.inf, -math.inf])
    assert NYU.to_target(holes_m).tolist() == [0.0] * 6


def test_metres_survive_the_round_trip():
    depth_m = torch.linspace(0.1, 10, 1000)
    torch.testing.assert_close(NYU.to_depth_m(NYU.to_target(depth_m)), depth_m, rtol=1e-6, atol=0)


@pytest.mark.parametrize("output", [-1e30, -5.0, -1e-9, 0.0, 0.5, 1.0])
def test_an_output_below_the_targets_least_value_is_far_never_near(output):
    assert NYU.to_depth_m(torch.tensor([output])).item() == 10.0


@pytest.mark.parametrize("output", [100.0, 101.0, 1e30, math.inf])
def test_an_output_above_the_targets_largest_value_is_the_near_end(output):
    assert NYU.to_depth_m(torch.tensor([output])).item() == pytest.approx(0.1)


def test_metres_never_leave_the_range():
    for depth_range in (NYU, KITTI, DepthRange(0.3, 7.7)):
        depth_m = depth_range.to_depth_m(torch.linspace(-10, 1.5 * depth_range.max_target, 4001))
        low, high = torch.tensor([depth_range.min_m, depth_range.max_m])
        assert depth_m.min() >= low
        assert depth_m.max() <= high


def test_a_broken_network_is_not_hidden():
    assert NYU.to_depth_m(torch.tensor([math.nan])).isnan().all()


def test_the_gradient_is_finite_where_nothing_was_measured():
    depth_m = torch.tensor([0.0, 2.0, math.nan], requires_grad=True)
    NYU.to_target(depth_m).sum().backward()
    torch.testing.assert_close(depth_m.grad, torch.tensor([0.0, -10.0 / 4, 0.0]))


@pytest.mark.parametrize(
    ("min_m", "max_m"), [(0.0, 10.0), (-1.0, 10.0), (10.0, 10.0), (5.0, 1.0), (1.0, math.inf)]
)
def test_an_impossible_range_is_refused_with_its_values(min_m, max_m):
    with pytest.raises(ValueError, match=f"{min_m} to {max_m} metres"):
        DepthRange(min_m, max_m)


def test_a_range_with_nan_is_refused():
    with pytest.raises(ValueError, match="0 < min_m < max_m"):
        DepthRange(math.nan, 1.0)


def test_a_range_is_a_value():
    assert pickle.loads(pickle.dumps(NYU)) == DepthRange(0.1, 10.0)
    with pytest.raises(AttributeError):
        NYU.min_m = 1.0
