import math

import numpy as np
import pytest

from benchmarks.bench_velodyne import project_by_counting, synthetic_calibration, synthetic_scan
from densedepth.data.velodyne import Calibration, project_velodyne, read_calibration, read_scan
from densedepth.errors import BadFrameError, DataError, MissingDataError
from tests.densedepth.data.tiny_kitti import HEIGHT_PX, WIDTH_PX, scan, write_calibration

SIZE_PX = (HEIGHT_PX, WIDTH_PX)
AXES = ["camera_z", "velodyne_x"]


@pytest.fixture
def calibration(tmp_path):
    write_calibration(tmp_path)
    return read_calibration(tmp_path, camera=2)


def project_slowly(points, calibration, size_px, axis):
    """One point at a time, by the words of the definition."""
    depth_m = np.zeros(size_px, np.float32)
    for x, y, z, _ in points.astype(float).tolist():
        if x < 0:
            continue
        u, v, camera_z = (calibration.velodyne_to_image @ [x, y, z, 1]).tolist()
        column, row = round(u / camera_z) - 1, round(v / camera_z) - 1  # Python: half to even
        if not (0 <= row < size_px[0] and 0 <= column < size_px[1]):
            continue
        depth = camera_z if axis == "camera_z" else x
        before = depth_m[row, column]
        depth_m[row, column] = depth if before == 0 else min(before, depth)
    return np.maximum(depth_m, 0)


def projection_by_hand(day):
    """P_rect_02 . R_rect_00 . [R | T] out of a day's two files, read word by word."""

    def matrix(file, name, shape):
        words = (day / file).read_text().split()
        first = words.index(f"{name}:") + 1
        numbers = [float(word) for word in words[first : first + math.prod(shape)]]
        return np.array(numbers).reshape(shape)

    rotation, rectification = np.eye(4), np.eye(4)
    rectification[:3, :3] = matrix("calib_cam_to_cam.txt", "R_rect_00", (3, 3))
    rotation[:3, :3] = matrix("calib_velo_to_cam.txt", "R", (3, 3))
    translation = np.eye(4)
    translation[:3, 3] = matrix("calib_velo_to_cam.txt", "T", (3,))
    projection = matrix("calib_cam_to_cam.txt", "P_rect_02", (3, 4))
    return projection @ rectification @ translation @ rotation


def at(calibration, column, row, depth_m):
    """The velodyne point (x, y, z) that a camera without rotation sees at a real pixel position."""
    (fx, fy), (cx, cy) = calibration.focal_px, calibration.centre_px
    return [depth_m + 0.27, -(column - cx) * depth_m / fx, -(row - cy) * depth_m / fy, 0.5]


def points_at(calibration, *pixels):
    return np.array([at(calibration, *pixel) for pixel in pixels], dtype=np.float32)


def test_calibration_is_read_for_each_camera(tmp_path):
    write_calibration(tmp_path)
    left, right = read_calibration(tmp_path, 2), read_calibration(tmp_path, 3)
    assert left.size_px == (24, 40)
    assert left.focal_px == (30, 30)
    assert left.centre_px == (20, 12)
    np.testing.assert_allclose(left.velodyne_to_image @ [10.27, 0, 0, 1], [200, 120, 10])
    np.testing.assert_allclose(right.velodyne_to_image @ [10.27, 0, 0, 1], [184, 120, 10])
    cameras = tmp_path / "calib_cam_to_cam.txt"
    lines = [line for line in cameras.read_text().splitlines() if "P_rect_02" not in line]
    cameras.write_text("\n".join([*lines, "P_rect_02: 30 0 20 0 0 31 12 0 0 0 1 0"]))
    assert read_calibration(tmp_path, 2).focal_px == (30, 31)


def test_calibration_that_is_missing_or_damaged_is_named(tmp_path):
    with pytest.raises(MissingDataError, match=r"no calibration .*calib_cam_to_cam\.txt; KITTI"):
        read_calibration(tmp_path, 2)
    write_calibration(tmp_path)
    with pytest.raises(DataError, match=r"calib_cam_to_cam\.txt has no line 'P_rect_07'"):
        read_calibration(tmp_path, 7)
    (tmp_path / "calib_velo_to_cam.txt").write_text("R: 1 2 3\nT: 0 0 0\n")
    with pytest.raises(DataError, match=r"calib_velo_to_cam\.txt: line 'R' is no \(3, 3\) matrix"):
        read_calibration(tmp_path, 2)
    (tmp_path / "calib_velo_to_cam.txt").write_text("R: 0 -1 0 0 0 -1 1 0 0\nT: 0 nan 0\n")
    with pytest.raises(DataError, match=r"calib_velo_to_cam\.txt: line 'T' .*NaN or infinity"):
        read_calibration(tmp_path, 2)
    (tmp_path / "calib_velo_to_cam.txt").write_bytes(b"R: \xff\xfe")
    with pytest.raises(DataError, match=r"calib_velo_to_cam\.txt cannot be read: .*decode byte"):
        read_calibration(tmp_path, 2)


@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("seed", range(4))
def test_a_scan_projects_as_point_by_point(calibration, axis, seed):
    points = scan(seed, 3000)
    fast = project_velodyne(points, calibration, SIZE_PX, axis)
    slow = project_slowly(points, calibration, SIZE_PX, axis)
    assert (fast > 0).sum() > 300
    np.testing.assert_array_equal(fast > 0, slow > 0)
    np.testing.assert_allclose(fast, slow, rtol=1e-6)


def test_positions_are_rounded_and_counted_from_one(calibration):
    pixels = [(10.4, 7.4, 5.0), (10.6, 9.4, 6.0), (1.0, 1.0, 7.0), (40.0, 24.0, 8.0)]
    depth_m = project_velodyne(points_at(calibration, *pixels), calibration, SIZE_PX)
    found = {tuple(index): round(float(depth_m[*index])) for index in np.argwhere(depth_m)}
    assert found == {(6, 9): 5, (8, 10): 6, (0, 0): 7, (23, 39): 8}


def test_what_rounds_to_position_0_or_beyond_the_last_is_outside(calibration):
    pixels = [(0.4, 7, 5.0), (10, 0.4, 5.0), (40.6, 7, 5.0), (10, 24.6, 5.0), (-9, 7, 5.0)]
    assert not project_velodyne(points_at(calibration, *pixels), calibration, SIZE_PX).any()


def test_halves_are_rounded_to_the_even_neighbour():
    # u = y, v = z, depth 1: positions can be given exactly.
    matrix = np.array([[0, 1.0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    camera = Calibration(matrix, (8, 8), (1.0, 1.0), (0.0, 0.0))
    for halves in ([2.5, 1], [3.5, 1], [4.5, 1]), ([1, 2.5], [1, 3.5], [1, 4.5]):
        points = np.array([[3, *position, 0] for position in halves], dtype=np.float32)
        depth_m = project_velodyne(points, camera, (8, 8), "velodyne_x")
        found = depth_m if halves[0][0] == 2.5 else depth_m.T
        assert np.argwhere(found).tolist() == [[0, 1], [0, 3]]  # 2, and 4 twice; minus 1
    beside = np.array([[0, 6, 7, 0], [-1e-6, 3, 3, 0]], dtype=np.float32)  # x = 0 is not behind
    assert np.argwhere(project_velodyne(beside, camera, (8, 8))).tolist() == [[6, 5]]


def test_of_points_in_one_pixel_the_nearest_stays_whatever_their_order(calibration):
    pixels = [(10, 7, 9.0), (10.3, 7.2, 4.0), (9.8, 6.9, 6.0), (20, 7, 3.0)]
    for order in ([0, 1, 2, 3], [1, 0, 2, 3], [3, 2, 1, 0]):
        points = points_at(calibration, *(pixels[i] for i in order))
        depth_m = project_velodyne(points, calibration, SIZE_PX)
        assert depth_m[6, 9] == pytest.approx(4, abs=1e-5)
        assert np.count_nonzero(depth_m) == 2


def test_points_behind_the_velodyne_are_dropped_before_projecting(calibration):
    behind = np.array([[-5, 0, 0, 1], [-0.01, 0, 0, 1]], dtype=np.float32)
    assert not project_velodyne(behind, calibration, SIZE_PX).any()
    # Behind the camera but before the velodyne: projects with negative depth, which becomes 0.
    between = np.array([[0.1, 0, 0, 1]], dtype=np.float32)
    assert not project_velodyne(between, calibration, SIZE_PX).any()
    assert project_velodyne(between, calibration, SIZE_PX, "velodyne_x").max() == np.float32(0.1)


def test_the_two_axes_measure_from_the_camera_and_from_the_velodyne(calibration):
    points = points_at(calibration, (10, 7, 5.0))
    assert project_velodyne(points, calibration, SIZE_PX)[6, 9] == pytest.approx(5, abs=1e-5)
    along_x = project_velodyne(points, calibration, SIZE_PX, "velodyne_x")
    assert along_x[6, 9] == pytest.approx(5.27, abs=1e-5)


def test_a_point_in_the_cameras_plane_and_an_empty_scan_give_nothing(calibration):
    plane = np.array([[0.27, 1, 0, 1]], dtype=np.float32)
    assert not project_velodyne(plane, calibration, SIZE_PX).any()
    empty = np.empty((0, 4), dtype=np.float32)
    assert project_velodyne(empty, calibration, SIZE_PX).shape == SIZE_PX


@pytest.mark.parametrize("axis", AXES)
def test_the_fields_way_gives_the_same_inside_the_border(axis):
    calibration = synthetic_calibration()
    points = synthetic_scan(30_000)
    points = np.concatenate([points, points * np.float32(1.3)])  # many points to a pixel
    ours = project_velodyne(points, calibration, (375, 1242), axis)
    theirs = project_by_counting(points, calibration, (375, 1242), axis).astype(np.float32)
    np.testing.assert_array_equal(ours[:, 1:-1], theirs[:, 1:-1])


def test_the_fields_way_takes_two_border_pixels_for_one_and_ours_does_not(calibration):
    # The last pixel of row 6 and the first of row 8 have the same index row * (w - 1) + col - 1.
    points = points_at(calibration, (WIDTH_PX, 7, 9.0), (1, 8, 4.0))
    ours = project_velodyne(points, calibration, SIZE_PX)
    theirs = project_by_counting(points, calibration, SIZE_PX, "camera_z")
    assert round(float(ours[6, WIDTH_PX - 1])) == 9
    assert round(float(theirs[6, WIDTH_PX - 1])) == 4
    assert math.isclose(ours[7, 0], theirs[7, 0], rel_tol=1e-6)


def test_scans_that_are_missing_cut_empty_or_no_numbers_are_bad_frames(tmp_path):
    path = tmp_path / "0.bin"
    with pytest.raises(BadFrameError, match=r"0\.bin: no such file"):
        read_scan(path)
    path.write_bytes(b"")
    with pytest.raises(BadFrameError, match="the file is empty"):
        read_scan(path)
    path.write_bytes(scan(0).tobytes()[:-3])
    with pytest.raises(BadFrameError, match="6397 bytes; a scan has 16 per point"):
        read_scan(path)
    path.write_bytes(np.full((2, 4), np.nan, np.float32).tobytes())
    with pytest.raises(BadFrameError, match="NaN or infinity"):
        read_scan(path)
    path.write_bytes(scan(0).tobytes())
    np.testing.assert_array_equal(read_scan(path), scan(0))


@pytest.mark.samples
@pytest.mark.parametrize("axis", AXES)
def test_real_scans_project_as_in_the_field_and_as_point_by_point(samples_root, axis):
    day = samples_root / "kitti" / "raw" / "2011_09_26"
    calibration = read_calibration(day, 2)
    np.testing.assert_allclose(calibration.velodyne_to_image, projection_by_hand(day), rtol=1e-12)
    scans = sorted(day.glob("*/velodyne_points/data/*.bin"))
    assert len(scans) == 10
    for path in scans[:3]:
        points = read_scan(path)
        ours = project_velodyne(points, calibration, (375, 1242), axis)
        theirs = project_by_counting(points, calibration, (375, 1242), axis).astype(np.float32)
        np.testing.assert_array_equal(ours[:, 1:-1], theirs[:, 1:-1])
        assert 15_000 < np.count_nonzero(ours) < 20_000
    slow = project_slowly(points, calibration, (375, 1242), axis)
    np.testing.assert_allclose(ours, slow, rtol=1e-6)
