"""Drives: what a car's camera and laser scanner see on a street, frame by frame."""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, UInt8

from densedepth.data.synthetic.calibration import LIDAR_HEIGHT_M, Calibration, calibration_for
from densedepth.data.synthetic.camera import develop
from densedepth.data.synthetic.lidar import accumulated, lidar_view, scan_points
from densedepth.data.synthetic.patterns import PATTERN_INDEX, sample
from densedepth.data.synthetic.raycast import cast
from densedepth.data.synthetic.shading import Lamp, shade
from densedepth.data.synthetic.solids import Solid
from densedepth.data.synthetic.streets import BLOCK_M, Street, block, build_street, ground
from densedepth.sample import SPLITS, Split

MAX_DEPTH_M = 80.0
FRAME_STEP_M = 9.0
_SCAN_STEP_M = 0.9
_SUN_M = 2000.0
_SEEN_AHEAD_M, _SEEN_BEHIND_M = 170.0, 80.0
_SMALL_PX = 1.5
_LANE_FREE_M, _BESIDE_FREE_M = 12.0, 5.5
_HAZE_M = 450.0
_HORIZON, _ZENITH = (0.95, 0.97, 1.0), (0.32, 0.52, 0.85)


@dataclass(frozen=True)
class StreetFrame:
    """One frame of a drive.

    Attributes:
        image: colour.
        depth_m: of every pixel, in metres, without limit; 0 = sky.
        annotated_m: KITTI's kind of ground truth: what the scanner hit, up to 80 m; 0 = none.
        scan: x forward, y left, z up in metres from the scanner, and the reflectance.
        calibration: of camera and scanner.
    """

    image: UInt8[np.ndarray, "h w 3"]
    depth_m: Float32[np.ndarray, "h w"]
    annotated_m: Float32[np.ndarray, "h w"]
    scan: Float32[np.ndarray, "n 4"]
    calibration: Calibration


def street_frame(
    seed: int, split: Split, drive: int, frame: int, size_px: tuple[int, int]
) -> StreetFrame:
    """Render one frame of a drive: picture, depth, laser scan.

    Args:
        seed: of the whole data set.
        split: drives of different splits go along different streets.
        drive: number of the drive.
        frame: number of the frame; the car moves on 9 m between frames.
        size_px: height and width.
    """
    street = build_street(seed, split, drive)
    rng = np.random.default_rng(
        np.random.SeedSequence((seed, SPLITS.index(split), drive, 13, frame))
    )
    along = frame * FRAME_STEP_M
    across = -street.lane / 2 + float(rng.normal(0, 0.15))
    lidar_m = np.array([along, across, LIDAR_HEIGHT_M])
    world_from_lidar = _turned(rng)
    calibration = calibration_for(size_px)
    solids = solids_around(street, along, calibration.focal_px)

    view = calibration.camera(lidar_m, world_from_lidar)
    directions = view.directions()
    hits = cast(view, solids, directions)
    sun_m = view.origin_m + _SUN_M * np.array(street.sun)
    sun = Lamp(tuple(sun_m.tolist()), (street.sunlight,) * 3, falls_off=False)
    light = shade(view, solids, hits, directions, [sun], ambient=(0.9, 0.95, 1.05))
    light = _with_sky(light, directions, hits.distance, rng)
    image = develop(light, rng, brightness=float(rng.uniform(0.24, 0.36)), noise=0.008)

    scanner = lidar_view(lidar_m, world_from_lidar, size_px[1])
    scan_hits = cast(scanner, solids, scanner.directions())
    shine = _reflectances(solids)[scan_hits.solid]
    scan = scan_points(scanner, scan_hits, shine, rng)

    forward = world_from_lidar[:, 0]
    steps = np.arange(-2, 3)[:, None] * _SCAN_STEP_M + rng.normal(0, 0.1, (5, 1))
    with np.errstate(invalid="ignore"):
        points_m = directions * hits.distance + view.origin_m.astype(np.float32)[:, None, None]
    measured = accumulated(points_m, lidar_m + steps * forward, world_from_lidar)
    depth_m = np.where(hits.solid >= 0, hits.distance, np.float32(0))
    annotated_m = np.where(measured & (depth_m < MAX_DEPTH_M), depth_m, np.float32(0))
    return StreetFrame(image, depth_m, annotated_m, scan, calibration)


def solids_around(street: Street, along_m: float, focal_px: float) -> list[Solid]:
    """Gather what can be seen from a place on a street.

    No car stands where the camera is, and what would be about a pixel wide is left out.
    """
    first = math.floor((along_m - _SEEN_BEHIND_M) / BLOCK_M)
    last = math.floor((along_m + _SEEN_AHEAD_M) / BLOCK_M)
    out: list[Solid] = []
    for number in range(first, last + 1):
        here = block(street, number)
        out.extend(here.fixed)
        for solids in here.vehicles:
            x, y, _ = solids[0].center_m
            if abs(x - along_m) > (_LANE_FREE_M if -street.lane < y < 0 else _BESIDE_FREE_M):
                out.extend(solids)
    large = [one for one in out if not _too_small(one, along_m, focal_px)]
    return [*ground(street), *large]


def _too_small(one: Solid, along_m: float, focal_px: float) -> bool:
    away_m = abs(one.center_m[0] - along_m)
    width_px = 2 * sorted(one.half_m)[1] * focal_px / max(away_m, 1.0)
    return away_m > 10.0 and width_px < _SMALL_PX


def _turned(rng: np.random.Generator) -> np.ndarray:
    """Turn the car a little: a few degrees of heading, less of pitch and roll."""
    yaw, pitch, roll = np.radians(rng.normal(0, (2.0, 0.5, 0.4))).tolist()
    about_z = np.array(
        [[math.cos(yaw), -math.sin(yaw), 0], [math.sin(yaw), math.cos(yaw), 0], [0, 0, 1]]
    )
    about_y = np.array(
        [[math.cos(pitch), 0, math.sin(pitch)], [0, 1, 0], [-math.sin(pitch), 0, math.cos(pitch)]]
    )
    about_x = np.array(
        [[1, 0, 0], [0, math.cos(roll), -math.sin(roll)], [0, math.sin(roll), math.cos(roll)]]
    )
    return about_z @ about_y @ about_x


def _reflectances(solids: list[Solid]) -> np.ndarray:
    """Give what share of a beam each solid sends back; the last entry is for no solid."""
    shares = [min(0.99, sum(s.paints[0].low) / 6 + sum(s.paints[0].high) / 6) for s in solids]
    return np.array([*shares, 0.0], np.float32)


def _with_sky(
    light: np.ndarray, directions: np.ndarray, distance_m: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Fill in a bright sky with clouds, and let the far distance pale towards it."""
    horizon, zenith = np.array(_HORIZON, np.float32), np.array(_ZENITH, np.float32)
    brightness = np.float32(rng.uniform(1.1, 2.0))
    up = directions[2] / np.sqrt((directions**2).sum(0))
    height = np.clip(up * 3, 0, 1)[..., None]
    sky = horizon + (zenith - horizon) * height
    above = np.isinf(distance_m)
    if above.any():
        flat = 0.25 / np.maximum(up[above], np.float32(0.02))
        shift = rng.random(2).astype(np.float32)
        u, v = directions[0][above] * flat + shift[0], directions[1][above] * flat + shift[1]
        which = np.full(flat.shape, PATTERN_INDEX["leaves"], np.int32)
        cover = sample(which, u * 0.2, v * 0.2, np.full(flat.shape, 0.004, np.float32))
        part = np.clip(cover * 1.6 - np.float32(rng.uniform(0.1, 0.9)), 0, 1)[:, None]
        sky[above] += (horizon - sky[above]) * part
    haze = np.where(above, 1, 1 - np.exp(-distance_m / np.float32(_HAZE_M)))[..., None]
    return light + (sky * brightness - light) * haze.astype(np.float32)
