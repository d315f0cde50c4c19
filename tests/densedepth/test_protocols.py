"""The evaluation protocols and what they do to a prediction."""

import dataclasses
import json
import pickle

import numpy as np
import pytest

from densedepth.protocol import median_scale
from densedepth.protocols import PROTOCOLS, Protocol, get_protocol, whole_image
from tests.densedepth.reference_metrics import image_reference, make_pair

SIZES = {"nyu": (48, 64), "kitti": (375, 1242), "whole": (20, 30)}


def maps_for(protocol, seed=0, dtype=np.float32):
    """A prediction and ground truth of a size and range that suit a protocol."""
    size = SIZES[protocol.name.split("_")[0]]
    pred, gt, measured = make_pair(seed, *size, dtype, max_m=protocol.max_m)
    if protocol.masks_invalid:
        gt[~measured] = 0.0
    return pred, gt


@pytest.mark.parametrize(
    ("name", "limits", "bounds", "flip", "num_images"),
    [
        ("nyu_densedepth", (0.1, 10.0), "none", True, 654),
        ("nyu_eigen", (0.001, 10.0), "strict", False, 654),
        ("kitti_eigen_garg", (0.001, 80.0), "strict", False, 652),
        ("kitti_eigen_garg_kb", (0.001, 80.0), "strict", True, 652),
        ("kitti_eigen_crop", (0.001, 80.0), "strict", False, 652),
        ("kitti_raw_lidar", (0.001, 80.0), "strict", False, 697),
        ("kitti_raw_lidar_camera_z", (0.001, 80.0), "strict", False, 697),
        ("kitti_benchmark", (0.001, 80.0), "positive", False, 652),
        ("whole_image", (0.001, 100.0), "inclusive", False, None),
    ],
)
def test_the_constants_are_the_published_ones(name, limits, bounds, flip, num_images):
    protocol = get_protocol(name)
    assert (protocol.min_m, protocol.max_m) == limits
    assert protocol.bounds == bounds
    assert protocol.flip_average is flip
    assert protocol.scaling == "none"
    assert protocol.num_official_images == num_images


@pytest.mark.parametrize(
    ("name", "size", "box"),
    [
        ("nyu_densedepth", (480, 640), (20, 460, 24, 616)),
        ("nyu_eigen", (480, 640), (45, 471, 41, 601)),
        ("kitti_eigen_garg", (375, 1242), (153, 371, 44, 1197)),
        ("kitti_eigen_garg_kb", (375, 1242), (166, 372, 56, 1185)),
        ("kitti_eigen_garg_kb", (352, 1216), (143, 349, 43, 1172)),
        ("kitti_eigen_crop", (375, 1242), (124, 342, 44, 1197)),
        ("kitti_raw_lidar", (370, 1226), (151, 366, 44, 1181)),
        ("kitti_raw_lidar_camera_z", (376, 1241), (153, 372, 44, 1196)),
        ("kitti_benchmark", (375, 1242), (0, 375, 0, 1242)),
        ("whole_image", (37, 53), (0, 37, 0, 53)),
    ],
)
def test_the_scored_box_in_coordinates_of_the_full_map(name, size, box):
    assert get_protocol(name).crop_box(*size) == box


def test_garg_on_the_benchmark_crop_is_another_region_than_on_the_full_map():
    full = get_protocol("kitti_eigen_garg").crop_box(375, 1242)
    on_kb = get_protocol("kitti_eigen_garg_kb").crop_box(375, 1242)
    assert on_kb[0] - full[0] == 13


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


def test_a_protocol_is_frozen_hashable_and_picklable():
    protocol = get_protocol("nyu_eigen")
    with pytest.raises(dataclasses.FrozenInstanceError):
        protocol.max_m = 20.0
    assert pickle.loads(pickle.dumps(protocol)) == protocol
    assert len(set(PROTOCOLS.values())) == len(PROTOCOLS)


@pytest.mark.parametrize("protocol", PROTOCOLS.values(), ids=list(PROTOCOLS))
def test_the_description_says_everything_that_decides_a_figure(protocol):
    text = protocol.with_median_scaling().with_flip_average(True).describe()
    assert text.startswith(protocol.name)
    for part in (protocol.ground_truth, protocol.source, f"{protocol.max_m:g}] m", "median(gt)"):
        assert part in text
    assert "mean of the image's and the mirrored image's prediction" in text
    assert "crop" in text or "rows" in text
    assert "no mirror averaging" in protocol.with_flip_average(False).describe()


@pytest.mark.parametrize("name", ["nyu_densedepth", "nyu_eigen"])
def test_the_box_that_a_description_names_is_the_one_that_is_scored(name):
    protocol = get_protocol(name)
    top, bottom, left, right = protocol.crop_box(480, 640)
    rows_and_columns = f"rows {top}..{bottom - 1}, columns {left}..{right - 1} of 480x640"
    assert f"{rows_and_columns} ({bottom - top}x{right - left})" in protocol.describe()


def test_a_protocol_is_json():
    data = get_protocol("kitti_benchmark").as_dict()
    again = json.loads(json.dumps(data))
    assert again == data
    for name in ("range_edges_m", "truth_kinds"):
        again[name] = tuple(again[name])
    assert Protocol(**again) == get_protocol("kitti_benchmark")


def variants():
    for protocol in (*PROTOCOLS.values(), whole_image(0.5, 20.0), whole_image(1e-6, 1000.0)):
        yield protocol
        yield protocol.with_median_scaling()
        yield protocol.with_flip_average(not protocol.flip_average)
        yield protocol.with_median_scaling().with_flip_average(not protocol.flip_average)


@pytest.mark.parametrize("protocol", variants(), ids=lambda protocol: protocol.name)
def test_every_variant_is_found_by_its_name(protocol):
    assert get_protocol(protocol.name) == protocol


@pytest.mark.parametrize("name", [*PROTOCOLS, "whole_image-0.5-20m"])
def test_a_variant_has_one_name_whatever_the_order_of_its_marks(name):
    flip = "noflip" if get_protocol(name).flip_average else "flip"
    one, other = get_protocol(f"{name}-median-{flip}"), get_protocol(f"{name}-{flip}-median")
    assert one == other
    assert one.name == f"{name}-median-{flip}"


def test_variants_that_differ_have_different_names():
    found = {protocol.name: protocol for protocol in variants()}
    assert len(found) == len(list(variants()))
    for name in PROTOCOLS:
        protocol = get_protocol(name)
        back = protocol.with_flip_average(True).with_flip_average(protocol.flip_average)
        assert back == protocol
        assert protocol.with_median_scaling().with_median_scaling().name == f"{name}-median"


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("nyu_dense_depth", "nyu_densedepth"),
        ("kitti_garg", "kitti_eigen_garg"),
        ("NYU_eigen", "nyu_eigen"),
        ("nyu_eigen-mean", "nyu_eigen"),
        ("whole_image-5m", "whole_image"),
    ],
)
def test_an_unknown_name_gets_the_nearest_one(name, near):
    with pytest.raises(ValueError, match=f"no evaluation protocol '{name}'; did you mean '{near}'"):
        get_protocol(name)


@pytest.mark.parametrize(
    ("min_m", "max_m"), [(0.0, 10.0), (10.0, 1.0), (5.0, 5.0), (1.0, float("inf"))]
)
def test_limits_that_are_no_range_are_refused(min_m, max_m):
    with pytest.raises(ValueError, match="0 < min_m < max_m must hold"):
        whole_image(min_m, max_m)


def test_the_share_of_the_official_list_is_said():
    assert get_protocol("nyu_eigen").coverage(200) == "200 of 654 official images"
    assert get_protocol("kitti_raw_lidar").coverage(697) == "697 of 697 official images"
    assert whole_image().coverage(3) == "3 images"


def test_a_table_of_a_protocol_collects_its_scores():
    protocol = get_protocol("nyu_eigen")
    table = protocol.new_table()
    table.update("a", protocol.evaluate(*maps_for(protocol)))
    assert table.compute().protocol == "nyu_eigen"
    assert len(table.compute().by_range) == 5


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("nyu_densedepth", "nyu_depths"),
        ("nyu_eigen", "nyu_raw_depths"),
        ("kitti_eigen_garg", "kitti_annotated"),
        ("kitti_eigen_garg_kb", "kitti_annotated"),
        ("kitti_eigen_crop", "kitti_annotated"),
        ("kitti_raw_lidar", "kitti_velodyne_x"),
        ("kitti_raw_lidar_camera_z", "kitti_camera_z"),
        ("kitti_benchmark", "kitti_annotated"),
    ],
)
def test_each_published_protocol_is_scored_against_one_kind_of_depth(name, kind):
    assert get_protocol(name).truth_kinds == (kind,)


def test_figures_are_told_apart_by_depth_in_these_ranges():
    edges = {name: protocol.range_edges_m for name, protocol in PROTOCOLS.items()}
    nyu, kitti = (0.0, 1.0, 2.0, 4.0, 6.0, 10.0), (0.0, 10.0, 20.0, 40.0, 80.0)
    assert edges.pop("whole_image") == (0.0, 12.5, 25.0, 50.0, 100.0)
    assert edges.pop("kitti_benchmark") == (*kitti, 256.0)  # 16 bits of 1/256 m reach 256 m
    for name, found in edges.items():
        assert found == (nyu if name.startswith("nyu") else kitti), name


def test_figures_refer_to_one_kind_of_depth():
    get_protocol("nyu_eigen").require_truth("nyu_raw_depths")
    whole_image().require_truth("own")
    get_protocol("kitti_raw_lidar-median").require_truth("kitti_velodyne_x")
    with pytest.raises(ValueError, match=r"nyu_eigen .* nyu_raw_depths .* nyu_depths"):
        get_protocol("nyu_eigen").require_truth("nyu_depths")
    with pytest.raises(ValueError, match="this data set's depth is kitti_camera_z"):
        get_protocol("kitti_raw_lidar").require_truth("kitti_camera_z")


def test_the_scale_that_medians_give_is_told():
    gt = np.full((376, 1242), 10.0)
    gt[:, :600] = 0.0
    pred = np.full(gt.shape, 4.0)
    assert get_protocol("kitti_raw_lidar").scale(pred, gt) is None
    assert get_protocol("kitti_raw_lidar-median").scale(pred, gt) == pytest.approx(2.5)
    assert get_protocol("kitti_raw_lidar-median").scale(pred, np.zeros_like(gt)) is None
