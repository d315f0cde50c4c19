"""Patterns: what surfaces look like close up, as small grey pictures that repeat.

Each pattern is drawn once, and kept with its halved copies: a surface far away samples a small
copy, so that fine structure fades instead of flickering.
"""

import zlib
from collections.abc import Callable
from functools import cache

import numpy as np
from jaxtyping import Float32, Int

_SIZE = 256
_LEVELS = 9
_OFFSETS = np.cumsum([0] + [(_SIZE >> level) ** 2 for level in range(_LEVELS)])

Drawing = Callable[[np.ndarray, np.ndarray, np.random.Generator], np.ndarray]


def _noise(rng: np.random.Generator, across: int, down: int) -> np.ndarray:
    """Draw smooth noise in 0..1 with so many bumps across and down; it repeats at its border."""
    grid = rng.random((down, across))
    for axis, cells in ((0, down), (1, across)):
        at = np.arange(_SIZE) / _SIZE * cells
        low = at.astype(int)
        part = (at - low) ** 2 * (3 - 2 * (at - low))
        part = part[:, None] if axis == 0 else part[None, :]
        grid = np.take(grid, low, axis) * (1 - part) + np.take(grid, (low + 1) % cells, axis) * part
    return grid


def _cloudy(rng: np.random.Generator, start: int, octaves: int) -> np.ndarray:
    """Add up noise of finer and finer grain."""
    total, weight, share = np.zeros((_SIZE, _SIZE)), 0.0, 1.0
    for octave in range(octaves):
        total += share * _noise(rng, start << octave, start << octave)
        weight, share = weight + share, share * 0.6
    return np.clip((total / weight - 0.5) * 1.8 + 0.5, 0, 1)


def _line(x: np.ndarray, width: float) -> np.ndarray:
    """Mark where a coordinate is within ``width`` of a whole number."""
    return np.abs(x - np.round(x)) < width


def _plain(u: np.ndarray, v: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return 0.4 + 0.2 * _cloudy(rng, 4, 5)


def _plaster(u: np.ndarray, v: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return 0.3 * _cloudy(rng, 3, 3) + 0.7 * rng.random(u.shape)


def _planks(u: np.ndarray, v: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    row = (v * 8).astype(int)
    along = u * 2 + np.array(rng.random(8))[row]
    tone = rng.random((8, 2))[row, along.astype(int) % 2]
    grain = 0.6 * _noise(rng, 4, 128) + 0.4 * _noise(rng, 16, 256)
    wood = 0.25 + 0.55 * tone + 0.3 * (grain - 0.5)
    return np.where(_line(v * 8, 0.035) | _line(along, 0.006), 0.0, wood)


def _wood(u: np.ndarray, v: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    waves = np.sin(2 * np.pi * (6 * v + 1.2 * _noise(rng, 2, 3)))
    return 0.5 + 0.2 * waves + 0.5 * (_noise(rng, 6, 128) - 0.5)


def _tiles(u: np.ndarray, v: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    tone = rng.random((4, 4))[(v * 4).astype(int), (u * 4).astype(int)]
    face = 0.72 + 0.2 * tone + 0.15 * (_cloudy(rng, 8, 3) - 0.5)
    return np.where(_line(u * 4, 0.025) | _line(v * 4, 0.025), 0.1, face)


def _checker(u: np.ndarray, v: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    odd = ((u * 2).astype(int) + (v * 2).astype(int)) % 2
    return 0.08 + 0.8 * odd + 0.08 * _cloudy(rng, 8, 3)


def _stripes(u: np.ndarray, v: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return 0.15 + 0.6 * ((u * 8) % 1 < 0.5) + 0.15 * rng.random(u.shape)


def _weave(u: np.ndarray, v: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    threads = np.sin(2 * np.pi * 32 * u) * np.sin(2 * np.pi * 32 * v)
    return 0.5 + 0.2 * threads + 0.5 * (_cloudy(rng, 4, 5) - 0.5)


def _ornament(u: np.ndarray, v: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    x, y = np.abs(u * 2 % 1 - 0.5), np.abs(v * 2 % 1 - 0.5)
    rings = np.sin(24 * np.hypot(x, y)) + np.cos(20 * (x + y)) * np.cos(20 * (x - y))
    return np.clip(0.5 + 0.3 * rings + 0.3 * (rng.random(u.shape) - 0.5), 0, 1)


def _carpet(u: np.ndarray, v: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return 0.35 * _cloudy(rng, 6, 4) + 0.65 * rng.random(u.shape)


def _brick(u: np.ndarray, v: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    row = (v * 12).astype(int)
    along = u * 4 + 0.5 * (row % 2)
    tone = rng.random((12, 4))[row, along.astype(int) % 4]
    face = 0.15 + 0.4 * tone + 0.3 * (_cloudy(rng, 16, 3) - 0.5)
    return np.where(_line(v * 12, 0.08) | _line(along, 0.03), 0.9, face)


def _books(u: np.ndarray, v: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    edges = np.sort(rng.random(22))
    book = np.searchsorted(edges, u)
    gap = np.abs(u[..., None] - edges).min(-1) < 0.006
    label = (np.abs(v - 0.7) < 0.08) & (book % 3 == 0)
    return np.where(gap, 0.0, np.where(label, 0.95, rng.random(23)[book]))


def _painting(u: np.ndarray, v: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.floor(_cloudy(rng, 3, 3) * 6) / 6 + 0.15 * _noise(rng, 40, 40)


def _panel(u: np.ndarray, v: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    x, y = np.abs(u % 1 - 0.5), np.abs(v % 1 - 0.5)
    groove = np.abs(np.maximum(x, y) - 0.36) < 0.012
    face = 0.75 + 0.15 * (_noise(rng, 6, 128) - 0.5)
    return np.where(np.maximum(x, y) > 0.485, 0.0, np.where(groove, 0.35, face))


def _panes(u: np.ndarray, v: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    frame = _line(u, 0.05) | _line(v, 0.04) | _line(u - 0.5, 0.02)
    return np.where(frame, 0.0, 0.75 + 0.25 * _cloudy(rng, 2, 4))


def _facade(u: np.ndarray, v: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    x, y = np.abs(u - 0.5), np.abs(v - 0.55)
    glass = (x < 0.19) & (y < 0.25)
    frame = (x < 0.22) & (y < 0.28)
    bar = (x < 0.012) | (np.abs(v - 0.65) < 0.012)
    wall = 0.1 * _cloudy(rng, 8, 4) + 0.08 * (np.abs(v) < 0.03)
    pane = 0.85 + 0.15 * _noise(rng, 4, 4)
    return np.where(frame, np.where(glass & ~bar, pane, 0.02), wall + 0.12)


def _asphalt(u: np.ndarray, v: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return 0.5 * _cloudy(rng, 2, 4) + 0.5 * rng.random(u.shape)


def _paving(u: np.ndarray, v: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    tone = rng.random((6, 6))[(v * 6).astype(int), (u * 6).astype(int)]
    face = 0.55 + 0.25 * tone + 0.3 * (rng.random(u.shape) - 0.5)
    return np.where(_line(u * 6, 0.03) | _line(v * 6, 0.03), 0.15, face)


def _leaves(u: np.ndarray, v: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.clip(1.6 * (_cloudy(rng, 8, 5) - 0.5) + 0.5, 0, 1)


def _grass(u: np.ndarray, v: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return 0.6 * _cloudy(rng, 4, 6) + 0.4 * rng.random(u.shape)


PATTERNS: dict[str, Drawing] = {
    "plain": _plain, "plaster": _plaster, "planks": _planks, "wood": _wood, "tiles": _tiles,
    "checker": _checker, "stripes": _stripes, "weave": _weave, "ornament": _ornament,
    "carpet": _carpet, "brick": _brick, "books": _books, "painting": _painting, "panel": _panel,
    "panes": _panes, "facade": _facade, "asphalt": _asphalt, "paving": _paving,
    "leaves": _leaves, "grass": _grass,
}  # fmt: skip
"""Every pattern by name."""

PATTERN_INDEX = {name: i for i, name in enumerate(PATTERNS)}


def draw(name: str) -> Float32[np.ndarray, "size size"]:
    """Draw one pattern at its full size, 0..1; always the same."""
    at = (np.arange(_SIZE) + 0.5) / _SIZE
    u, v = np.meshgrid(at, at)
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    return np.clip(PATTERNS[name](u, v, rng), 0, 1).astype(np.float32)


@cache
def _atlas() -> np.ndarray:
    """Draw all patterns and their halved copies, one flat row for each."""
    rows = []
    for name in PATTERNS:
        level = draw(name)
        copies = [level.ravel()]
        while level.shape[0] > 1:
            half = level.shape[0] // 2
            level = level.reshape(half, 2, half, 2).mean((1, 3))
            copies.append(level.ravel())
        rows.append(np.concatenate(copies))
    return np.concatenate(rows)


def sample(
    pattern: Int[np.ndarray, "n"],
    u: Float32[np.ndarray, "n"],
    v: Float32[np.ndarray, "n"],
    footprint: Float32[np.ndarray, "n"],
) -> Float32[np.ndarray, "n"]:
    """Look patterns up, blended between their four nearest points.

    Args:
        pattern: index in ``PATTERN_INDEX``.
        u: place across, in repeats of the pattern.
        v: place down, in repeats.
        footprint: size of what one pixel sees, in repeats.

    Returns:
        Values 0..1.
    """
    level = np.clip(np.log2(np.maximum(footprint * _SIZE, 1)), 0, _LEVELS - 1).astype(np.int32)
    size = np.int32(_SIZE) >> level
    start = (
        pattern.astype(np.int32) * np.int32(_OFFSETS[-1]) + _OFFSETS[:-1].astype(np.int32)[level]
    )
    wrap = size - 1
    # Not u * size: an int32 array would turn the product into float64.
    scale, half = size.astype(np.float32), np.float32(0.5)
    x, y = (u - np.floor(u)) * scale - half, (v - np.floor(v)) * scale - half
    x_low, y_low = np.floor(x), np.floor(y)
    x_part, y_part = x - x_low, y - y_low
    left, top_row = x_low.astype(np.int32), y_low.astype(np.int32)
    upper, lower = start + (top_row & wrap) * size, start + ((top_row + 1) & wrap) * size
    left, right = left & wrap, (left + 1) & wrap
    atlas = _atlas()
    top = atlas[upper + left] * (1 - x_part) + atlas[upper + right] * x_part
    bottom = atlas[lower + left] * (1 - x_part) + atlas[lower + right] * x_part
    return top * (1 - y_part) + bottom * y_part
