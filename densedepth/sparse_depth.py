"""Measured points that stay seen in a picture of another size."""

import numpy as np
from jaxtyping import Float, Int, UInt8

from densedepth.depth_colours import colorize_depth


def overlay_depth(
    image: UInt8[np.ndarray, "h w 3"],
    depth_m: Float[np.ndarray, "h w"],
    min_m: float,
    max_m: float,
) -> UInt8[np.ndarray, "h w 3"]:
    """Draw measured points in colour over a darkened picture; a dense map lets it shine through.

    Args:
        image: the colour picture.
        depth_m: metres; 0 = no measurement.
        min_m: depth of the brightest colour.
        max_m: depth of the darkest colour.
    """
    source = thickened(shown_pixels(depth_m, image.shape[:2], keep_all=True), depth_m)
    shown_m = np.where(source >= 0, depth_m.ravel()[source], 0)
    grey = (image.mean(axis=2, keepdims=True) * 0.6).astype(np.uint8)
    colours = colorize_depth(shown_m, min_m, max_m)
    if (depth_m > 0).mean() > 0.5:  # nothing of the picture would be left to compare with
        colours = colours // 2 + grey // 2
    return np.where(source[..., None] >= 0, colours, grey)


def shown_pixels(
    depth_m: np.ndarray, size_px: tuple[int, int], keep_all: bool
) -> Int[np.ndarray, "h w"]:
    """Say which pixel of a depth map each pixel of a resized one shows; -1 = none.

    Args:
        depth_m: the map; only its measured pixels are shown.
        size_px: the new height and width.
        keep_all: no measured pixel may get lost between two others: the nearest in place wins.
    """
    height, width = depth_m.shape
    valid = np.isfinite(depth_m) & (depth_m > 0)
    if not keep_all:
        rows = ((np.arange(size_px[0]) + 0.5) * height / size_px[0]).astype(int)
        columns = ((np.arange(size_px[1]) + 0.5) * width / size_px[1]).astype(int)
        source = rows[:, None] * width + columns[None, :]
        return np.where(valid[rows[:, None], columns[None, :]], source, -1)
    row, column = np.nonzero(valid)
    # The nearest last: where several fall on one place, the last one written stays.
    order = np.argsort(-depth_m[row, column], kind="stable")
    row, column = row[order], column[order]
    out = np.full(size_px, -1, np.int64)
    place_row = ((row + 0.5) * size_px[0] / height).astype(int)
    place_column = ((column + 0.5) * size_px[1] / width).astype(int)
    out[place_row, place_column] = row * width + column
    return out


def thickened(source: np.ndarray, depth_m: np.ndarray) -> np.ndarray:
    """Let measured points spread to neighbours without one, the nearer over the farther."""
    flat_m = np.where(depth_m > 0, depth_m, np.inf).ravel()
    best, best_m = source, np.where(source >= 0, -1.0, np.inf)
    padded = np.pad(source, 1, constant_values=-1)
    for down in range(3):
        for right in range(3):
            shifted = padded[down : down + source.shape[0], right : right + source.shape[1]]
            shifted_m = np.where(shifted >= 0, flat_m[shifted], np.inf)
            nearer = shifted_m < best_m
            best, best_m = np.where(nearer, shifted, best), np.where(nearer, shifted_m, best_m)
    return best
