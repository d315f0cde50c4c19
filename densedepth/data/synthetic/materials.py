"""Materials: paints with plausible colours, drawn at random."""

import colorsys
from collections.abc import Sequence

import numpy as np

from densedepth.data.synthetic.solids import Colour, Paint

_WOODS = ("#b58a5a", "#8a5a34", "#5d3a22", "#c9a878", "#3c2a20", "#a06a42")
_WALLS = ("#e9e4d8", "#d8dfe0", "#efe9c9", "#cfd8c4", "#e4cfc0", "#b9c6d2", "#f2f0ec", "#c9b79c")
_DARK = ("#2b2b2e", "#3a3431", "#23272e")
_CARS = ("#1c1d20", "#e8e8e8", "#9a9da1", "#5b5f66", "#7d1a1a", "#1d2f57", "#274a33", "#b9b3a4")
_HOUSES = ("#d9c9a8", "#c98f6a", "#e6e2d8", "#b7a58c", "#8fa0a8", "#d8b4a0", "#a9a9a4", "#c9c27a")


def colour(code: str) -> Colour:
    """Turn ``#rrggbb`` (as on a screen) into linear reflectance."""
    red, green, blue = (int(code[i : i + 2], 16) / 255 for i in (1, 3, 5))
    return (red**2.2, green**2.2, blue**2.2)


def scaled(value: Colour, factor: float) -> Colour:
    """Make a colour darker or lighter."""
    return (value[0] * factor, value[1] * factor, value[2] * factor)


def pick(rng: np.random.Generator, codes: Sequence[str], spread: float = 0.15) -> Colour:
    """Take one of several colours, a little varied."""
    base = colour(codes[int(rng.integers(len(codes)))])
    factors = rng.normal(1, spread / 5, 3) * rng.normal(1, spread)
    red, green, blue = (np.array(base) * factors).tolist()
    return (min(max(red, 0.01), 0.92), min(max(green, 0.01), 0.92), min(max(blue, 0.01), 0.92))


def vivid(rng: np.random.Generator, saturation: float = 0.6, value: float = 0.6) -> Colour:
    """Take a colour of any hue."""
    red, green, blue = colorsys.hsv_to_rgb(
        float(rng.random()), saturation * rng.uniform(0.4, 1.2), value * rng.uniform(0.3, 1.3)
    )
    return (min(red, 0.9), min(green, 0.9), min(blue, 0.9))


def plain(value: Colour, glow: float = 0.0) -> Paint:
    """Paint without structure that one would notice."""
    return Paint("plain", scaled(value, 0.9), scaled(value, 1.1), (0.7, 0.7), glow)


def wood(rng: np.random.Generator) -> Paint:
    """Give furniture wood, sometimes painted white or black."""
    if rng.random() < 0.25:
        return plain(pick(rng, ("#ece8e0", "#2d2a28")))
    base = pick(rng, _WOODS)
    return Paint("wood", scaled(base, 0.55), scaled(base, 1.3), (1.2, 0.5))


def fabric(rng: np.random.Generator) -> Paint:
    """Give cloth: one colour, striped or with an ornament."""
    base = vivid(rng, 0.45, 0.45)
    kind = ("weave", "weave", "weave", "stripes", "ornament")[int(rng.integers(5))]
    tile = float(rng.uniform(0.4, 0.8))
    return Paint(kind, scaled(base, 0.55), scaled(base, 1.25), (tile, tile))


def bedding(rng: np.random.Generator) -> Paint:
    """Give light or coloured bed linen."""
    if rng.random() < 0.5:
        return Paint("weave", (0.6, 0.6, 0.58), (0.8, 0.8, 0.8), (0.8, 0.8))
    return fabric(rng)


def dark(rng: np.random.Generator) -> Paint:
    """Give the black plastic of screens and office chairs."""
    return plain(pick(rng, _DARK))


def wall(rng: np.random.Generator) -> Paint:
    """Give plaster, wallpaper or, rarely, brick."""
    base = pick(rng, _WALLS, 0.06)
    chance = rng.random()
    if chance < 0.7:
        return Paint("plaster", scaled(base, 0.93), scaled(base, 1.04), (1.1, 1.1))
    if chance < 0.82:
        width = float(rng.uniform(0.6, 1.6))
        return Paint("stripes", scaled(base, 0.82), scaled(base, 1.03), (width, width))
    if chance < 0.92:
        size = float(rng.uniform(0.5, 1.0))
        return Paint("ornament", scaled(base, 0.85), scaled(base, 1.03), (size, size))
    return brick(rng)


def brick(rng: np.random.Generator) -> Paint:
    """Give a brick wall with pale joints."""
    base = pick(rng, ("#9a5a44", "#b07a5c", "#8a6a58"))
    return Paint("brick", scaled(base, 0.6), (0.55, 0.52, 0.48), (1.0, 0.96))


def floor(rng: np.random.Generator) -> Paint:
    """Give planks, tiles, a checkerboard or carpet."""
    chance = rng.random()
    if chance < 0.45:
        base = pick(rng, _WOODS)
        return Paint("planks", scaled(base, 0.3), scaled(base, 1.3), (2.4, 1.0))
    if chance < 0.65:
        base = pick(rng, ("#cfc8ba", "#a9a6a0", "#bda58a", "#e2e0da"))
        size = float(rng.choice([1.2, 1.6, 2.0]))
        return Paint("tiles", scaled(base, 0.45), base, (size, size))
    if chance < 0.72:
        base = pick(rng, ("#d8d4c8", "#c9b9a0"))
        size = float(rng.choice([0.6, 0.8]))
        return Paint("checker", scaled(base, 0.25), base, (size, size))
    base = pick(rng, ("#b8a88c", "#8f8f94", "#7a6a5c", "#9aa5ad", "#6d5348"))
    return Paint("carpet", scaled(base, 0.65), scaled(base, 1.2), (0.9, 0.9))


def car_paint(rng: np.random.Generator) -> Paint:
    """Give the paint of a car."""
    return plain(pick(rng, _CARS))


def house_wall(rng: np.random.Generator) -> Paint:
    """Give a facade with a window on every few metres of every storey."""
    base = pick(rng, _HOUSES)
    glass = (0.05, 0.07, 0.1) if rng.random() < 0.75 else (0.3, 0.36, 0.42)
    width, storey = float(rng.uniform(2.2, 4.0)), float(rng.uniform(2.7, 3.4))
    return Paint("facade", scaled(base, 0.95), glass, (width, storey))


def foliage(rng: np.random.Generator) -> Paint:
    """Give leaves, green to brownish."""
    base = pick(rng, ("#4d6b2c", "#3d5a28", "#6b7a34", "#56702f", "#7d6b34"), 0.2)
    size = float(rng.uniform(1.8, 3.2))
    return Paint("leaves", scaled(base, 0.2), scaled(base, 1.7), (size, size * 1.2))
