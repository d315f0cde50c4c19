"""What a protocol does to a prediction and its ground truth: mask, crop, scale, clamp, score."""

import dataclasses

import numpy as np
import pytest

from densedepth.protocol import median_scale
from densedepth.protocols import PROTOCOLS, get_protocol, whole_image
from tests.densedepth.reference_metrics import image_reference, make_pair

SIZES = {"nyu": (48, 64), "kitti": (375, 1242), "whole": (20, 30)}


def maps_for(protocol, seed=0, dtype=np.float32):
    """A prediction and ground truth of a size and range that suit a protocol."""
    size = SIZES[protocol.name.split("_")[0]]
    pred, gt, measured = make_pair(seed, *size, dtype, max_m=protocol.max_m)
    if protocol.masks_invalid:
        gt[~measured] = 0.0
    return pred, gt


def test_cropping_first_and_scoring_the_crop_is_the_benchmark_variant():
    """AdaBins loads ground truth already cut to 352x1216: the figures must be the same."""
    protocol = get_protocol("kitti_eigen_garg_kb")
    pred, gt = maps_for(protocol)
    cut = np.s_[23:375, 13:1229]
    assert protocol.evaluate(pred, gt) == protocol.evaluate(pred[cut], gt[cut])
    other = get_protocol("kitti_eigen_garg")
    assert other.evaluate(pred, gt) != other.evaluate(pred[cut], gt[cut])


def test_a_map_smaller_than_the_benchmark_crop_is_sent_to_another_protocol():
    gt = np.ones((96, 320), np.float32)
    with pytest.raises(ValueError, match="does not fit a 96x320 map; use kitti_eigen_garg"):
        get_protocol("kitti_eigen_garg_kb").evaluate(gt, gt)


@pytest.mark.parametrize(
    ("bounds", "expected"),
    [
        ("strict", [False, False, True, False, False, False, False]),
        ("inclusive", [False, True, True, True, False, False, False]),
        ("positive", [True, True, True, True, True, False, False]),
        ("none", [True] * 7),
    ],
)
def test_which_ground_truth_pixels_count(bounds, expected):
    protocol = dataclasses.replace(whole_image(1.0, 10.0), bounds=bounds)
    gt = np.array([[0.5, 1.0, 5.0, 10.0, 10.5, np.inf, np.nan]], np.float32)
    assert protocol.valid_mask(gt).tolist() == [expected]


def test_a_hole_never_counts_where_holes_are_masked():
    gt = np.zeros((48, 64), np.float32)
    for protocol in PROTOCOLS.values():
        if protocol.masks_invalid and protocol.crop_on == "full":
            assert not protocol.valid_mask(gt).any()


def test_the_80_m_cap_holds_on_the_eigen_split_and_not_on_the_benchmark():
    gt = np.full((375, 1242), 100.0, np.float32)
    assert get_protocol("kitti_raw_lidar").evaluate(gt, gt).is_empty
    benchmark = get_protocol("kitti_benchmark").evaluate(gt, gt)
    assert benchmark.num_pixels == gt.size
    assert benchmark.rmse == pytest.approx(20.0)


@pytest.mark.parametrize("protocol", PROTOCOLS.values(), ids=list(PROTOCOLS))
def test_a_score_equals_the_definition_on_the_mask_of_the_full_map(protocol):
    pred, gt = maps_for(protocol)
    if gt.size > 10_000:
        keep = np.random.default_rng(1).random(gt.shape) < 0.01
        gt = np.where(keep, gt, 0.0).astype(np.float32)
    ours = protocol.evaluate(pred, gt)
    clamped = np.clip(pred, protocol.min_m, protocol.max_m)
    expected = image_reference(clamped, gt, protocol.valid_mask(gt))
    assert ours.as_dict() == pytest.approx(expected, rel=1e-5)
    assert sum(sums[0] for sums in ours.range_sums) == ours.num_pixels


@pytest.mark.parametrize("protocol", PROTOCOLS.values(), ids=list(PROTOCOLS))
def test_prepared_maps_are_the_scored_box(protocol):
    pred, gt = maps_for(protocol)
    top, bottom, left, right = protocol.crop_box(*gt.shape)
    prepared_pred, prepared_gt, valid = protocol.prepare(pred, gt)
    assert prepared_pred.shape == prepared_gt.shape == valid.shape == (bottom - top, right - left)
    np.testing.assert_array_equal(valid, protocol.valid_mask(gt)[top:bottom, left:right])
    assert protocol.valid_mask(gt).sum() == valid.sum()


def test_a_prediction_is_clamped_and_an_infinite_one_is_the_maximum():
    protocol = whole_image(1.0, 10.0)
    pred = np.array([[-5.0, 0.0, 0.5, 3.0, 50.0, np.inf]], np.float32)
    prepared, _, _ = protocol.prepare(pred, np.full((1, 6), 2.0, np.float32))
    assert prepared.tolist() == [[1.0, 1.0, 1.0, 3.0, 10.0, 10.0]]
    assert pred[0, 0] == -5.0


def test_nan_in_a_prediction_is_refused_and_not_scored_as_the_minimum():
    protocol = get_protocol("nyu_densedepth")
    pred, gt = maps_for(protocol)
    pred[20, 20] = np.nan
    with pytest.raises(ValueError, match=r"nyu_densedepth: prediction is not .* at 1 of"):
        protocol.evaluate(pred, gt)


def test_nan_outside_the_crop_does_not_matter():
    protocol = get_protocol("nyu_densedepth")
    pred, gt = maps_for(protocol)
    expected = protocol.evaluate(pred, gt)
    pred[0, 0] = np.nan
    assert protocol.evaluate(pred, gt) == expected


def test_ground_truth_with_holes_is_refused_where_it_must_be_dense():
    protocol = get_protocol("nyu_densedepth")
    pred, gt = maps_for(protocol)
    gt[10, 10] = 0.0
    with pytest.raises(ValueError, match="must be the in-painted, dense field `depths`"):
        protocol.evaluate(pred, gt)


def test_an_image_without_ground_truth_is_empty():
    protocol = get_protocol("kitti_eigen_garg")
    gt = np.zeros((375, 1242), np.float32)
    assert protocol.evaluate(np.ones_like(gt), gt).is_empty
    assert protocol.with_median_scaling().evaluate(np.ones_like(gt), gt).is_empty


def test_a_prediction_of_another_size_is_refused_with_both_sizes():
    gt = np.ones((48, 64), np.float32)
    with pytest.raises(ValueError, match="prediction is 24x32, ground truth is 48x64"):
        get_protocol("nyu_eigen").evaluate(gt[:24, :32], gt)


def test_median_scaling_makes_the_score_blind_to_scale():
    protocol = get_protocol("kitti_raw_lidar").with_median_scaling()
    pred, gt = maps_for(protocol, dtype=np.float64)
    ours = protocol.evaluate(pred / 31.0, gt)
    assert ours.as_dict() == pytest.approx(protocol.evaluate(pred, gt).as_dict(), rel=1e-9)
    assert ours.as_dict() != get_protocol("kitti_raw_lidar").evaluate(pred, gt).as_dict()


def test_medians_are_of_the_valid_pixels_before_the_clamp():
    protocol = whole_image(1.0, 10.0).with_median_scaling()
    gt = np.array([[0.0, 4.0, 6.0, 8.0]], np.float32)
    pred = np.array([[500.0, 0.2, 0.3, 0.9]], np.float32)
    prepared, prepared_gt, valid = protocol.prepare(pred, gt)
    assert median_scale(pred, prepared_gt, valid) == pytest.approx(20.0)
    assert prepared.tolist()[0][1:] == pytest.approx([4.0, 6.0, 10.0])


@pytest.mark.parametrize("value", [0.0, -1.0, np.nan, np.inf])
def test_a_prediction_without_a_median_scale_is_refused(value):
    gt = np.full((4, 4), 2.0)
    with pytest.raises(ValueError, match="no median scale exists"):
        whole_image().with_median_scaling().evaluate(np.full((4, 4), value), gt)


def test_a_table_of_a_protocol_collects_its_scores():
    protocol = get_protocol("nyu_eigen")
    table = protocol.new_table()
    table.update("a", protocol.evaluate(*maps_for(protocol)))
    assert table.compute().protocol == "nyu_eigen"
    assert len(table.compute().by_range) == 5


def test_the_scale_that_medians_give_is_told():
    gt = np.full((376, 1242), 10.0)
    gt[:, :600] = 0.0
    pred = np.full(gt.shape, 4.0)
    assert get_protocol("kitti_raw_lidar").scale(pred, gt) is None
    assert get_protocol("kitti_raw_lidar-median").scale(pred, gt) == pytest.approx(2.5)
    assert get_protocol("kitti_raw_lidar-median").scale(pred, np.zeros_like(gt)) is None
