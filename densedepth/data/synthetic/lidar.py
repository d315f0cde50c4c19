"""A spinning laser scanner: its rings, one scan, and depth maps accumulated from several.

The rings are those of a Velodyne HDL-64E: 32 upper ones every third of a degree from +2 degrees
down, 32 lower ones every half degree.
"""

import numpy as np
from jaxtyping import Bool, Float32, Float64

from densedepth.data.synthetic.calibration import FULL_SIZE_PX
from densedepth.data.synthetic.raycast import Hits
from densedepth.data.synthetic.views import LidarView

MAX_RANGE_M = 80.0
_RINGS = 32  # in each half
_TOP_DEG, _UPPER_DEG = 2.0, 1 / 3
_MIDDLE_DEG, _LOWER_DEG = -8.83, 1 / 2
ELEVATION_DEG = np.concatenate(
    [_TOP_DEG - np.arange(_RINGS) * _UPPER_DEG, _MIDDLE_DEG - np.arange(_RINGS) * _LOWER_DEG]
)
_FULL_COLUMNS = 2083  # steps of 0.17 degrees
_BEAM_RAD = 1 / 721.5  # what one pixel of a full-size picture sees
_NOISE_M = 0.01
_LOST = 0.05


def lidar_view(
    lidar_m: Float64[np.ndarray, "3"],
    world_from_lidar: Float64[np.ndarray, "3 3"],
    width_px: int,
) -> LidarView:
    """Give the scanner at a place; a small picture gets a scanner with as much fewer columns."""
    columns = max(256, round(_FULL_COLUMNS * width_px / FULL_SIZE_PX[1]))
    return LidarView(lidar_m, world_from_lidar, np.radians(ELEVATION_DEG), columns, MAX_RANGE_M)


def scan_points(
    view: LidarView,
    hits: Hits,
    reflectance: Float32[np.ndarray, "h w"],
    rng: np.random.Generator,
) -> Float32[np.ndarray, "n 4"]:
    """Turn hits into a scan as KITTI stores it, ring by ring.

    Args:
        view: the scanner.
        hits: what its rays met.
        reflectance: of what each ray met, 0..1.
        rng: of the noise of 1 cm and the twentieth of the returns that get lost.

    Returns:
        x forward, y left, z up in metres, and the reflectance; to the millimetre.
    """
    noise = rng.normal(0, _NOISE_M, hits.distance.shape)
    returned = (hits.distance < MAX_RANGE_M) & (rng.random(hits.distance.shape) > _LOST)
    range_m = np.where(returned, hits.distance, 0) + noise
    points = np.round(view.local_directions() * range_m, 3)
    rows = np.concatenate([points, np.round(reflectance[None], 2)])[:, returned]
    return np.ascontiguousarray(rows.T, np.float32)


def accumulated(
    points_m: Float32[np.ndarray, "3 h w"],
    lidar_m: Float64[np.ndarray, "5 3"],
    world_from_lidar: Float64[np.ndarray, "3 3"],
) -> Bool[np.ndarray, "h w"]:
    """Say which pixels of a picture some beam of several scans hits.

    KITTI's annotated depth adds up neighbouring scans. Here each pixel's own surface point is
    asked whether a beam passes within half a pixel (of a full-size picture), which gives the
    same rows of dots and depth that agrees with the picture everywhere.

    Args:
        points_m: what each pixel sees; not finite for the sky.
        lidar_m: where the scanner was.
        world_from_lidar: how it was turned.

    Returns:
        True where there is a measurement.
    """
    step = np.float32(2 * np.pi / _FULL_COLUMNS)
    half = np.float32(_BEAM_RAD / 2)
    turn = world_from_lidar.T.astype(np.float32)
    hit = np.zeros(points_m.shape[1:], np.bool_)
    seen = np.isfinite(points_m[0])
    flat = points_m[:, seen]
    dots = np.zeros(flat.shape[1], np.bool_)
    for place in lidar_m:
        x, y, z = turn @ (flat - place.astype(np.float32)[:, None])
        level = np.sqrt(x * x + y * y)
        azimuth = np.arctan2(y, x) / step
        off_column = np.abs(azimuth - np.rint(azimuth)) * step
        near = (off_column < half) & (level < np.float32(MAX_RANGE_M))
        dots[near] |= _off_ring_rad(np.arctan2(z[near], level[near])) < half
    hit[seen] = dots
    return hit


def _off_ring_rad(elevation_rad: np.ndarray) -> np.ndarray:
    """Give how far directions are from the nearest ring."""
    elevation_deg = np.degrees(elevation_rad)
    off_deg = np.full(elevation_rad.shape, np.inf, elevation_rad.dtype)
    for start, spacing in ((_TOP_DEG, _UPPER_DEG), (_MIDDLE_DEG, _LOWER_DEG)):
        place = (start - elevation_deg) / np.float32(spacing)
        off = np.abs(place - np.clip(np.rint(place), 0, _RINGS - 1)) * np.float32(spacing)
        off_deg = np.minimum(off_deg, off)
    return np.radians(off_deg)
