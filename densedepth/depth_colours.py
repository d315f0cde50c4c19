"""Depth and its error in colour.

Near is bright and far is dark; what has no measurement is dark grey. In errors, blue was
predicted too near and red too far.
"""

from collections.abc import Sequence
from functools import cache

import numpy as np
from jaxtyping import Float, UInt8

HOLE = (38, 38, 38)
ERROR_LIMIT = 0.5
"""Relative error of the strongest colours."""


@cache
def _palette(name: str, low: float, high: float) -> np.ndarray:
    """Take a part of a colour map of matplotlib's as 256 colours."""
    from matplotlib import colormaps

    colours = colormaps[name](np.linspace(low, high, 256))[:, :3]
    return np.round(colours * 255).astype(np.uint8)


def _paint(position: np.ndarray, valid: np.ndarray, palette: np.ndarray) -> np.ndarray:
    index = np.where(valid, np.clip(position, 0, 1) * 255, 0)
    out = palette[np.rint(index).astype(np.uint8)]
    out[~valid] = HOLE
    return out


def colorize_depth(
    depth_m: Float[np.ndarray, "h w"], min_m: float, max_m: float
) -> UInt8[np.ndarray, "h w 3"]:
    """Show depth in colour, near bright and far dark; equal ratios get equal steps of colour.

    Args:
        depth_m: metres; 0, negative and not finite = no measurement, shown dark grey.
        min_m: depth of the brightest colour.
        max_m: depth of the darkest colour.

    Raises:
        ValueError: the range is upside down, or starts at or below 0.
    """
    if not 0 < min_m < max_m:
        raise ValueError(f"min_m={min_m}, max_m={max_m}: give 0 < min_m < max_m, in metres")
    valid = np.isfinite(depth_m) & (depth_m > 0)
    safe_m = np.where(valid, depth_m, max_m).astype(np.float64)
    position = np.log(safe_m / min_m) / np.log(max_m / min_m)
    return _paint(1 - position, valid, _palette("magma", 0.18, 1.0))


def colorize_error(error_rel: Float[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w 3"]:
    """Show relative error in colour: white is right, blue too near, red too far.

    Args:
        error_rel: (prediction - truth) / truth; not finite = unknown, shown dark grey.
    """
    valid = np.isfinite(error_rel)
    position = 0.5 + np.where(valid, error_rel, 0) / (2 * ERROR_LIMIT)
    return _paint(position, valid, _palette("RdBu_r", 0.03, 0.97))


def shown_range_m(depths_m: Sequence[Float[np.ndarray, "_ _"]]) -> tuple[float, float]:
    """Take the range that nearly all measured depths of some maps are in, metres."""
    measured = np.concatenate([t[np.isfinite(t) & (t > 0)] for t in depths_m])
    if measured.size == 0:
        return 1.0, 10.0
    low, high = (float(x) for x in np.percentile(measured, (1, 99)))
    return low, max(high, low * 1.1)
