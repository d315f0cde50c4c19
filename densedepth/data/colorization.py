"""Depth filling by colorization (Levin, Lischinski and Weiss 2004), as NYU's toolbox defines it.

Every pixel i is tied to the up to 8 pixels around it by weights that sum to 1,

    w_ij proportional to exp(-(g_i - g_j)^2 / s_i),
    s_i = max(0.6 variance of g in the window, min_j (g_i - g_j)^2 / ln 100, 2e-6),

g being grey in [0, 1] (0.2125 R + 0.7154 G + 0.0721 B, as DenseDepth's port has it) and the
window the pixels of the picture in the 3x3 around i, i included. x solves
``(I - W + K) x = K d`` with K = 1 at measured pixels and 0 at missing ones; measured pixels keep
their depth d, missing ones take x. W is not symmetric.

x_i is also what a walker from i is paid who moves by W and, at a measured pixel, stops with
probability 1/2 and is paid its depth there. The package ``walk`` solves that exactly. A walker
seldom gets far past the rim of a hole, so measured pixels beyond are left out.
"""

import math

import numpy as np
from jaxtyping import Bool, Float32, UInt8
from scipy.ndimage import distance_transform_cdt, maximum_filter, minimum_filter

from densedepth.data.walk.dissection import GRID, expected_pay
from densedepth.data.walk.leaf import LEAF, OFFSETS
from densedepth.errors import DataError

_GREY = (2125, 7154, 721)  # ten thousandths; whole numbers, so float32 holds every grey exactly
_GREY_ONE = 255 * 10_000  # grey 1.0
_WINDOWS = 3  # how many growing windows the spread of depth around a leaf is taken from


def _neighbour_rates(
    image: UInt8[np.ndarray, "h w 3"], rates: Float32[np.ndarray, "8 h w"]
) -> None:
    """Write the weights to the 8 neighbours, not yet divided by their sum; 0 outside."""
    height, width, _ = image.shape
    grey = image @ np.array(_GREY, np.float32)
    total = np.zeros((height, width), np.float32)
    squares = np.zeros((height, width), np.float32)
    squared = {}
    for down, right in OFFSETS[len(OFFSETS) // 2 :]:
        # step[y + 1, x + 1] = grey[y + down, x + right] - grey[y, x]; 0 where either is outside
        step = np.zeros((height + 2, width + 2), np.float32)
        left, stop = max(0, -right), width - max(0, right)
        below = slice(down, height), slice(left + right, stop + right)
        here = slice(0, height - down), slice(left, stop)
        inner = step[1 : height - down + 1, left + 1 : stop + 1]
        np.subtract(grey[below], grey[here], out=inner)
        ahead = step[1:-1, 1:-1]
        behind = step[1 - down : height + 1 - down, 1 - right : width + 1 - right]
        total += ahead
        total -= behind
        step *= step
        squares += ahead
        squares += behind
        for outside in (step[:1], step[height - down + 1 :]):
            outside[:] = np.inf
        for outside in (step[:, : left + 1], step[:, stop + 1 :]):
            outside[:] = np.inf
        squared[down, right], squared[-down, -right] = ahead, behind
    rows, columns = (3 - (np.arange(n) == 0) - (np.arange(n) == n - 1) for n in (height, width))
    share = 1 / np.outer(rows, columns).astype(np.float32)
    variance = squares * share - np.square(total * share)
    nearest = np.minimum.reduce(list(squared.values()))
    scale = np.maximum(np.float32(0.6) * variance, nearest * np.float32(1 / math.log(100)))
    scale = -1 / np.maximum(scale, np.float32(2e-6 * _GREY_ONE**2))
    for index, offset in enumerate(OFFSETS):
        np.exp(np.multiply(squared[offset], scale, out=total), out=rates[index])


def _per_leaf(plane: np.ndarray, reduce: np.ufunc) -> np.ndarray:
    """Reduce a grid to one number per leaf, its border included."""
    for axis in (0, 1):
        last = plane.shape[axis] - 1
        nodes = [np.arange(node, last - LEAF + node + 1, LEAF) for node in range(LEAF + 1)]
        plane = reduce.reduce([plane.take(node, axis=axis) for node in nodes])
    return plane


def _leaves_that_matter(
    depth_m: Float32[np.ndarray, "h w"], inside: Bool[np.ndarray, "h w"], tolerance_m: float
) -> Bool[np.ndarray, "rows columns"]:
    """Choose the leaves without which no missing pixel would be off by more than the tolerance.

    Take a leaf with measured pixels only, D or more pixel steps from every missing one. A walker
    from a missing pixel gets there with probability 2^(1 - D) at most, for at each of the D - 1
    measured pixels on its way it stops with probability 1/2. From there, with the leaf or
    without, it is paid within j steps with probability 1 - 2^-j, by pixels at most j steps away.
    So the leaf makes a difference of at most 2^(1 - D) sum_j 2^-j (spread of depth j steps
    around); from j = D on the spread may be that of the whole picture.
    """
    known = depth_m > 0
    measured = depth_m[known]
    full_spread = float(measured.max() - measured.min())
    steps = distance_transform_cdt(known | ~inside, "chessboard")
    steps = _per_leaf(steps, np.minimum).astype(np.float32)
    low = _per_leaf(np.where(known, depth_m, np.float32(np.inf)), np.minimum)
    high = _per_leaf(depth_m, np.maximum)
    reach = np.minimum(steps, LEAF * _WINDOWS)
    difference = 2 * np.exp2(-reach) * full_spread
    for window in range(_WINDOWS):
        low, high = minimum_filter(low, 3), maximum_filter(high, 3)
        share = 0.5 ** (LEAF * window) * (1 - 0.5**LEAF)
        difference += share * np.clip(high - low, 0, full_spread)
    return (steps == 0) | (np.exp2(1 - steps) * difference > tolerance_m)


def fill_depth(
    image: UInt8[np.ndarray, "h w 3"],
    depth_m: Float32[np.ndarray, "h w"],
    *,
    tolerance_m: float = 5e-4,
) -> Float32[np.ndarray, "h w"]:
    """Fill missing depth from the measured depth around it, along similar grey.

    One core takes 0.2 s for 640x480 with a fifth missing and 0.7 s for a KITTI frame, and about
    0.5 kB of memory per pixel (docs/decisions.md, 2026-11-22).

    Args:
        image: colour, 0..255.
        depth_m: metres; 0 = no measurement.
        tolerance_m: how far a filled pixel may be from the exact solution, beside rounding (about
            1e-6 of the depth's range); the smaller, the more measured pixels take part.

    Returns:
        Metres, without holes. Measured pixels are as given; the rest lies between the smallest
        and the largest measured depth.

    Raises:
        DataError: the sizes differ, a depth is negative or not finite, or none is measured.
    """
    if image.shape != (*depth_m.shape, 3):
        raise DataError(f"image {image.shape} and depth {depth_m.shape} differ in size: pair them")
    if not np.isfinite(depth_m).all() or (depth_m < 0).any():
        raise DataError("depth has negative or non-finite values; write 0 where none is measured")
    if tolerance_m <= 0:
        raise DataError(f"tolerance_m is {tolerance_m}: give metres above 0")
    known = depth_m > 0
    if not known.any():
        raise DataError(f"no pixel of {depth_m.shape} is measured: leave this frame out")
    if known.all():
        return depth_m.copy()
    height, width = depth_m.shape
    # Grid place (y + 1, x + 1) is pixel (y, x).
    shape = [-(-(length + 1) // GRID) * GRID + 1 for length in (height, width)]
    pixels = slice(1, height + 1), slice(1, width + 1)
    rates = np.zeros((len(OFFSETS), *shape), np.float32)
    _neighbour_rates(image, rates[:, *pixels])
    depth, inside = np.zeros(shape, np.float32), np.zeros(shape, bool)
    depth[pixels], inside[pixels] = depth_m, True
    used = _leaves_that_matter(depth, inside, tolerance_m)
    nearest, farthest = depth_m[known].min(), depth_m[known].max()
    kill = rates.sum(0) * (depth > 0)
    pay = expected_pay(rates, kill, kill * np.maximum(depth - nearest, 0), used)[pixels]
    return np.where(known, depth_m, np.clip(pay + nearest, nearest, farthest))
