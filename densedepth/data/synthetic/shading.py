"""Shading: from what the rays met to the light that the sensor gets."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32

from densedepth.data.synthetic.patterns import PATTERN_INDEX, sample
from densedepth.data.synthetic.raycast import Hits, shadow
from densedepth.data.synthetic.solids import Colour, Paint, Solid, normal_and_face
from densedepth.data.synthetic.views import PinholeView

_CORNER_M = 0.35
_CORNER_DARKNESS = 0.35


@dataclass(frozen=True)
class Lamp:
    """A light at a point.

    Attributes:
        place_m: where it is.
        power: its colour times its strength; with fall-off, what arrives at 1 m.
        falls_off: False for the sun, which is so far away that distance does not matter.
        casts_shadows: whether its shadows are worked out.
    """

    place_m: tuple[float, float, float]
    power: Colour
    falls_off: bool = True
    casts_shadows: bool = True


@dataclass(frozen=True)
class _Surfaces:
    """The seen surfaces, solid by solid: arrays over the hit pixels in ``order``."""

    order: np.ndarray
    points_m: np.ndarray
    normals: np.ndarray
    paint: np.ndarray
    uv_m: np.ndarray
    openness: np.ndarray
    paints: list[Paint]


def _surfaces(solids: Sequence[Solid], hits: Hits, points_m: np.ndarray) -> _Surfaces:
    flat = hits.solid.ravel()
    order = np.argsort(flat, kind="stable")
    seen, first = np.unique(flat[order], return_index=True)
    stops = np.append(first[1:], flat.size)
    skip = stops[0] if seen[0] < 0 else 0
    order = order[skip:]
    points = points_m.reshape(3, -1)[:, order]
    count = order.size
    normals = np.empty((3, count), np.float32)
    uv, paint = np.empty((2, count), np.float32), np.empty(count, np.int32)
    openness = np.ones(count, np.float32)
    paints: list[Paint] = []
    for number, start, stop in zip(seen, first, stops, strict=True):
        if number < 0:
            continue
        one, part = solids[number], slice(start - skip, stop - skip)
        unit_from_world = one.unit_from_world.astype(np.float32)
        center = np.array(one.center_m, np.float32)[:, None]
        unit = unit_from_world @ (points[:, part] - center)
        normals[:, part], uv[:, part], face = normal_and_face(one, unit)
        paint[part] = face + len(paints)
        paints.extend(one.paints)
        if one.kind == "room":
            openness[part] = _openness(one, unit)
    return _Surfaces(order, points, normals, paint, uv, openness, paints)


def _openness(room: Solid, unit: np.ndarray) -> np.ndarray:
    """Darken a room's edges, where less light gets in from all around."""
    total = np.ones(unit.shape[1], np.float32)
    beside = np.abs(unit)
    own_face = beside.argmax(0)
    for axis in range(3):
        to_wall_m = (1 - beside[axis]) * np.float32(room.half_m[axis])
        darker = _CORNER_DARKNESS * np.exp(-to_wall_m / np.float32(_CORNER_M))
        total *= 1 - np.where(own_face == axis, np.float32(0), darker)
    return total


def shade(
    view: PinholeView,
    solids: Sequence[Solid],
    hits: Hits,
    directions: Float32[np.ndarray, "3 h w"],
    lamps: Sequence[Lamp],
    *,
    ambient: Colour,
    floor_m: float = 0.0,
) -> Float32[np.ndarray, "h w 3"]:
    """Light the scene: Lambert's law, fall-off with distance, shadows, darker room edges.

    Args:
        view: the camera.
        solids: the scene.
        hits: what ``cast`` found.
        directions: ``view.directions()``.
        lamps: the lights.
        ambient: light from everywhere; two thirds of it reach a face that looks down.
        floor_m: height of the lowest ground.

    Returns:
        Linear light, any scale; 0 where nothing was hit.
    """
    reach = np.where(hits.solid >= 0, hits.distance, np.float32(0))
    origin = view.origin_m.astype(np.float32)
    points_m = directions * reach + origin[:, None, None]
    image = np.zeros((*hits.solid.shape, 3), np.float32)
    if not (hits.solid >= 0).any():
        return image
    surfaces = _surfaces(solids, hits, points_m)
    up = surfaces.normals[2]
    sky = (np.float32(5 / 6) + up * np.float32(1 / 6)) * surfaces.openness
    light = np.array(ambient, np.float32)[:, None] * sky
    for lamp in lamps:
        place = np.array(lamp.place_m, np.float64)
        to_lamp = place.astype(np.float32)[:, None] - surfaces.points_m
        squared = (to_lamp * to_lamp).sum(0)
        facing = np.maximum((to_lamp * surfaces.normals).sum(0) / np.sqrt(squared), 0)
        if lamp.falls_off:
            facing /= squared + np.float32(0.25)
        if lamp.casts_shadows:
            dark: Bool[np.ndarray, "h w"] = shadow(view, solids, points_m, place, floor_m)
            facing *= ~dark.ravel()[surfaces.order]
        facing *= np.sqrt(surfaces.openness)
        light += np.array(lamp.power, np.float32)[:, None] * facing
    distance = reach.ravel()[surfaces.order]
    slant = np.abs((directions.reshape(3, -1)[:, surfaces.order] * surfaces.normals).sum(0))
    footprint_m = distance / np.float32(view.focal_px[0])
    footprint_m /= np.sqrt(np.maximum(slant, np.float32(0.02)))
    image.reshape(-1, 3)[surfaces.order] = _painted(surfaces, footprint_m, light).T
    return _soft_edges(image, hits.solid)


def _soft_edges(image: np.ndarray, solid: np.ndarray) -> np.ndarray:
    """Blend pixels beside an outline with their neighbours: one ray per pixel makes steps."""
    edge = np.zeros(solid.shape, np.bool_)
    beside, below = solid[:, 1:] != solid[:, :-1], solid[1:] != solid[:-1]
    edge[:, 1:] |= beside
    edge[:, :-1] |= beside
    edge[1:] |= below
    edge[:-1] |= below
    rows, columns = np.nonzero(edge)
    last_row, last_column = solid.shape[0] - 1, solid.shape[1] - 1
    total = image[rows, columns] * 4
    for down, right, weight in (
        (0, 1, 2),
        (0, -1, 2),
        (1, 0, 2),
        (-1, 0, 2),
        (1, 1, 1),
        (1, -1, 1),
        (-1, 1, 1),
        (-1, -1, 1),
    ):
        near_row = np.clip(rows + down, 0, last_row)
        near_column = np.clip(columns + right, 0, last_column)
        total += image[near_row, near_column] * weight
    image[rows, columns] = total / 16
    return image


def _painted(surfaces: _Surfaces, footprint_m: np.ndarray, light: np.ndarray) -> np.ndarray:
    """Look up every point's colour and multiply it with its light."""
    paints, which = surfaces.paints, surfaces.paint
    pattern = np.array([PATTERN_INDEX[p.pattern] for p in paints], np.int32)[which]
    tile = np.array([p.tile_m for p in paints], np.float32).T[:, which]
    value = sample(
        pattern,
        surfaces.uv_m[0] / tile[0],
        surfaces.uv_m[1] / tile[1],
        footprint_m / np.minimum(tile[0], tile[1]),
    )
    low = np.array([p.low for p in paints], np.float32).T
    rise = np.array([p.high for p in paints], np.float32).T - low
    glow = np.array([p.glow for p in paints], np.float32)[which]
    return (low[:, which] + rise[:, which] * value) * (light + glow)
