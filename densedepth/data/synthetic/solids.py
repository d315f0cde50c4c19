"""Solids with paint: the convex pieces that synthetic scenes are built of.

World axes: x and y along the ground, z up, metres. A solid's *unit frame* moves its centre to
the origin and scales its half extents to 1, so that every kind is one fixed shape there.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np
from jaxtyping import Float32, Float64

Kind = Literal["room", "box", "frustum", "cylinder", "wheel", "ellipsoid"]
Colour = tuple[float, float, float]
"""Linear reflectance of red, green, blue, 0..1."""

_TINY = np.float32(1e-20)  # keeps a ray along a face from dividing by zero; changes no other
_CORNERS = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], np.float64)


@dataclass(frozen=True)
class Paint:
    """What a face looks like: a pattern between two colours.

    Attributes:
        pattern: name in ``patterns.PATTERNS``.
        low: colour where the pattern is 0.
        high: colour where the pattern is 1.
        tile_m: size of one repeat of the pattern along the face's two directions.
        glow: light that the face sends out itself, in units of its colour.
    """

    pattern: str
    low: Colour
    high: Colour
    tile_m: tuple[float, float] = (1.0, 1.0)
    glow: float = 0.0


@dataclass(frozen=True)
class Solid:
    """One convex piece.

    Attributes:
        kind: ``room`` is a box seen from within; ``wheel`` a cylinder that lies along y;
            ``frustum`` a box whose top is narrower by ``taper``.
        center_m: the middle of its bounding box.
        half_m: half its extents along its own axes.
        paints: of the sides, the top and the bottom.
        yaw_rad: turn about z, from x towards y.
        taper: of a frustum, how much of the half extent along x and y is lost at the top, 0..1.
        casts_shadow: False for what is flat or gives light.
    """

    kind: Kind
    center_m: tuple[float, float, float]
    half_m: tuple[float, float, float]
    paints: tuple[Paint, Paint, Paint]
    yaw_rad: float = 0.0
    taper: tuple[float, float] = (0.0, 0.0)
    casts_shadow: bool = True

    @cached_property
    def unit_from_world(self) -> Float64[np.ndarray, "3 3"]:
        """Give the matrix A of the unit frame: ``unit = A @ (world - center_m)``."""
        cos, sin = math.cos(self.yaw_rad), math.sin(self.yaw_rad)
        rows = np.array([[cos, sin, 0.0], [-sin, cos, 0.0], [0.0, 0.0, 1.0]])
        rows[np.abs(rows) < 1e-12] = 0.0  # a quarter turn's cosine: exact zeros save time
        unit = rows / np.array(self.half_m)[:, None]
        return unit[[0, 2, 1]] if self.kind == "wheel" else unit

    @cached_property
    def corners_m(self) -> Float64[np.ndarray, "8 3"]:
        """Give the corners of its bounding box in the world."""
        cos, sin = math.cos(self.yaw_rad), math.sin(self.yaw_rad)
        world_from_local = np.array([[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]])
        return (_CORNERS * self.half_m) @ world_from_local.T + self.center_m


def solid(
    kind: Kind,
    low_corner_m: tuple[float, float, float],
    size_m: tuple[float, float, float],
    paint: Paint | tuple[Paint, Paint, Paint],
    *,
    taper: tuple[float, float] = (0.0, 0.0),
    casts_shadow: bool = True,
) -> Solid:
    """Make an unturned solid from the lowest corner of its bounding box and its full size."""
    half = (size_m[0] / 2, size_m[1] / 2, size_m[2] / 2)
    x, y, z = low_corner_m
    paints = (paint, paint, paint) if isinstance(paint, Paint) else paint
    center = (x + half[0], y + half[1], z + half[2])
    return Solid(kind, center, half, paints, taper=taper, casts_shadow=casts_shadow)


def placed(
    solids: Iterable[Solid], x_m: float, y_m: float, yaw_rad: float, z_m: float = 0.0
) -> list[Solid]:
    """Turn a group of solids about the vertical through its origin, then move it to a place."""
    cos, sin = math.cos(yaw_rad), math.sin(yaw_rad)
    out = []
    for one in solids:
        x, y, z = one.center_m
        center = (x * cos - y * sin + x_m, x * sin + y * cos + y_m, z + z_m)
        out.append(replace(one, center_m=center, yaw_rad=one.yaw_rad + yaw_rad))
    return out


def span(
    solid: Solid,
    origin_m: Float64[np.ndarray, "3"],
    directions: Float32[np.ndarray, "3 h w"],
) -> tuple[Float32[np.ndarray, "h w"], Float32[np.ndarray, "h w"]]:
    """Say where rays from one point enter and leave a solid.

    The slab method: every kind is an intersection of pairs of surfaces, so the entry is the
    last of the entries and the exit the first of the exits.

    Args:
        solid: the solid.
        origin_m: where all the rays start, in the world.
        directions: of the rays; they need not be of length 1.

    Returns:
        Entry and exit in multiples of the directions; the entry is beyond the exit where a ray
        misses.
    """
    unit = solid.unit_from_world
    ox, oy, oz = (unit @ (origin_m - solid.center_m)).tolist()
    x_row, y_row, z_row = unit.tolist()
    dx, dy, dz = _along(x_row, directions), _along(y_row, directions), _along(z_row, directions)
    if solid.kind == "ellipsoid":
        return _round_span((ox, dx), (oy, dy), (oz, dz))
    if solid.kind in ("cylinder", "wheel"):
        return _both(_round_span((ox, dx), (oy, dy)), _slab(oz, dz))
    if solid.kind == "frustum":
        out = _slab(oz, dz)
        for o, d, taper in ((ox, dx, solid.taper[0]), (oy, dy, solid.taper[1])):
            # |x| + k z <= 1 - k, with k half the taper: full width at z = -1.
            k = taper / 2
            for sign in (1.0, -1.0):
                out = _both(out, _half_space(sign * o + k * oz, sign * d + k * dz, 1.0 - k))
        return out
    return _both(_both(_slab(ox, dx), _slab(oy, dy)), _slab(oz, dz))


def _along(row: list[float], directions: np.ndarray) -> np.ndarray:
    """Multiply one row of a matrix with every direction; most rows have one entry only."""
    x, y, z = row
    if z != 0.0:
        return z * directions[2]
    if y == 0.0:
        return x * directions[0]
    return y * directions[1] if x == 0.0 else x * directions[0] + y * directions[1]


def _both(
    a: tuple[np.ndarray, np.ndarray], b: tuple[np.ndarray, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    return np.maximum(a[0], b[0]), np.minimum(a[1], b[1])


def _slab(offset: float, rate: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Clip rays to -1 <= offset + t rate <= 1."""
    inverse = np.reciprocal(rate + _TINY)
    middle = inverse * -offset
    reach = np.abs(inverse, out=inverse)
    return middle - reach, middle + reach


def _half_space(offset: float, rate: np.ndarray, limit: float) -> tuple[np.ndarray, np.ndarray]:
    """Clip rays to offset + t rate <= limit."""
    safe = rate + _TINY
    t = (limit - offset) / safe
    entering = safe < 0
    return np.where(entering, t, np.float32(-np.inf)), np.where(entering, np.float32(np.inf), t)


def _round_span(*axes: tuple[float, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Clip rays to the sum over axes of (offset + t rate)^2 <= 1.

    From the ray's point nearest to the centre, not by the usual quadratic formula: that one
    loses all its digits in float32 when the rays start far away, as the sun's do.
    """
    zero = np.zeros((), np.float32)
    squared = sum((rate * rate for _, rate in axes), start=zero + _TINY)
    nearest = sum((rate * -offset for offset, rate in axes), start=zero) / squared
    miss = sum((np.square(rate * nearest + offset) for offset, rate in axes), start=zero)
    reach = np.sqrt(np.maximum(1 - miss, 0) / squared)
    hit = miss <= 1
    return (
        np.where(hit, nearest - reach, np.float32(np.inf)),
        np.where(hit, nearest + reach, np.float32(-np.inf)),
    )


def normal_and_face(
    solid: Solid, unit_points: Float32[np.ndarray, "3 n"]
) -> tuple[Float32[np.ndarray, "3 n"], Float32[np.ndarray, "2 n"], np.ndarray]:
    """Describe points on a solid's surface.

    Args:
        solid: the solid.
        unit_points: points in its unit frame, on its surface.

    Returns:
        The normal in the world (length 1, outwards; inwards for a room), the place on the face in
        metres, and the face: 0 side, 1 top, 2 bottom.
    """
    x, y, z = unit_points
    hx, hy, hz = solid.half_m
    normal = np.zeros_like(unit_points)
    if solid.kind == "ellipsoid":
        normal[:] = unit_points
        uv = np.stack([np.arctan2(y, x) * np.float32(hx), z * np.float32(hz)])
        face = np.zeros(x.shape, np.int32)
    elif solid.kind in ("cylinder", "wheel"):
        cap = np.abs(z) > np.hypot(x, y)
        normal[0], normal[1] = np.where(cap, 0, x), np.where(cap, 0, y)
        normal[2] = np.where(cap, np.sign(z), 0)
        side_u, side_v = np.arctan2(y, x) * np.float32(hx), z * np.float32(hz)
        uv = np.stack([np.where(cap, x * hx, side_u), np.where(cap, y * hy, side_v)])
        face = np.where(cap, np.where(z > 0, 1, 2), 0).astype(np.int32)
    else:
        kx, ky = (t / 2 for t in solid.taper)
        ax, ay, az = np.abs(x) + kx * (z + 1), np.abs(y) + ky * (z + 1), np.abs(z)
        on_z = (az >= ax) & (az >= ay)
        on_x = ~on_z & (ax >= ay)
        on_y = ~on_z & ~on_x
        normal[0], normal[1] = np.where(on_x, np.sign(x), 0), np.where(on_y, np.sign(y), 0)
        normal[2] = np.where(on_z, np.sign(z), np.where(on_x, np.float32(kx), np.float32(ky)))
        # From the lowest corner, so that whole panels or windows fill a face.
        u = np.where(on_x, (y + 1) * np.float32(hy), (x + 1) * np.float32(hx))
        v = np.where(on_z, (y + 1) * np.float32(hy), (z + 1) * np.float32(hz))
        uv = np.stack([u, v])
        face = np.where(on_z, np.where(z > 0, 1, 2), 0).astype(np.int32)
    world = solid.unit_from_world.astype(np.float32).T @ normal
    world /= np.maximum(np.sqrt((world * world).sum(0)), np.float32(1e-12))
    return (-world if solid.kind == "room" else world), uv.astype(np.float32), face


def highest_m(solids: Sequence[Solid]) -> float:
    """Give the height of the highest point of a group."""
    return max(one.center_m[2] + one.half_m[2] for one in solids)
