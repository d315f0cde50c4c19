"""Projection of a velodyne scan into a picture, against the field's way, with equal results.

Run:
    python -m benchmarks.bench_velodyne
    DEPTH_SAMPLES=<folder of real frames> python -m benchmarks.bench_velodyne

The field's way is what KITTI evaluations do (Eigen et al. 2014, later monodepth2): scatter all
points, count how often each linear index occurs, and loop over those that occur twice. It is
written here from its description (docs/evaluation.md), not copied.
"""

import os
import statistics
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np

from densedepth.data.velodyne import (
    Calibration,
    DepthAxis,
    project_velodyne,
    read_calibration,
    read_scan,
)

Projection = Callable[[np.ndarray, Calibration, tuple[int, int], DepthAxis], np.ndarray]
REPEATS = 15


def project_by_counting(
    points_xyzr: np.ndarray,
    calibration: Calibration,
    size_px: tuple[int, int],
    depth_axis: DepthAxis,
) -> np.ndarray:
    """Project a scan in the field's way; metres, 0 = no measurement."""
    height_px, width_px = size_px
    ahead = points_xyzr[points_xyzr[:, 0] >= 0].copy()
    ahead[:, 3] = 1
    seen = np.dot(calibration.velodyne_to_image, ahead.T).T
    seen[:, :2] = seen[:, :2] / seen[:, 2:]
    if depth_axis == "velodyne_x":
        seen[:, 2] = ahead[:, 0]
    seen[:, :2] = np.round(seen[:, :2]) - 1
    inside = (seen[:, 0] >= 0) & (seen[:, 1] >= 0)
    inside &= (seen[:, 0] < width_px) & (seen[:, 1] < height_px)
    seen = seen[inside]
    columns, rows = seen[:, 0].astype(int), seen[:, 1].astype(int)
    depth_m = np.zeros((height_px, width_px))
    depth_m[rows, columns] = seen[:, 2]
    index = rows * (width_px - 1) + columns - 1
    for value in [value for value, count in Counter(index).items() if count > 1]:
        same = np.where(index == value)[0]
        depth_m[rows[same[0]], columns[same[0]]] = seen[same, 2].min()
    depth_m[depth_m < 0] = 0
    return depth_m


def synthetic_calibration() -> Calibration:
    """A camera like KITTI's: 1242x375 pixels, velodyne 0.27 m behind and 0.08 m above it."""
    camera = np.array([[721.5, 0.0, 609.6, 44.9], [0.0, 721.5, 172.9, 0.2], [0.0, 0.0, 1.0, 0.0]])
    pose = np.array([[0.0, -1, 0, 0], [0, 0, -1, -0.08], [1, 0, 0, -0.27], [0, 0, 0, 1]])
    return Calibration(camera @ pose, (375, 1242), (721.5, 721.5), (609.6, 172.9))


def synthetic_scan(num_points: int = 120_000, seed: int = 0) -> np.ndarray:
    """A scan of 64 beams (+2 to -24.8 degrees): a ground plane and boxes around the car."""
    rng = np.random.default_rng(seed)
    columns = num_points // 64
    turn = np.tile(np.linspace(-np.pi, np.pi, columns, endpoint=False), 64)
    tilt = np.repeat(np.radians(np.linspace(2, -24.8, 64)), columns)
    ground_m = np.where(tilt < 0, 1.73 / np.maximum(-np.sin(tilt), 1e-6), 120)
    wall_m = (8 + 30 * rng.random(180))[((turn + np.pi) / np.pi * 90).astype(int) % 180]
    range_m = np.minimum(np.minimum(ground_m, wall_m), 120) + rng.normal(0, 0.02, turn.size)
    points = [
        range_m * np.cos(tilt) * np.cos(turn),
        range_m * np.cos(tilt) * np.sin(turn),
        range_m * np.sin(tilt),
        rng.random(turn.size),
    ]
    return np.stack(points, axis=1).astype(np.float32)


def median_ms(
    project: Projection, points_xyzr: np.ndarray, calibration: Calibration, axis: DepthAxis
) -> float:
    """Median wall time of some projections, in milliseconds."""
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        project(points_xyzr, calibration, calibration.size_px, axis)
        times.append(time.perf_counter() - start)
    return 1000 * statistics.median(times)


def compare(name: str, points_xyzr: np.ndarray, calibration: Calibration) -> None:
    """Print times of both ways and where their results differ."""
    size_px = calibration.size_px
    axes: tuple[DepthAxis, ...] = ("camera_z", "velodyne_x")
    for axis in axes:
        ours = project_velodyne(points_xyzr, calibration, size_px, axis)
        theirs = project_by_counting(points_xyzr, calibration, size_px, axis).astype(np.float32)
        differs = ours != theirs
        ours_ms = median_ms(project_velodyne, points_xyzr, calibration, axis)
        field_ms = median_ms(project_by_counting, points_xyzr, calibration, axis)
        print(
            f"{name:10} {axis:10} {len(points_xyzr):7d} points {int((ours > 0).sum()):6d} pixels  "
            f"ours {ours_ms:6.1f} ms  field {field_ms:7.1f} ms  {field_ms / ours_ms:5.1f} x  "
            f"different: {int(differs[:, 1:-1].sum())} inside, "
            f"{int(differs[:, [0, -1]].sum())} in the first and last column"
        )


def main() -> None:
    """Compare on a synthetic scan, and on a real one where there is one."""
    compare("synthetic", synthetic_scan(), synthetic_calibration())
    samples = os.environ.get("DEPTH_SAMPLES")
    scans = (
        sorted(Path(samples).glob("kitti/raw/*/*/velodyne_points/data/*.bin")) if samples else []
    )
    if scans:
        compare("real", read_scan(scans[0]), read_calibration(scans[0].parents[3], camera=2))
    else:
        print("real       set DEPTH_SAMPLES to a folder with kitti/raw to measure a real scan")


if __name__ == "__main__":
    main()
