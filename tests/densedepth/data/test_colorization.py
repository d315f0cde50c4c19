"""Filling equals the definition, in every shape and however weakly its parts hang together."""

from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from densedepth.data import colorization
from densedepth.data.colorization import fill_depth
from densedepth.data.walk import dissection, front
from densedepth.errors import DataError
from tests.densedepth.data.reference_colorization import fill_by_definition, fill_in_long_double

EXACT_M = 2e-5  # float32 rounding over 10 m; the promise is 1e-3


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Shaded areas with sharp edges and some noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    shade = 60 + 50 * np.sin(x / 9) + 60 * (x + 2 * y > 60) + 40 * ((y - 12) ** 2 + x**2 < 300)
    channels = shade[..., None] * [1.0, 0.8, 0.6] + rng.normal(0, 4, (height, width, 3))
    return channels.clip(0, 255).astype(np.uint8)


def depths(height: int, width: int, missing: float, seed: int = 0) -> np.ndarray:
    """Unlike depths at every pixel, some missing; the first is there."""
    rng = np.random.default_rng(seed)
    depth_m = rng.uniform(1, 10, (height, width)).astype(np.float32)
    depth_m[rng.random((height, width)) < missing] = 0
    depth_m[0, 0] = 3
    return depth_m


@pytest.mark.parametrize("missing", [0.05, 0.8, 0.995])
@pytest.mark.parametrize("size", [(2, 2), (1, 9), (9, 1), (5, 3), (37, 41), (48, 100)])
def test_filling_equals_the_definition(size: tuple[int, int], missing: float):
    image, depth_m = picture(*size), depths(*size, missing)
    expected = fill_by_definition(image, depth_m)
    np.testing.assert_allclose(fill_depth(image, depth_m), expected, rtol=0, atol=EXACT_M)


@pytest.mark.parametrize(("few", "dense"), [(0, 64), (3, 5), (10**6, 64)])
def test_filling_equals_the_definition_however_the_blocks_are_joined(
    few: int, dense: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(dissection, "_FEW", few)
    monkeypatch.setattr(front, "_DENSE", dense)
    image, depth_m = picture(70, 75), depths(70, 75, 0.9)
    expected = fill_by_definition(image, depth_m)
    np.testing.assert_allclose(fill_depth(image, depth_m), expected, rtol=0, atol=EXACT_M)


@pytest.mark.parametrize("kind", ["noise", "flat", "black and white"])
def test_filling_equals_the_definition_for_pictures_that_are_hard_to_solve(kind: str):
    rng = np.random.default_rng(1)
    image = rng.integers(0, 256, (40, 50, 3)).astype(np.uint8)
    if kind == "flat":
        image[:] = 77
    if kind == "black and white":
        image = ((image[..., :1] > 127) * np.full(3, 255)).astype(np.uint8)
    depth_m = depths(40, 50, 0.97)
    expected = fill_by_definition(image, depth_m)
    np.testing.assert_allclose(fill_depth(image, depth_m), expected, rtol=0, atol=EXACT_M)


def test_a_picture_without_lidar_in_its_upper_third_is_filled_by_the_definition():
    image, depth_m = picture(36, 120), depths(36, 120, 0.69)
    depth_m[:12] = 0
    expected = fill_by_definition(image, depth_m)
    np.testing.assert_allclose(fill_depth(image, depth_m), expected, rtol=0, atol=EXACT_M)


def test_regions_behind_strong_edges_take_their_own_depth():
    image = np.zeros((30, 60, 3), np.uint8)
    image[:, 30:] = 255
    depth_m = np.zeros((30, 60), np.float32)
    depth_m[:, 2], depth_m[:, 57] = 2, 7
    filled = fill_depth(image, depth_m)
    expected = fill_by_definition(image, depth_m)
    np.testing.assert_allclose(filled, expected, rtol=0, atol=EXACT_M)
    assert filled[:, :29].max() < 2.6
    assert filled[:, 31:].min() > 6.4


def test_a_region_that_hangs_on_the_rest_by_a_thread_is_right_to_the_last_digit():
    # Rings around a hole, each far more like the one inside it: a walker gets out so seldom that
    # the direct solution in float64 is a millimetre off.
    y, x = np.mgrid[:22, :22]
    ring = np.maximum(abs(y - 11), abs(x - 11))
    grey = np.array([0, 0, 0, 0, 1, 3, 9, 27, 81, 255, 255, 255])[ring]
    image = np.repeat(grey[..., None], 3, axis=2).astype(np.uint8)
    depth_m = depths(22, 22, 0)
    depth_m[ring < 10] = 0
    expected = fill_in_long_double(image, depth_m)
    assert abs(fill_by_definition(image, depth_m) - expected).max() > 5 * EXACT_M
    np.testing.assert_allclose(
        fill_depth(image, depth_m), expected.astype(float), rtol=0, atol=EXACT_M
    )


def test_measured_pixels_stay_as_they_are():
    image, depth_m = picture(40, 60), depths(40, 60, 0.4)
    before = depth_m.copy()
    filled = fill_depth(image, depth_m)
    assert filled.dtype == np.float32
    np.testing.assert_array_equal(filled[before > 0], before[before > 0])
    np.testing.assert_array_equal(depth_m, before)
    assert filled.min() >= before[before > 0].min()
    assert filled.max() <= before.max()


def test_a_constant_depth_stays_exactly_constant():
    depth_m = depths(40, 60, 0.7)
    depth_m[depth_m > 0] = np.float32(3.1)
    np.testing.assert_array_equal(fill_depth(picture(40, 60), depth_m), np.float32(3.1))


def test_a_frame_without_holes_comes_back_as_a_copy():
    depth_m = depths(20, 30, 0)
    filled = fill_depth(picture(20, 30), depth_m)
    np.testing.assert_array_equal(filled, depth_m)
    assert filled is not depth_m


def test_filling_a_mirrored_frame_gives_the_mirrored_result():
    image, depth_m = picture(50, 70), depths(50, 70, 0.8)
    straight = fill_depth(image, depth_m)
    mirrored = fill_depth(image[:, ::-1].copy(), depth_m[:, ::-1].copy())
    np.testing.assert_allclose(mirrored[:, ::-1], straight, rtol=0, atol=EXACT_M)
    turned = fill_depth(image.transpose(1, 0, 2).copy(), depth_m.T.copy())
    np.testing.assert_allclose(turned.T, straight, rtol=0, atol=EXACT_M)


@pytest.mark.parametrize("tolerance_m", [1.0, 1e-2, 5e-4])
def test_leaving_out_far_pixels_costs_no_more_than_the_tolerance(
    tolerance_m: float, monkeypatch: pytest.MonkeyPatch
):
    image, depth_m = picture(120, 120), depths(120, 120, 0)
    depth_m[50:60, 40:70] = 0
    depth_m[100:103, 5:9] = 0
    shares = []
    solve = dissection.expected_pay

    def watched(rates, kill, gain, used):
        shares.append(used.mean())
        return solve(rates, kill, gain, used)

    monkeypatch.setattr(colorization, "expected_pay", watched)
    filled = fill_depth(image, depth_m, tolerance_m=tolerance_m)
    complete = fill_depth(image, depth_m, tolerance_m=1e-30)
    assert abs(filled - complete).max() <= tolerance_m
    assert shares[0] < 0.5
    assert shares[1] > 0.8


def test_a_frame_without_any_measurement_is_refused():
    with pytest.raises(DataError, match=r"no pixel of \(8, 9\) is measured"):
        fill_depth(picture(8, 9), np.zeros((8, 9), np.float32))


@pytest.mark.parametrize("value", [-1, np.nan, np.inf])
def test_depths_that_cannot_be_are_refused(value: float):
    depth_m = depths(8, 9, 0.5)
    depth_m[2, 2] = value
    with pytest.raises(DataError, match="negative or non-finite"):
        fill_depth(picture(8, 9), depth_m)


def test_a_tolerance_of_zero_is_refused():
    with pytest.raises(DataError, match=r"tolerance_m is 0\.0"):
        fill_depth(picture(8, 9), depths(8, 9, 0.5), tolerance_m=0.0)


@pytest.mark.samples
@pytest.mark.parametrize(("top", "left"), [(0, 0), (200, 560), (400, 300)])
def test_crops_of_a_real_nyu_frame_equal_the_definition(samples_root: Path, top: int, left: int):
    with h5py.File(samples_root / "nyu_labeled_mini" / "nyu_depth_v2_labeled.mat") as file:
        image = file["images"][1].transpose(2, 1, 0)
        depth_m = file["rawDepths"][1].T.astype(np.float32)
    crop = slice(top, top + 72), slice(left, left + 80)
    image, depth_m = np.ascontiguousarray(image[crop]), np.ascontiguousarray(depth_m[crop])
    assert 0.05 < (depth_m == 0).mean() < 1
    expected = fill_by_definition(image, depth_m)
    np.testing.assert_allclose(fill_depth(image, depth_m), expected, rtol=0, atol=EXACT_M)


@pytest.mark.samples
@pytest.mark.parametrize(("top", "left"), [(90, 0), (110, 600), (300, 1120)])
def test_crops_of_a_real_kitti_frame_equal_the_definition(samples_root: Path, top: int, left: int):
    drive = "2011_09_28/2011_09_28_drive_0000_sync"
    name = "image_02/data/0000000050.png"
    image = np.asarray(Image.open(samples_root / "kitti" / "raw" / drive / name))
    truth = samples_root / "kitti" / "data_depth_annotated" / "train" / Path(drive).name
    truth = truth / "proj_depth" / "groundtruth" / "image_02" / "0000000050.png"
    depth_m = (np.asarray(Image.open(truth)) / 256).astype(np.float32)
    crop = slice(top, top + 72), slice(left, left + 120)
    image, depth_m = np.ascontiguousarray(image[crop]), np.ascontiguousarray(depth_m[crop])
    expected = fill_by_definition(image, depth_m)
    np.testing.assert_allclose(fill_depth(image, depth_m), expected, rtol=0, atol=10 * EXACT_M)
