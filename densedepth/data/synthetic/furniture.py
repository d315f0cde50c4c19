"""Furniture to sit, lie and work at: groups of solids of usual sizes.

Each piece stands on the floor with its back at y = 0, its middle at x = 0, and faces +y. Usual
sizes matter: a chair's seat at 0.45 m is what tells a picture's scale.
"""

from dataclasses import dataclass

import numpy as np

from densedepth.data.synthetic import materials
from densedepth.data.synthetic.solids import Kind, Paint, Solid, solid

_LAMPLIGHT = (1.0, 0.86, 0.62)


@dataclass(frozen=True)
class Piece:
    """A piece of furniture.

    Attributes:
        solids: in the piece's own frame.
        width_m: along x.
        deep_m: along y.
        glow_m: where it gives light, if it does.
    """

    solids: list[Solid]
    width_m: float
    deep_m: float
    glow_m: tuple[float, float, float] | None = None


def _legs(wide: float, deep: float, tall: float, thick: float, paint: Paint) -> list[Solid]:
    inset = 0.03
    return [
        solid("box", (x, y, 0.0), (thick, thick, tall), paint)
        for x in (-wide / 2 + inset, wide / 2 - inset - thick)
        for y in (inset, deep - inset - thick)
    ]


_CLUTTER: tuple[Kind, ...] = ("box", "box", "cylinder", "ellipsoid")


def clutter(
    rng: np.random.Generator, wide: float, deep: float, top: float, most: int
) -> list[Solid]:
    """Leave small things on a surface: books, boxes, cups, a bowl."""
    out: list[Solid] = []
    for _ in range(int(rng.integers(0, most + 1))):
        paint = materials.plain(materials.vivid(rng, 0.5, 0.5))
        kind = _CLUTTER[int(rng.integers(4))]
        size = (
            (rng.uniform(0.12, 0.3), rng.uniform(0.1, 0.24), rng.uniform(0.02, 0.2))
            if kind == "box"
            else (0.09, 0.09, float(rng.uniform(0.08, 0.16)))
        )
        sx, sy, sz = (float(x) for x in size)
        x = float(rng.uniform(-wide / 2, max(wide / 2 - sx, -wide / 2 + 0.01)))
        y = float(rng.uniform(0, max(deep - sy, 0.01)))
        out.append(solid(kind, (x, y, top), (sx, sy, sz), paint))
    return out


def table(rng: np.random.Generator) -> Piece:
    """Make a dining table or desk with things on it."""
    wide, deep = float(rng.uniform(1.0, 1.9)), float(rng.uniform(0.65, 0.95))
    paint, tall = materials.wood(rng), float(rng.uniform(0.72, 0.77))
    top = solid("box", (-wide / 2, 0.0, tall - 0.035), (wide, deep, 0.035), paint)
    legs = _legs(wide, deep, tall - 0.035, 0.055, paint)
    return Piece([top, *legs, *clutter(rng, wide, deep, tall, 5)], wide, deep)


def coffee_table(rng: np.random.Generator) -> Piece:
    """Make a low table."""
    wide, deep = float(rng.uniform(0.8, 1.3)), float(rng.uniform(0.5, 0.7))
    paint, tall = materials.wood(rng), float(rng.uniform(0.38, 0.46))
    top = solid("box", (-wide / 2, 0.0, tall - 0.04), (wide, deep, 0.04), paint)
    legs = _legs(wide, deep, tall - 0.04, 0.06, paint)
    return Piece([top, *legs, *clutter(rng, wide, deep, tall, 3)], wide, deep)


def chair(rng: np.random.Generator) -> Piece:
    """Make a dining chair, wooden or padded."""
    frame = materials.wood(rng)
    seat = materials.fabric(rng) if rng.random() < 0.5 else frame
    top = float(rng.uniform(0.82, 1.0))
    back = [
        solid("box", (-0.21, 0.02, 0.6), (0.42, 0.03, top - 0.6), seat),
        solid("box", (-0.21, 0.02, 0.45), (0.035, 0.03, 0.15), frame),
        solid("box", (0.175, 0.02, 0.45), (0.035, 0.03, 0.15), frame),
    ]
    legs = _legs(0.42, 0.44, 0.42, 0.035, frame)
    return Piece(
        [solid("box", (-0.21, 0.0, 0.42), (0.42, 0.44, 0.04), seat), *back, *legs], 0.42, 0.46
    )


def office_chair(rng: np.random.Generator) -> Piece:
    """Make a turning chair on one column."""
    paint = materials.dark(rng) if rng.random() < 0.6 else materials.fabric(rng)
    metal = materials.plain((0.2, 0.2, 0.2))
    return Piece(
        [
            solid("frustum", (-0.26, 0.0, 0.0), (0.52, 0.52, 0.12), metal, taper=(0.8, 0.8)),
            solid("cylinder", (-0.03, 0.23, 0.08), (0.06, 0.06, 0.35), metal),
            solid("box", (-0.24, 0.02, 0.43), (0.48, 0.48, 0.08), paint),
            solid("box", (-0.22, 0.0, 0.55), (0.44, 0.07, 0.5), paint),
        ],
        0.52,
        0.52,
    )


def bed(rng: np.random.Generator) -> Piece:
    """Make a single or double bed with head board, mattress, cover and pillows."""
    wide, long = float(rng.choice([0.95, 1.4, 1.65])), float(rng.uniform(1.95, 2.15))
    frame, linen, cover = materials.wood(rng), materials.bedding(rng), materials.bedding(rng)
    tall = float(rng.uniform(0.45, 0.6))
    half = wide / 2
    parts = [
        solid(
            "box",
            (-half - 0.03, 0.0, 0.0),
            (wide + 0.06, 0.05, float(rng.uniform(0.8, 1.2))),
            frame,
        ),
        solid("box", (-half, 0.05, 0.05), (wide, long, tall - 0.25), frame),
        solid("box", (-half + 0.01, 0.05, tall - 0.2), (wide - 0.02, long - 0.02, 0.2), linen),
        solid(
            "frustum",
            (-half - 0.02, 0.75, 0.15),
            (wide + 0.04, long - 0.68, tall - 0.1),
            cover,
            taper=(0.03, 0.02),
        ),
    ]
    num_pillows = 1 if wide < 1.2 else 2
    each = wide / num_pillows
    for i in range(num_pillows):
        parts.append(
            solid(
                "ellipsoid",
                (-half + i * each + 0.06, 0.1, tall - 0.05),
                (each - 0.12, 0.42, 0.2),
                linen,
            )
        )
    return Piece(parts, wide + 0.06, long + 0.1)


def sofa(rng: np.random.Generator) -> Piece:
    """Make an armchair or sofa with cushions."""
    seats = int(rng.integers(1, 4))
    paint, deep = materials.fabric(rng), float(rng.uniform(0.82, 0.98))
    inner = 0.62 * seats
    wide = inner + 0.4
    parts = [
        solid("box", (-wide / 2, 0.0, 0.06), (wide, deep - 0.05, 0.24), paint),
        solid("frustum", (-wide / 2, 0.0, 0.3), (wide, 0.28, 0.55), paint, taper=(0.04, 0.35)),
        solid("box", (-wide / 2, 0.0, 0.06), (0.2, deep, 0.54), paint),
        solid("box", (wide / 2 - 0.2, 0.0, 0.06), (0.2, deep, 0.54), paint),
    ]
    for i in range(seats):
        x = -inner / 2 + 0.62 * i
        parts.append(solid("box", (x + 0.01, 0.2, 0.3), (0.6, deep - 0.2, 0.14), paint))
    if rng.random() < 0.7:
        x = float(rng.uniform(-inner / 2, inner / 2 - 0.45))
        parts.append(solid("ellipsoid", (x, 0.22, 0.42), (0.45, 0.22, 0.42), materials.fabric(rng)))
    return Piece(parts, wide, deep)


def desk(rng: np.random.Generator) -> Piece:
    """Make a desk with a screen, a keyboard and drawers."""
    base = table(rng)
    wide, deep, top = base.width_m, base.deep_m, base.solids[0]
    height = top.center_m[2] + top.half_m[2]
    black = materials.dark(rng)
    glass = Paint("painting", (0.02, 0.04, 0.08), (0.3, 0.4, 0.5), (0.8, 0.8), 0.5)
    parts = [
        *base.solids,
        solid("box", (-0.1, 0.1, height), (0.2, 0.15, 0.015), black),
        solid("box", (-0.02, 0.14, height), (0.04, 0.03, 0.12), black),
        solid("box", (-0.27, 0.13, height + 0.1), (0.54, 0.03, 0.33), black),
        solid("box", (-0.25, 0.155, height + 0.12), (0.5, 0.008, 0.29), glass),
        solid("box", (-0.2, 0.35, height), (0.42, 0.14, 0.02), black),
        solid("box", (wide / 2 - 0.45, 0.03, 0.05), (0.4, deep - 0.08, 0.6), materials.wood(rng)),
    ]
    return Piece(parts, wide, deep)


def floor_lamp(rng: np.random.Generator) -> Piece:
    """Make a lamp on a tall stand."""
    tall, metal = float(rng.uniform(1.35, 1.75)), materials.dark(rng)
    shade = materials.plain(_LAMPLIGHT, 1.6)
    parts = [
        solid("cylinder", (-0.14, 0.04, 0.0), (0.28, 0.28, 0.03), metal),
        solid(
            "cylinder", (-0.013, 0.167, 0.0), (0.026, 0.026, tall - 0.2), metal, casts_shadow=False
        ),
        solid(
            "frustum",
            (-0.19, -0.01, tall - 0.28),
            (0.38, 0.38, 0.28),
            shade,
            taper=(0.4, 0.4),
            casts_shadow=False,
        ),
    ]
    return Piece(parts, 0.4, 0.4, (0.0, 0.18, tall - 0.1))


def plant(rng: np.random.Generator) -> Piece:
    """Make a plant in a pot."""
    pot, leaves = (
        materials.plain(materials.pick(rng, ("#a5572f", "#e6e2da"))),
        materials.foliage(rng),
    )
    tall = float(rng.uniform(0.5, 1.1))
    parts = [solid("cylinder", (-0.16, 0.04, 0.0), (0.32, 0.32, 0.3), pot)]
    for _ in range(4):
        x, y, z = rng.uniform((-0.3, -0.05, 0.25), (0.02, 0.2, tall - 0.15)).tolist()
        parts.append(solid("ellipsoid", (x, y, z), (0.3, 0.3, 0.42), leaves))
    return Piece(parts, 0.5, 0.5)


def cartons(rng: np.random.Generator) -> Piece:
    """Make a pile of boxes."""
    paint = materials.plain(materials.pick(rng, ("#b08d5e", "#c4a273", "#d8d4cc")))
    size = float(rng.uniform(0.3, 0.5))
    parts = [solid("box", (-size / 2, 0.02, 0.0), (size, size * 0.8, size * 0.7), paint)]
    if rng.random() < 0.6:
        parts.append(solid("box", (-size / 3, 0.04, size * 0.7), (size * 0.7, 0.25, 0.22), paint))
    return Piece(parts, size, size * 0.85)


def screen(rng: np.random.Generator) -> Piece:
    """Make a television on a low board."""
    wide, paint, black = float(rng.uniform(1.1, 1.7)), materials.wood(rng), materials.dark(rng)
    parts = [
        solid("box", (-wide / 2, 0.0, 0.1), (wide, 0.42, 0.38), paint),
        solid("box", (-0.2, 0.12, 0.48), (0.4, 0.2, 0.03), black),
        solid("box", (-wide * 0.36, 0.2, 0.53), (wide * 0.72, 0.05, wide * 0.42), black),
    ]
    return Piece(parts, wide, 0.45)
