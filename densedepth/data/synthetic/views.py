"""Views: where a sensor stands and which way each of its rays looks.

A view's rays lie in a grid, so a solid's outline gives windows of that grid, and only the rays
inside them need casting.
"""

import math
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Float32, Float64

Window = tuple[slice, slice]
"""Rows and columns of a view's grid."""

_NEAR_M = 0.01


def camera_rotation(
    yaw_rad: float, pitch_rad: float, roll_rad: float
) -> Float64[np.ndarray, "3 3"]:
    """Give world_from_camera of a camera that looks along +y at yaw 0, and up for pitch > 0."""
    cos, sin, level = math.cos(yaw_rad), math.sin(yaw_rad), math.cos(pitch_rad)
    forward = np.array([-sin * level, cos * level, math.sin(pitch_rad)])
    right = np.array([cos, sin, 0.0])
    down = np.cross(forward, right)
    turn, tip = math.cos(roll_rad), math.sin(roll_rad)
    return np.stack([right * turn + down * tip, down * turn - right * tip, forward], axis=1)


@runtime_checkable
class View(Protocol):
    """A sensor in the world."""

    @property
    def origin_m(self) -> Float64[np.ndarray, "3"]:
        """Where the rays start."""
        ...

    def directions(self) -> Float32[np.ndarray, "3 h w"]:
        """Give every ray's direction in the world."""
        ...

    def windows(self, points_m: Float[np.ndarray, "p k 3"]) -> list[tuple[Window, ...]]:
        """Give, for each of p point sets, the windows that hold the rays through its hull."""
        ...

    def nearest(self, points_m: Float[np.ndarray, "p k 3"]) -> Float64[np.ndarray, "p"]:
        """Give, for each of p point sets, a distance that no ray to its hull falls below."""
        ...


@dataclass(frozen=True)
class PinholeView:
    """A camera without distortion; pixel centres at whole coordinates.

    Directions have a camera z of 1, so a hit's distance along its ray *is* its depth.

    Attributes:
        origin_m: the camera's centre.
        world_from_camera: rotation; camera axes are x right, y down, z forward.
        focal_px: along x and y.
        center_px: the principal point's x and y.
        size_px: height, width.
    """

    origin_m: Float64[np.ndarray, "3"]
    world_from_camera: Float64[np.ndarray, "3 3"]
    focal_px: tuple[float, float]
    center_px: tuple[float, float]
    size_px: tuple[int, int]

    def directions(self) -> Float32[np.ndarray, "3 h w"]:
        """Give every pixel's ray in the world, with a camera z of 1."""
        height, width = self.size_px
        x = (np.arange(width) - self.center_px[0]) / self.focal_px[0]
        y = (np.arange(height) - self.center_px[1]) / self.focal_px[1]
        r = self.world_from_camera
        rows = (r[:, 1, None] * y + r[:, 2, None])[:, :, None]
        return (rows + (r[:, 0, None] * x)[:, None, :]).astype(np.float32)

    def windows(self, points_m: Float[np.ndarray, "p k 3"]) -> list[tuple[Window, ...]]:
        """Give the rectangle of pixels around each set; all pixels if it reaches behind."""
        height, width = self.size_px
        camera = (points_m - self.origin_m) @ self.world_from_camera
        z = camera[..., 2]
        safe = np.where(z > _NEAR_M, z, 1.0)
        u = camera[..., 0] / safe * self.focal_px[0] + self.center_px[0]
        v = camera[..., 1] / safe * self.focal_px[1] + self.center_px[1]
        edges = np.stack([u.min(1), u.max(1) + 1, v.min(1), v.max(1) + 1])
        limits = np.array([width, width, height, height])[:, None]
        u0, u1, v0, v1 = np.clip(np.floor(edges), 0, limits).astype(int).tolist()
        in_front, crossing = (z > _NEAR_M).any(1), (z <= _NEAR_M).any(1)
        out: list[tuple[Window, ...]] = []
        for i in range(len(points_m)):
            if not in_front[i]:
                out.append(())
            elif crossing[i]:
                out.append(((slice(0, height), slice(0, width)),))
            elif u0[i] < u1[i] and v0[i] < v1[i]:
                out.append(((slice(v0[i], v1[i]), slice(u0[i], u1[i])),))
            else:
                out.append(())
        return out

    def nearest(self, points_m: Float[np.ndarray, "p k 3"]) -> Float64[np.ndarray, "p"]:
        """Give the least depth of each set."""
        return ((points_m - self.origin_m) @ self.world_from_camera[:, 2]).min(1)


@dataclass(frozen=True)
class LidarView:
    """A spinning laser scanner: one row per ring, one column per step of the turn.

    Attributes:
        origin_m: the scanner's centre.
        world_from_lidar: rotation; lidar axes are x forward, y left, z up.
        elevation_rad: of each ring, above the scanner's horizon, the highest ring first.
        num_columns: steps of a full turn.
        max_range_m: how far it measures.
    """

    origin_m: Float64[np.ndarray, "3"]
    world_from_lidar: Float64[np.ndarray, "3 3"]
    elevation_rad: Float64[np.ndarray, "rings"]
    num_columns: int
    max_range_m: float

    def local_directions(self) -> Float64[np.ndarray, "3 rings columns"]:
        """Give every ray in the scanner's own axes, of length 1."""
        azimuth = (np.arange(self.num_columns) / self.num_columns * 2 - 1) * np.pi
        level = np.cos(self.elevation_rad)[:, None]
        up = np.broadcast_to(
            np.sin(self.elevation_rad)[:, None], (len(self.elevation_rad), self.num_columns)
        )
        return np.stack([level * np.cos(azimuth), level * np.sin(azimuth), up])

    def directions(self) -> Float32[np.ndarray, "3 h w"]:
        """Give every ray in the world, of length 1: a hit's distance is its range."""
        local = self.local_directions()
        world = self.world_from_lidar @ local.reshape(3, -1)
        return world.reshape(local.shape).astype(np.float32)

    def windows(self, points_m: Float[np.ndarray, "p k 3"]) -> list[tuple[Window, ...]]:
        """Give the rings and columns that each set spans: all columns if it surrounds the scanner.

        A set out of range has no windows.
        """
        local = (points_m - self.origin_m) @ self.world_from_lidar
        azimuth = np.arctan2(local[..., 1], local[..., 0])
        middle = np.arctan2(local[..., 1].mean(1), local[..., 0].mean(1))
        beside = (azimuth - middle[:, None] + np.pi) % (2 * np.pi) - np.pi
        low, high = beside.min(1), beside.max(1)
        per_rad = self.num_columns / (2 * np.pi)
        first = np.floor((low + middle + np.pi) * per_rad).astype(int)
        last = np.ceil((high + middle + np.pi) * per_rad).astype(int) + 1
        top, bottom = self._rings(local)
        in_range = self.nearest(points_m) < self.max_range_m
        columns = self.num_columns
        out: list[tuple[Window, ...]] = []
        for i in range(len(points_m)):
            rings = slice(int(top[i]), int(bottom[i]))
            begin = int(first[i]) % columns
            end = begin + int(last[i] - first[i])
            if not in_range[i] or rings.start >= rings.stop:
                out.append(())
            elif high[i] - low[i] >= np.pi or end - begin >= columns:
                out.append(((rings, slice(0, columns)),))
            elif end <= columns:
                out.append(((rings, slice(begin, end)),))
            else:
                out.append(((rings, slice(begin, columns)), (rings, slice(0, end - columns))))
        return out

    def nearest(self, points_m: Float[np.ndarray, "p k 3"]) -> Float64[np.ndarray, "p"]:
        """Give the distance to a ball around each set."""
        middle = points_m.mean(1)
        radius = np.linalg.norm(points_m - middle[:, None], axis=2).max(1)
        return np.maximum(np.linalg.norm(middle - self.origin_m, axis=1) - radius, 0.0)

    def _rings(self, local: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Give the first ring and the one after the last that each set can meet."""
        level = local[..., :2]
        middle = level.mean(1)
        radius = np.linalg.norm(level - middle[:, None], axis=2).max(1)
        away = np.linalg.norm(middle, axis=1)
        near, far = np.maximum(away - radius, 1e-3), away + radius
        z_low, z_high = local[..., 2].min(1), local[..., 2].max(1)
        lowest = np.arctan2(z_low, np.where(z_low < 0, near, far))
        highest = np.arctan2(z_high, np.where(z_high < 0, far, near))
        downwards = -self.elevation_rad
        return np.searchsorted(downwards, -highest), np.searchsorted(downwards, -lowest, "right")
