"""Fixtures: what hangs on a room's walls and ceiling.

Like furniture, each has its back at y = 0, its middle at x = 0, and faces +y.
"""

import numpy as np

from densedepth.data.synthetic import materials
from densedepth.data.synthetic.shading import Lamp
from densedepth.data.synthetic.solids import Paint, Solid, solid

_SILL_M = 0.9


def picture(rng: np.random.Generator) -> list[Solid]:
    """Hang a framed picture at eye height."""
    wide, high = float(rng.uniform(0.3, 0.9)), float(rng.uniform(0.3, 0.8))
    low = float(rng.uniform(1.2, 1.5))
    shadow_tone, bright_tone = materials.vivid(rng, 0.6, 0.3), materials.vivid(rng, 0.4, 0.8)
    canvas = Paint("painting", shadow_tone, bright_tone, (wide, high))
    outer, inner = (wide, 0.02, high), (wide - 0.08, 0.025, high - 0.08)
    return [
        solid("box", (-wide / 2, 0.0, low), outer, materials.wood(rng), casts_shadow=False),
        solid("box", (-wide / 2 + 0.04, 0.0, low + 0.04), inner, canvas, casts_shadow=False),
    ]


def skirting_board(length_m: float, paint: Paint) -> list[Solid]:
    """Run a board along the foot of a wall."""
    return [
        solid("box", (-length_m / 2, 0.0, 0.0), (length_m, 0.012, 0.09), paint, casts_shadow=False)
    ]


def door(rng: np.random.Generator, frame: Paint) -> list[Solid]:
    """Set a closed door of the usual 0.8 by 2 m in its frame."""
    leaf = materials.wood(rng)
    panel = Paint("panel", materials.scaled(leaf.low, 0.7), leaf.high, (0.8, 1.0))
    handle = materials.plain((0.3, 0.3, 0.3))
    return [
        solid("box", (-0.47, 0.0, 0.0), (0.94, 0.03, 2.07), frame, casts_shadow=False),
        solid("box", (-0.4, 0.0, 0.0), (0.8, 0.04, 2.0), panel, casts_shadow=False),
        solid("box", (0.25, 0.04, 1.0), (0.11, 0.05, 0.02), handle),
    ]


def window(rng: np.random.Generator, frame: Paint) -> tuple[list[Solid], float, float]:
    """Set a window, by day or by night, with or without curtains.

    Returns:
        Its solids, the height of its middle in metres, and how much daylight it lets in.
    """
    wide, high = float(rng.uniform(1.0, 1.8)), float(rng.uniform(1.0, 1.4))
    day = float(rng.choice([0.05, 1.5, 2.5]))
    glass = Paint("panes", (0.5, 0.5, 0.5), (0.75, 0.88, 1.0), (wide / 2, high), day)
    border = (wide + 0.12, 0.03, high + 0.12)
    parts = [
        solid("box", (-wide / 2 - 0.06, 0.0, _SILL_M - 0.06), border, frame, casts_shadow=False),
        solid("box", (-wide / 2, 0.0, _SILL_M), (wide, 0.035, high), glass, casts_shadow=False),
        solid("box", (-wide / 2 - 0.1, 0.0, _SILL_M - 0.1), (wide + 0.2, 0.12, 0.04), frame),
    ]
    if rng.random() < 0.6:
        cloth = materials.fabric(rng)
        folds = Paint("stripes", cloth.low, cloth.high, (0.6, 0.6))
        for x in (-wide / 2 - 0.35, wide / 2 + 0.02):
            parts.append(solid("box", (x, 0.03, 0.1), (0.33, 0.07, 2.2), folds))
    return parts, _SILL_M + high / 2, day


def ceiling_lamp(
    rng: np.random.Generator, x_m: float, y_m: float, ceiling_m: float
) -> tuple[list[Solid], Lamp]:
    """Fix a lamp to the ceiling, or hang it from a cord."""
    warm = (1.0, float(rng.uniform(0.78, 0.97)), float(rng.uniform(0.55, 0.95)))
    glass, cord = materials.plain(warm, 3.0), materials.plain((0.05, 0.05, 0.05))
    drop = float(rng.choice([0.02, 0.02, 0.4]))
    low = (x_m - 0.17, y_m - 0.17, ceiling_m - drop - 0.12)
    hangs = drop > 0.1
    bulb = solid(
        "ellipsoid" if hangs else "cylinder", low, (0.34, 0.34, 0.12), glass, casts_shadow=False
    )
    solids = [bulb]
    if hangs:
        start = (x_m - 0.01, y_m - 0.01, ceiling_m - drop)
        solids.append(solid("cylinder", start, (0.02, 0.02, drop), cord, casts_shadow=False))
    power = materials.scaled(warm, float(rng.uniform(2.0, 3.5)))
    return solids, Lamp((x_m, y_m, ceiling_m - drop - 0.15), power)
