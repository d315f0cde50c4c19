"""The metrics of one image."""

import subprocess
import sys

import jaxtyping
import numpy as np
import pytest

from densedepth.metrics import METRIC_NAMES, SUM_NAMES, image_metrics
from tests.densedepth.reference_metrics import (
    image_reference,
    make_pair,
    metrics_of_pairs,
    pixel_pairs,
)


def row(*values, dtype=np.float64):
    return np.array([values], dtype=dtype)


def score(pred, gt, dtype=np.float64):
    """Score single rows of which every pixel is valid."""
    pred_m, gt_m = row(*pred, dtype=dtype), row(*gt, dtype=dtype)
    return image_metrics(pred_m, gt_m, np.ones(gt_m.shape, bool))


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 1e-6), (np.float64, 1e-12)])
@pytest.mark.parametrize("share_valid", [1.1, 0.8, 0.05])
def test_every_metric_equals_the_pixel_by_pixel_definition(dtype, tolerance, share_valid):
    pred, gt, valid = make_pair(1, 40, 50, dtype, share_valid)
    ours = image_metrics(pred, gt, valid)
    assert ours.as_dict() == pytest.approx(image_reference(pred, gt, valid), rel=tolerance)
    assert ours.num_pixels == valid.sum()


def test_an_image_of_several_blocks_equals_the_definition():
    pred, gt, valid = make_pair(2, 220, 400)
    assert valid.sum() > 65_536
    ours = image_metrics(pred, gt, valid)
    assert ours.as_dict() == pytest.approx(image_reference(pred, gt, valid), rel=1e-6)


def test_attributes_and_dictionary_are_the_same_numbers():
    ours = image_metrics(*make_pair(3))
    assert tuple(ours.as_dict()) == METRIC_NAMES
    assert [getattr(ours, name) for name in METRIC_NAMES] == list(ours.as_dict().values())


def test_relative_error_divides_by_the_ground_truth_and_not_by_the_prediction():
    """DenseDepth's current script passes (prediction, ground truth) the other way round."""
    ours = score(pred=[1.0, 4.0], gt=[2.0, 5.0])
    assert ours.abs_rel == pytest.approx((1 / 2 + 1 / 5) / 2)
    assert ours.sq_rel == pytest.approx((1 / 2 + 1 / 5) / 2)
    swapped = score(pred=[2.0, 5.0], gt=[1.0, 4.0])
    assert swapped.abs_rel == pytest.approx((1 / 1 + 1 / 4) / 2)
    for same in ("rmse", "rmse_log", "log10", "silog", "delta1", "delta2", "delta3"):
        assert getattr(swapped, same) == pytest.approx(getattr(ours, same))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("near", "far", "deltas"),
    [
        (1.0, 1.25, (0, 1, 1)),
        (4.0, 5.0, (0, 1, 1)),
        (1.0, 1.5625, (0, 0, 1)),
        (1.0, 1.953125, (0, 0, 0)),
        (1.0, 1.2499, (1, 1, 1)),
        (1.0, 1.5624, (0, 1, 1)),
        (1.0, 1.9531, (0, 0, 1)),
    ],
)
def test_a_ratio_equal_to_the_threshold_does_not_count_on_either_side(near, far, deltas, dtype):
    for pred, gt in ((near, far), (far, near)):
        ours = score([pred], [gt], dtype)
        assert (ours.delta1, ours.delta2, ours.delta3) == deltas


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("unit", [0.001, 10 / 255, 1 / 256])
def test_quantised_depth_on_the_threshold_counts_as_the_definition_says(unit, dtype):
    """Steps of a PNG make ratios of exactly 5/4 common, so rounding there must not decide."""
    steps = np.arange(4, 2000, 4)
    near = (steps * unit).astype(dtype)
    far = (steps * 5 / 4 * unit).astype(dtype)
    ratio = np.maximum(far / near, near / far)
    expected = float((ratio < dtype(1.25)).mean())
    assert score(near, far, dtype).delta1 == pytest.approx(expected, abs=1e-12)


def test_silog_is_blind_to_scale_and_its_radicand_never_negative():
    rng = np.random.default_rng(0)
    for factor in rng.uniform(0.1, 10.0, 200):
        gt = rng.uniform(0.5, 80.0, 7)
        assert 0.0 <= score(gt * factor, gt).silog < 1e-4


def test_a_perfect_prediction_has_no_error():
    gt = np.random.default_rng(0).uniform(0.1, 80.0, 100)
    expected = dict.fromkeys(METRIC_NAMES, 0.0) | {"delta1": 1.0, "delta2": 1.0, "delta3": 1.0}
    assert score(gt, gt, np.float32).as_dict() == expected


def test_an_empty_mask_gives_empty_metrics_and_never_nan():
    pred, gt, valid = make_pair(4)
    ours = image_metrics(pred, gt, np.zeros_like(valid), range_edges_m=(0.0, 5.0, 10.0))
    assert ours.is_empty
    assert ours.sums == (0.0,) * len(SUM_NAMES)
    with pytest.raises(ValueError, match="rmse of an image without a valid pixel"):
        _ = ours.rmse
    with pytest.raises(ValueError, match="check is_empty"):
        ours.as_dict()


def test_invalid_pixels_may_hold_anything():
    pred, gt, valid = make_pair(5)
    clean = image_metrics(pred, gt, valid)
    gt[~valid] = 0.0
    pred[~valid] = np.nan
    assert image_metrics(pred, gt, valid) == clean


@pytest.mark.parametrize("bad", [0.0, -1.0, np.nan, np.inf])
@pytest.mark.parametrize("which", ["prediction", "ground truth"])
@pytest.mark.parametrize("edges", [(), (0.0, 5.0, 10.0)])
def test_a_valid_pixel_that_is_no_depth_is_refused_by_place(bad, which, edges):
    pred, gt, valid = make_pair(6)
    valid[3, 4] = True
    (pred if which == "prediction" else gt)[3, 4] = bad
    with pytest.raises(ValueError, match=rf"{which} is not positive .* at 1 of .*row 3, column 4"):
        image_metrics(pred, gt, valid, range_edges_m=edges)


def test_two_negative_depths_do_not_pass_as_a_positive_ratio():
    with pytest.raises(ValueError, match="ground truth is not positive"):
        score([-2.0], [-2.0])


def test_maps_of_different_size_are_refused_with_both_sizes():
    pred, gt, valid = make_pair(7)
    with pytest.raises(ValueError, match="prediction is 6x8, ground truth is 12x17"):
        image_metrics(pred[:6, :8], gt, valid)
    with pytest.raises(ValueError, match=r"valid is \(1, 17\)"):
        image_metrics(pred, gt, valid[:1])


def test_a_stack_of_maps_is_refused_by_the_shape_check():
    pred, gt, valid = make_pair(8)
    with pytest.raises(jaxtyping.TypeCheckError):
        image_metrics(pred[None], gt[None], valid[None])


def test_depth_ranges_equal_the_definition_on_their_pixels():
    edges = (1.0, 2.0, 4.0, 8.0)
    pred, gt, valid = make_pair(9, 40, 50, np.float64)
    ours = image_metrics(pred, gt, valid, range_edges_m=edges)
    assert ours.as_dict() == pytest.approx(image_reference(pred, gt, valid), rel=1e-12)
    for lower_m, upper_m, sums in zip(edges, edges[1:], ours.range_sums, strict=False):
        pairs = [(q, d) for q, d in pixel_pairs(pred, gt, valid) if lower_m <= d < upper_m]
        assert sums[0] == len(pairs)
        expected = metrics_of_pairs(pairs)
        by_name = dict(zip(SUM_NAMES, sums, strict=True))
        assert by_name["abs_rel"] / sums[0] == pytest.approx(expected["abs_rel"])
        assert by_name["within_1"] / sums[0] == pytest.approx(expected["delta1"])


def test_a_depth_on_a_limit_belongs_to_the_upper_range_and_the_last_limit_is_included():
    gt = row(0.5, 1.0, 2.0, 3.0)
    ours = image_metrics(gt, gt, np.ones(gt.shape, bool), range_edges_m=(0.0, 1.0, 2.0))
    assert [sums[0] for sums in ours.range_sums] == [1.0, 2.0]
    assert ours.num_pixels == 4


@pytest.mark.parametrize("edges", [(1.0,), (0.0, 2.0, 2.0), (3.0, 1.0)])
def test_limits_that_do_not_rise_are_refused(edges):
    with pytest.raises(ValueError, match="rising"):
        image_metrics(*make_pair(10), range_edges_m=edges)


def test_the_inputs_stay_as_they_are():
    pred, gt, valid = make_pair(11, share_valid=1.1)
    before = pred.copy(), gt.copy(), valid.copy()
    image_metrics(pred, gt, valid, range_edges_m=(0.0, 5.0, 10.0))
    for array, copy in zip((pred, gt, valid), before, strict=True):
        np.testing.assert_array_equal(array, copy)


def test_scoring_needs_no_torch():
    code = "import sys, densedepth.constant_baseline; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
