"""Drives: picture, scan and depth map agree through the calibration, as a reader computes it."""

import numpy as np
import pytest

from densedepth.data.synthetic.calibration import FOCAL_PX, calibration_for
from densedepth.data.synthetic.drives import (
    FRAME_STEP_M,
    StreetFrame,
    solids_around,
    street_frame,
)
from densedepth.data.synthetic.lidar import ELEVATION_DEG
from densedepth.data.synthetic.streets import block, build_street

SIZE = (96, 320)
FRAMES = [(0, 0), (1, 3)]


@pytest.fixture(scope="module", params=FRAMES, ids=str)
def frame(request: pytest.FixtureRequest) -> StreetFrame:
    drive, number = request.param
    return street_frame(9, "train", drive, number, SIZE)


def matrices(text: str) -> dict[str, np.ndarray]:
    """Read calibration text, independently of the project's reader."""
    out = {}
    for line in text.splitlines():
        name, _, values = line.partition(":")
        if name != "calib_time":
            out[name] = np.array([float(v) for v in values.split()])
    return out


def projected(frame: StreetFrame) -> tuple[np.ndarray, np.ndarray]:
    """Project the scan by the calibration's text: P_rect (R_rect (R x + T)); pixels from 1."""
    cameras = matrices(frame.calibration.cam_to_cam_text())
    scanner = matrices(frame.calibration.velo_to_cam_text())
    points = frame.scan[frame.scan[:, 0] > 0, :3].astype(np.float64)
    in_camera = points @ scanner["R"].reshape(3, 3).T + scanner["T"]
    rectified = in_camera @ cameras["R_rect_00"].reshape(3, 3).T
    homogeneous = np.column_stack([rectified, np.ones(len(rectified))])
    u, v, z = (homogeneous @ cameras["P_rect_02"].reshape(3, 4).T).T
    pixel = np.column_stack([np.round(v / z) - 1, np.round(u / z) - 1]).astype(int)
    height, width = frame.depth_m.shape
    within = (pixel[:, 0] >= 0) & (pixel[:, 0] < height) & (pixel[:, 1] >= 0)
    within &= (pixel[:, 1] < width) & (z > 0)
    return pixel[within], z[within]


def test_projected_scan_agrees_with_the_rendered_depth(frame: StreetFrame) -> None:
    pixel, depth_m = projected(frame)
    rendered_m = frame.depth_m[pixel[:, 0], pixel[:, 1]]
    assert len(pixel) > 3000
    error = np.abs(rendered_m - depth_m) / depth_m
    # Not all: a pixel is 16 of full size, the point may lie on the other side of an outline.
    assert np.median(error) < 0.01
    assert np.mean(error < 0.05) > 0.9


def test_at_full_size_the_agreement_is_closer_and_a_row_aside_it_is_worse() -> None:
    frame = street_frame(9, "train", 1, 3, (375, 1242))
    pixel, depth_m = projected(frame)
    inner = (pixel[:, 0] > 0) & (pixel[:, 0] < 374)
    (row, column), depth_m = pixel[inner].T, depth_m[inner]
    above, here, below = (
        np.abs(frame.depth_m[row + shift, column] - depth_m) / depth_m for shift in (-1, 0, 1)
    )
    assert len(row) > 15000
    assert np.median(here) < 0.003
    assert np.mean(here < 0.03) > 0.95
    assert np.median(here) < 0.5 * min(np.median(above), np.median(below))


def test_the_road_is_a_plane_at_the_scanners_height(frame: StreetFrame) -> None:
    """Back-project the picture's lower middle; the nearest road is free of cars."""
    projection = frame.calibration.projection
    rows, columns = np.mgrid[84:96, 130:170]
    depth_m = frame.depth_m[84:96, 130:170].astype(np.float64)
    x = ((columns + 1) - projection[0, 2]) / projection[0, 0] * depth_m
    y = ((rows + 1) - projection[1, 2]) / projection[1, 1] * depth_m
    points = np.stack([x, y, depth_m], -1).reshape(-1, 3)
    middle = points.mean(0)
    _, spread, axes = np.linalg.svd(points - middle)
    assert spread[2] / np.sqrt(len(points)) < 0.01  # flat, but for road marks of 4 mm
    height = abs(axes[2] @ middle)
    assert 1.6 < height < 1.72  # the camera is 8 cm below the scanner, more or less with pitch


def test_scans_have_64_rings_all_around(frame: StreetFrame) -> None:
    points = frame.scan[:, :3].astype(np.float64)
    range_m = np.linalg.norm(points, axis=1)
    elevation = np.degrees(np.arcsin(points[:, 2] / range_m))
    off_ring = np.abs(elevation[:, None] - ELEVATION_DEG[None]).min(1)
    assert len(ELEVATION_DEG) == 64
    assert np.percentile(off_ring, 99) < 0.02
    assert len(np.unique(np.abs(elevation[:, None] - ELEVATION_DEG[None]).argmin(1))) > 50
    assert range_m.max() < 80.1
    assert (points[:, 0] < -3).mean() > 0.2
    assert frame.scan.dtype == np.float32
    assert (frame.scan[:, 3] >= 0).all()
    assert (frame.scan[:, 3] < 1).all()


def test_annotated_depth_is_semi_dense_and_taken_from_the_picture(frame: StreetFrame) -> None:
    measured = frame.annotated_m > 0
    assert 0.12 < measured.mean() < 0.28
    assert not measured[: SIZE[0] // 5].any()
    assert measured[SIZE[0] // 2 :].mean() > 0.25
    np.testing.assert_array_equal(frame.annotated_m[measured], frame.depth_m[measured])
    assert frame.annotated_m.max() < 80
    assert frame.annotated_m[measured].min() > 1.5


def test_annotated_density_does_not_depend_on_the_size() -> None:
    shares = [(street_frame(9, "train", 2, 0, s).annotated_m > 0).mean() for s in ((48, 160), SIZE)]
    assert shares[0] == pytest.approx(shares[1], abs=0.03)


def test_the_sky_has_no_depth_and_the_ground_has_some(frame: StreetFrame) -> None:
    assert (frame.depth_m[-5:] > 0).all()
    sky = frame.depth_m == 0
    assert not sky[SIZE[0] // 2 + 5 :].any()
    if sky.any():
        assert frame.image[sky].mean() > 110


def test_a_frame_is_a_function_of_its_numbers() -> None:
    one, again = (street_frame(9, "test", 3, 2, (48, 160)) for _ in range(2))
    np.testing.assert_array_equal(one.image, again.image)
    np.testing.assert_array_equal(one.scan, again.scan)
    np.testing.assert_array_equal(one.annotated_m, again.annotated_m)
    other = street_frame(9, "train", 3, 2, (48, 160))
    assert not np.array_equal(one.image, other.image)


def test_vehicles_are_whole_or_absent_and_leave_the_camera_room() -> None:
    for drive in range(6):
        street = build_street(9, "train", drive)
        along_m = 3 * FRAME_STEP_M
        present = {id(one) for one in solids_around(street, along_m, 1e9)}
        num_whole = 0
        for number in range(-3, 8):
            for solids in block(street, number).vehicles:
                there = {id(one) in present for one in solids}
                assert len(there) == 1
                num_whole += there.pop()
                x, _, _ = solids[0].center_m
                if abs(x - along_m) < 5:
                    assert not {id(one) for one in solids} & present
        assert num_whole > 0


def test_intrinsics_scale_with_the_picture() -> None:
    full, half = calibration_for((375, 1242)), calibration_for((375, 621))
    assert full.focal_px == pytest.approx(FOCAL_PX)
    assert half.focal_px == pytest.approx(FOCAL_PX / 2, rel=1e-6)
    assert half.projection[1, 1] == pytest.approx(FOCAL_PX)
    for matrix in (full.rotation, full.rectification):
        np.testing.assert_allclose(matrix @ matrix.T, np.eye(3), atol=3e-6)
        assert np.linalg.det(matrix) == pytest.approx(1.0, abs=1e-5)
