"""Casting: depth against formulas, and windows against casting every solid at every ray."""

import math
from dataclasses import dataclass

import numpy as np
import pytest

from densedepth.data.synthetic.lidar import lidar_view
from densedepth.data.synthetic.materials import plain
from densedepth.data.synthetic.raycast import cast, shadow
from densedepth.data.synthetic.solids import Kind, Solid, placed, solid
from densedepth.data.synthetic.views import LidarView, PinholeView, View, camera_rotation

PAINT = plain((0.5, 0.5, 0.5))
ROOM = solid("room", (0.0, 0.0, 0.0), (4.0, 6.0, 2.5), PAINT)


def camera(yaw: float = 0.0, pitch: float = 0.0, roll: float = 0.0) -> PinholeView:
    rotation = camera_rotation(yaw, pitch, roll)
    origin = np.array([1.5, 1.0, 1.4])
    return PinholeView(origin, rotation, (40.0, 42.0), (31.0, 23.5), (48, 64))


def heap(seed: int, spread: float, away: float) -> list[Solid]:
    """Scatter solids about a place so far along y."""
    rng = np.random.default_rng(seed)
    kinds: list[Kind] = ["box", "frustum", "cylinder", "wheel", "ellipsoid"]
    out = []
    for i in range(40):
        size = tuple(rng.uniform(0.2, 1.5, 3).tolist())
        one = solid(kinds[i % 5], (-0.5, -0.5, 0.0), size, PAINT, taper=(0.3, 0.6))
        x, y, z = rng.uniform((-spread, -spread, -1), (spread, spread, 3)).tolist()
        out += placed([one], x, y + away, float(rng.uniform(0, 6)), z)
    return out


@dataclass(frozen=True)
class Everywhere:
    """A view that claims to know nothing: every solid may be anywhere."""

    view: View

    @property
    def origin_m(self) -> np.ndarray:
        return self.view.origin_m

    def directions(self) -> np.ndarray:
        return self.view.directions()

    def windows(self, points_m: np.ndarray) -> list:
        _, height, width = self.view.directions().shape
        return [((slice(0, height), slice(0, width)),)] * len(points_m)

    def nearest(self, points_m: np.ndarray) -> np.ndarray:
        return np.zeros(len(points_m))


def test_a_wall_straight_ahead_has_one_depth() -> None:
    view = camera()
    hits = cast(view, [ROOM], view.directions())
    assert hits.distance[23, 31] == pytest.approx(5.0, abs=1e-5)
    np.testing.assert_allclose(hits.distance[18:29, 26:36], 5.0, atol=1e-5)


@pytest.mark.parametrize(
    ("yaw", "pitch", "roll"), [(0.0, 0.0, 0.0), (0.4, -0.2, 0.05), (2.5, 0.3, -0.1)]
)
def test_depth_in_an_empty_room_follows_from_its_six_planes(
    yaw: float, pitch: float, roll: float
) -> None:
    view = camera(yaw, pitch, roll)
    depth_m = cast(view, [ROOM], view.directions()).distance
    for row, column in [(0, 0), (0, 63), (47, 0), (47, 63), (23, 31), (40, 12), (5, 50)]:
        x = (column - 31.0) / 40.0
        y = (row - 23.5) / 42.0
        ray = view.world_from_camera @ np.array([x, y, 1.0])
        ahead = []
        for axis, size in enumerate((4.0, 6.0, 2.5)):
            for wall in (0.0, size):
                if ray[axis] != 0:
                    ahead.append((wall - view.origin_m[axis]) / ray[axis])
        assert depth_m[row, column] == pytest.approx(min(t for t in ahead if t > 0), rel=1e-4)


def test_back_projected_floor_points_lie_at_height_zero() -> None:
    view = camera(0.3, -0.35, 0.04)
    depth_m = cast(view, [ROOM], view.directions()).distance
    v, u = np.mgrid[0:48, 0:64]
    rays = np.stack([(u - 31.0) / 40.0, (v - 23.5) / 42.0, np.ones_like(u, float)], -1)
    points = (rays * depth_m[..., None]) @ view.world_from_camera.T + view.origin_m
    off_walls = (points[..., :2] > 0.01).all(-1) & (points[..., :2] < (3.99, 5.99)).all(-1)
    floor = off_walls & (points[..., 2] < 1)
    assert floor.mean() > 0.2
    assert np.abs(points[floor][:, 2]).max() < 1e-4
    assert points[..., 2].max() < 2.5 + 1e-4


def test_the_camera_looks_along_y_and_its_picture_is_upright() -> None:
    rotation = camera_rotation(0.0, 0.0, 0.0)
    np.testing.assert_allclose(rotation @ [0, 0, 1], [0, 1, 0], atol=1e-12)
    np.testing.assert_allclose(rotation @ [1, 0, 0], [1, 0, 0], atol=1e-12)
    np.testing.assert_allclose(rotation @ [0, 1, 0], [0, 0, -1], atol=1e-12)
    tipped = camera_rotation(0.7, 0.3, 0.2)
    np.testing.assert_allclose(tipped @ tipped.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(tipped) == pytest.approx(1.0)
    assert (tipped @ [0, 0, 1])[2] == pytest.approx(math.sin(0.3))


@pytest.mark.parametrize("seed", range(4))
def test_windows_of_a_camera_lose_no_hit(seed: int) -> None:
    view, scene = camera(seed * 0.1, -0.1, 0.02), heap(seed, 3.0, 5.0)
    some, all_ = (cast(v, scene, view.directions()) for v in (view, Everywhere(view)))
    np.testing.assert_array_equal(some.solid, all_.solid)
    np.testing.assert_array_equal(some.distance, all_.distance)
    assert len(np.unique(some.solid)) > 5


@pytest.mark.parametrize("seed", range(4))
def test_windows_of_a_scanner_lose_no_hit(seed: int) -> None:
    turn = camera_rotation(seed * 1.1, 0.05, 0.03)
    view = lidar_view(np.array([0.2, -0.3, 1.7]), turn, 200)
    scene = heap(seed, 12.0, 0.0)
    some, all_ = (cast(v, scene, view.directions()) for v in (view, Everywhere(view)))
    np.testing.assert_array_equal(some.solid, all_.solid)
    np.testing.assert_array_equal(some.distance, all_.distance)
    assert (some.solid >= 0).mean() > 0.02


def test_what_is_out_of_the_scanners_range_is_not_cast() -> None:
    view = LidarView(np.zeros(3), np.eye(3), np.array([0.0]), 90, 50.0)
    near, far = solid("box", (40.0, -1.0, -1.0), (1.0, 2.0, 2.0), PAINT), None
    far = solid("box", (60.0, -1.0, -1.0), (1.0, 2.0, 2.0), PAINT)
    assert view.windows(np.stack([near.corners_m]))[0]
    assert view.windows(np.stack([far.corners_m]))[0] == ()


def test_a_box_shades_the_floor_behind_it_and_not_before_it() -> None:
    box = solid("box", (1.5, 3.0, 0.0), (1.0, 0.5, 1.0), PAINT)
    lamp = np.array([2.0, 1.0, 2.0])
    view = camera()
    # From 2 m up over the box's far upper edge, 2.5 m on and 1 m down: dark up to y = 6.
    y = np.array([2.0, 2.9, 3.6, 4.5, 5.9, 6.1, 8.0], np.float32)
    points = np.zeros((3, 1, 7), np.float32)
    points[0], points[1] = 2.0, y
    dark = shadow(Everywhere(view), [box], np.tile(points, (1, 48, 1)).repeat(10, 2)[:, :, :64],
                  lamp, 0.0)  # fmt: skip
    assert dark[0, ::10].tolist() == [False, False, True, True, True, False, False]


@pytest.mark.parametrize("seed", range(3))
def test_windows_of_shadows_lose_no_darkness(seed: int) -> None:
    view, scene = camera(0.2, -0.3, 0.0), [ROOM, *heap(seed, 1.5, 4.0)]
    lamp = np.array([2.0, 3.0, 2.45])
    directions = view.directions()
    hits = cast(view, scene, directions)
    points = directions * hits.distance + view.origin_m.astype(np.float32)[:, None, None]
    some, all_ = (shadow(v, scene, points, lamp, -1.0) for v in (view, Everywhere(view)))
    assert all_.mean() > 0.02
    # Shadows of a few pixels are left out on purpose.
    assert (some != all_).mean() < 0.01
