"""The published protocols: constants, boxes, descriptions, names and their variants."""

import dataclasses
import json
import pickle

import pytest

from densedepth.protocols import PROTOCOLS, Protocol, get_protocol, whole_image


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


def test_the_share_of_the_official_list_is_said():
    assert get_protocol("nyu_eigen").coverage(200) == "200 of 654 official images"
    assert get_protocol("kitti_raw_lidar").coverage(697) == "697 of 697 official images"
    assert whole_image().coverage(3) == "3 images"


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


def test_a_protocol_is_frozen_hashable_and_picklable():
    protocol = get_protocol("nyu_eigen")
    with pytest.raises(dataclasses.FrozenInstanceError):
        protocol.max_m = 20.0
    assert pickle.loads(pickle.dumps(protocol)) == protocol
    assert len(set(PROTOCOLS.values())) == len(PROTOCOLS)


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
