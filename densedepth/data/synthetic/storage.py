"""Furniture to keep things in: shelves, cupboards, kitchen units.

In the same frame as other furniture: the back at y = 0, the middle at x = 0, facing +y.
"""

import numpy as np

from densedepth.data.synthetic import materials
from densedepth.data.synthetic.furniture import Piece, clutter
from densedepth.data.synthetic.solids import Paint, solid


def bookshelf(rng: np.random.Generator) -> Piece:
    """Make an open shelf with rows of books."""
    wide, deep = float(rng.uniform(0.7, 1.3)), float(rng.uniform(0.25, 0.36))
    rows = int(rng.integers(3, 7))
    paint, pitch = materials.wood(rng), float(rng.uniform(0.3, 0.38))
    tall = rows * pitch + 0.05
    parts = [
        solid("box", (-wide / 2, 0.0, 0.0), (wide, 0.015, tall), paint),
        solid("box", (-wide / 2, 0.0, 0.0), (0.025, deep, tall), paint),
        solid("box", (wide / 2 - 0.025, 0.0, 0.0), (0.025, deep, tall), paint),
    ]
    for row in range(rows + 1):
        z = row * pitch + 0.02
        parts.append(solid("box", (-wide / 2, 0.0, z), (wide, deep, 0.025), paint))
        x = -wide / 2 + 0.03
        while row < rows and x < wide / 2 - 0.2:
            run = float(min(rng.uniform(0.12, 0.45), wide / 2 - 0.04 - x))
            if rng.random() < 0.8:
                base = materials.vivid(rng, 0.6, 0.45)
                books = Paint("books", materials.scaled(base, 0.15), base, (0.7, 0.3))
                high = float(rng.uniform(0.17, pitch - 0.06))
                parts.append(
                    solid(
                        "box",
                        (x, 0.02, z + 0.025),
                        (run, deep * 0.75, high),
                        books,
                        casts_shadow=False,
                    )
                )
            x += run + 0.01
    return Piece(parts, wide, deep)


def cabinet(rng: np.random.Generator) -> Piece:
    """Make a chest of drawers, a sideboard or a wardrobe."""
    wide = float(rng.uniform(0.7, 1.9))
    tall = float(rng.choice([0.75, 0.9, 1.2, 1.95, 2.1]))
    deep = float(rng.uniform(0.4, 0.6))
    body = materials.wood(rng)
    doors = max(1, round(wide / 0.5))
    high = tall if tall > 1.5 else tall / int(rng.integers(1, 4))
    front = Paint("panel", materials.scaled(body.low, 0.6), body.high, (wide / doors, high))
    parts = [
        solid("box", (-wide / 2, 0.0, 0.0), (wide, deep - 0.02, tall), body),
        solid(
            "box", (-wide / 2 + 0.01, deep - 0.02, 0.06), (wide - 0.02, 0.02, tall - 0.08), front
        ),
    ]
    if tall < 1.5:
        parts.extend(clutter(rng, wide, deep, tall, 4))
    return Piece(parts, wide, deep)


def counter(rng: np.random.Generator) -> Piece:
    """Make a kitchen unit: lower cupboards, a worktop and cupboards on the wall above."""
    wide = float(rng.uniform(1.4, 3.0))
    doors = max(2, round(wide / 0.55))
    body, top = materials.wood(rng), materials.plain(materials.pick(rng, ("#3a3a3c", "#c9c4bb")))
    front = Paint("panel", materials.scaled(body.low, 0.6), body.high, (wide / doors, 0.76))
    upper = Paint("panel", materials.scaled(body.low, 0.6), body.high, (wide / doors, 0.65))
    parts = [
        solid("box", (-wide / 2, 0.0, 0.08), (wide, 0.58, 0.8), front),
        solid("box", (-wide / 2, 0.0, 0.0), (wide, 0.52, 0.1), materials.dark(rng)),
        solid("box", (-wide / 2 - 0.01, 0.0, 0.88), (wide + 0.02, 0.62, 0.035), top),
        solid("box", (-wide / 2, 0.0, 1.42), (wide, 0.34, 0.65), upper),
    ]
    return Piece([*parts, *clutter(rng, wide, 0.5, 0.915, 6)], wide, 0.62)
