"""Solids against marching along the ray: the obvious way to find where it enters and leaves."""

import math

import numpy as np
import pytest

from densedepth.data.synthetic.materials import plain
from densedepth.data.synthetic.solids import Kind, Solid, normal_and_face, placed, solid, span

PAINT = plain((0.5, 0.5, 0.5))
KINDS: list[Kind] = ["box", "frustum", "cylinder", "wheel", "ellipsoid"]


def some_solid(kind: Kind, seed: int) -> Solid:
    rng = np.random.default_rng(seed)
    center, half = rng.uniform(-0.5, 0.5, 3).tolist(), rng.uniform(0.3, 1.2, 3).tolist()
    taper = tuple(rng.uniform(0, 1, 2).tolist()) if kind == "frustum" else (0.0, 0.0)
    yaw = float(rng.uniform(-4, 4)) if seed % 3 else seed * math.pi / 6
    return Solid(kind, tuple(center), tuple(half), (PAINT,) * 3, yaw, taper)


def inside(one: Solid, points: np.ndarray) -> np.ndarray:
    """Say which of n points are inside, from the kind's definition."""
    x, y, z = (points - one.center_m).T
    cos, sin = math.cos(one.yaw_rad), math.sin(one.yaw_rad)
    x, y = x * cos + y * sin, -x * sin + y * cos
    hx, hy, hz = one.half_m
    if one.kind == "ellipsoid":
        return (x / hx) ** 2 + (y / hy) ** 2 + (z / hz) ** 2 <= 1
    if one.kind == "cylinder":
        return ((x / hx) ** 2 + (y / hy) ** 2 <= 1) & (abs(z) <= hz)
    if one.kind == "wheel":
        return ((x / hx) ** 2 + (z / hz) ** 2 <= 1) & (abs(y) <= hy)
    height = (z + hz) / (2 * hz)
    narrow_x, narrow_y = hx * (1 - one.taper[0] * height), hy * (1 - one.taper[1] * height)
    return (abs(x) <= narrow_x) & (abs(y) <= narrow_y) & (abs(z) <= hz)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(6))
def test_rays_enter_and_leave_where_marching_says(kind: Kind, seed: int) -> None:
    one = some_solid(kind, seed)
    rng = np.random.default_rng(100 + seed)
    origin = rng.normal(size=3)
    origin *= 4 / np.linalg.norm(origin)
    aims = rng.uniform(-1.2, 1.2, (3, 5, 8))
    directions = ((aims - origin[:, None, None]) / 4).astype(np.float32)
    enter, leave = span(one, origin, directions)
    steps = np.arange(0, 8, 0.002)
    num_hits = 0
    for row, column in np.ndindex(5, 8):
        points = origin + steps[:, None] * directions[:, row, column].astype(np.float64)
        within = inside(one, points)
        if within.any():
            first, last = steps[within][0], steps[within][-1]
            assert enter[row, column] == pytest.approx(first, abs=0.004)
            assert leave[row, column] == pytest.approx(last, abs=0.004)
            num_hits += 1
        else:
            assert leave[row, column] - enter[row, column] < 0.004
    assert num_hits > 5


@pytest.mark.parametrize("kind", KINDS)
def test_normals_point_out_of_the_solid(kind: Kind) -> None:
    one = some_solid(kind, 4)
    rng = np.random.default_rng(7)
    origin = np.array([3.0, -2.5, 2.0])
    aims = rng.uniform(-0.8, 0.8, (3, 1, 200))
    directions = (aims - origin[:, None, None]).astype(np.float32)
    enter, leave = span(one, origin, directions)
    met = (leave - enter)[0] > 0.05
    points = (origin[:, None] + enter[0] * directions[:, 0])[:, met]
    unit = one.unit_from_world @ (points - np.array(one.center_m)[:, None])
    normal, uv_m, face = normal_and_face(one, unit.astype(np.float32))
    assert met.sum() > 20
    np.testing.assert_allclose(np.linalg.norm(normal, axis=0), 1, atol=1e-5)
    assert not inside(one, (points + 0.003 * normal).T).any()
    assert inside(one, (points - 0.003 * normal).T).mean() > 0.97  # not beside an edge
    assert set(np.unique(face)) <= {0, 1, 2}
    assert np.isfinite(uv_m).all()


def test_a_room_is_seen_from_within() -> None:
    room = solid("room", (0.0, 0.0, 0.0), (4.0, 6.0, 2.5), PAINT)
    unit = room.unit_from_world @ (np.array([[1.0, 3.0, 0.0], [0.0, 2.0, 1.0]]) - room.center_m).T
    normal, _, face = normal_and_face(room, unit.astype(np.float32))
    np.testing.assert_allclose(normal.T, [[0, 0, 1], [1, 0, 0]], atol=1e-6)
    assert face.tolist() == [2, 0]


def test_the_sun_two_kilometres_off_still_hits_a_thin_pole() -> None:
    pole = solid("cylinder", (5.0, 3.0, 0.0), (0.06, 0.06, 6.0), PAINT)
    sun = np.array([1200.0, 900.0, 1300.0])
    offsets = np.linspace(-0.06, 0.06, 25)
    across = np.array([-900.0, 1200.0, 0.0]) / 1500
    targets = np.array([5.03, 3.03, 3.0]) + offsets[:, None] * across
    directions = (targets - sun).T[:, None].astype(np.float32)
    enter, leave = span(pole, sun, directions)
    hit = (enter <= leave)[0]
    assert hit[np.abs(offsets) < 0.028].all()
    assert not hit[np.abs(offsets) > 0.032].any()


def test_placing_turns_about_the_origin_and_then_moves() -> None:
    one = solid("box", (1.0, -0.5, 0.0), (2.0, 1.0, 1.0), PAINT)
    (moved,) = placed([one], 10.0, 20.0, math.pi / 2, 3.0)
    assert moved.center_m == pytest.approx((10.0, 22.0, 3.5))
    low, high = moved.corners_m.min(0), moved.corners_m.max(0)
    np.testing.assert_allclose(low, [9.5, 21.0, 3.0], atol=1e-9)
    np.testing.assert_allclose(high, [10.5, 23.0, 4.0], atol=1e-9)
