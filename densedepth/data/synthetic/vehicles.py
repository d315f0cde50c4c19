"""Vehicles and people: what stands or drives on a street, of usual sizes.

Each stands on the ground with its middle at the origin and looks along +x.
"""

import numpy as np

from densedepth.data.synthetic import materials
from densedepth.data.synthetic.solids import Paint, Solid, solid

_GLASS = materials.plain((0.03, 0.04, 0.05))
_RUBBER = materials.plain((0.02, 0.02, 0.02))
_RIM = materials.plain((0.35, 0.35, 0.36))
_RED = materials.plain((0.5, 0.02, 0.02), 0.3)
_LAMP = materials.plain((0.8, 0.8, 0.75), 0.3)
_PLATE = materials.plain((0.75, 0.75, 0.7))


def _wheels(axles_x: tuple[float, ...], half_width: float, radius: float) -> list[Solid]:
    out = []
    size, rim = (2 * radius, 0.2, 2 * radius), (1.2 * radius, 0.21, 1.2 * radius)
    for x in axles_x:
        for y in (-half_width, half_width - 0.2):
            out.append(solid("wheel", (x - radius, y, 0.0), size, _RUBBER))
            inset = (x - 0.6 * radius, y - 0.005, 0.4 * radius)
            out.append(solid("wheel", inset, rim, _RIM, casts_shadow=False))
    return out


def _lights(length: float, wide: float, low: float) -> list[Solid]:
    out = [solid("box", (-length / 2 - 0.01, -0.26, low - 0.12), (0.02, 0.52, 0.11), _PLATE)]
    for y in (-wide / 2 + 0.04, wide / 2 - 0.34):
        out.append(solid("box", (-length / 2 - 0.01, y, low), (0.04, 0.3, 0.14), _RED))
        out.append(solid("box", (length / 2 - 0.03, y, low - 0.05), (0.04, 0.3, 0.14), _LAMP))
    return [_without_shadow(one) for one in out]


def _without_shadow(one: Solid) -> Solid:
    return Solid(
        one.kind, one.center_m, one.half_m, one.paints, one.yaw_rad, one.taper, casts_shadow=False
    )


def car(rng: np.random.Generator) -> list[Solid]:
    """Make a small car, a saloon or an estate."""
    long, wide = float(rng.uniform(3.8, 4.7)), float(rng.uniform(1.68, 1.84))
    tall, waist = float(rng.uniform(1.42, 1.58)), float(rng.uniform(0.86, 0.94))
    paint = materials.car_paint(rng)
    cabin_long = long * float(rng.uniform(0.56, 0.7))
    back = float(rng.uniform(-0.5, -0.42)) * long + 0.12
    lean = float(rng.uniform(0.28, 0.4))
    cabin = (cabin_long, wide - 0.1, tall - waist)
    roof_long, roof_wide = cabin_long * (1 - lean), (wide - 0.1) * 0.8
    roof = (back + cabin_long * lean / 2, -roof_wide / 2, tall - 0.03)
    return [
        solid("box", (-long / 2, -wide / 2, 0.24), (long, wide, 0.36), paint),
        solid(
            "frustum",
            (-long / 2, -wide / 2, 0.6),
            (long, wide, waist - 0.6),
            paint,
            taper=(0.06, 0.1),
        ),
        solid("frustum", (back, -wide / 2 + 0.05, waist - 0.01), cabin, _GLASS, taper=(lean, 0.2)),
        solid("box", roof, (roof_long, roof_wide, 0.05), paint),
        *_wheels((-long * 0.3, long * 0.31), wide / 2, 0.31),
        *_lights(long, wide, 0.66),
    ]


def van(rng: np.random.Generator) -> list[Solid]:
    """Make a delivery van."""
    long, wide, tall = float(rng.uniform(4.9, 5.9)), 1.98, float(rng.uniform(2.1, 2.7))
    paint = materials.car_paint(rng)
    nose = 0.75
    box_long = long - nose - 0.7
    return [
        solid("box", (-long / 2, -wide / 2, 0.3), (box_long, wide, tall - 0.3), paint),
        solid(
            "frustum",
            (-long / 2 + 0.3, -wide / 2 + 0.02, 1.1),
            (long - 0.8, wide - 0.04, tall - 1.15),
            _GLASS,
            taper=(0.32, 0.12),
        ),
        solid("box", (-long / 2, -wide / 2, 0.3), (long, wide, 0.82), paint),
        solid("box", (-long / 2 - 0.01, -wide / 2 + 0.15, 1.3), (0.02, wide - 0.3, 0.5), _GLASS),
        *_wheels((-long * 0.3, long * 0.33), wide / 2, 0.34),
        *_lights(long, wide, 0.8),
    ]


def truck(rng: np.random.Generator) -> list[Solid]:
    """Make a lorry with a box."""
    long, wide, tall = float(rng.uniform(7.0, 9.5)), 2.5, float(rng.uniform(3.2, 3.8))
    cab, load = materials.car_paint(rng), materials.vivid(rng, 0.5, 0.6)
    canvas = Paint("stripes", materials.scaled(load, 0.9), load, (2.0, 2.0))
    return [
        solid("box", (-long / 2, -wide / 2, 1.0), (long - 2.3, wide, tall - 1.0), canvas),
        solid("box", (-long / 2, -wide / 2 + 0.3, 0.6), (long, wide - 0.6, 0.4), _RUBBER),
        solid("box", (long / 2 - 2.1, -wide / 2 + 0.05, 0.5), (2.1, wide - 0.1, 2.3), cab),
        solid("box", (long / 2 - 0.9, -wide / 2 + 0.02, 1.6), (0.92, wide - 0.04, 0.85), _GLASS),
        *_wheels((-long * 0.34, -long * 0.2, long * 0.36), wide / 2, 0.48),
        *_lights(long, wide, 0.85),
    ]


def vehicle(rng: np.random.Generator) -> tuple[list[Solid], float]:
    """Make a vehicle of any kind.

    Returns:
        Its solids and its length in metres.
    """
    chance = rng.random()
    solids = car(rng) if chance < 0.82 else van(rng) if chance < 0.94 else truck(rng)
    reach = max(one.center_m[0] + one.half_m[0] for one in solids)
    return solids, 2 * reach


def person(rng: np.random.Generator) -> list[Solid]:
    """Make a pedestrian."""
    tall = float(rng.uniform(1.55, 1.88))
    coat, legs = materials.plain(materials.vivid(rng, 0.5, 0.4)), materials.dark(rng)
    skin = materials.plain(materials.pick(rng, ("#c9a080", "#8a6248", "#e0b898")))
    hips = tall * 0.48
    return [
        solid("cylinder", (-0.09, -0.16, 0.0), (0.17, 0.15, hips), legs),
        solid("cylinder", (-0.05, 0.01, 0.0), (0.17, 0.15, hips), legs),
        solid(
            "frustum",
            (-0.14, -0.24, hips - 0.02),
            (0.28, 0.48, tall * 0.36),
            coat,
            taper=(0.1, 0.15),
        ),
        solid("ellipsoid", (-0.1, -0.09, tall - 0.25), (0.2, 0.18, 0.25), skin),
    ]
