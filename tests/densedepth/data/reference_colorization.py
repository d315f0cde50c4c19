"""Colorization by its definition: two loops over the pixels and a direct solution in float64.

Slow and obvious; densedepth.data.colorization must give the same.
"""

import math

import numpy as np
import scipy.sparse
from scipy.sparse.linalg import spsolve
from skimage.color import rgb2gray


def weights_by_loops(image: np.ndarray) -> tuple[list[int], list[int], list[float]]:
    """Weight of every pixel's neighbours, as (pixel, neighbour, weight) in three lists."""
    grey = rgb2gray(image)
    height, width = grey.shape
    pixels: list[int] = []
    neighbours: list[int] = []
    weights: list[float] = []
    for y in range(height):
        for x in range(width):
            near = [
                (v, u)
                for v in range(max(0, y - 1), min(height, y + 2))
                for u in range(max(0, x - 1), min(width, x + 2))
                if (v, u) != (y, x)
            ]
            values = np.array([grey[place] for place in near])
            squares = (values - grey[y, x]) ** 2
            scale = 0.6 * np.var(np.append(values, grey[y, x]))
            scale = max(scale, -np.min(squares) / math.log(0.01), 2e-6)
            weight = np.exp(-squares / scale)
            weight = weight / np.sum(weight)
            pixels += [y * width + x] * len(near)
            neighbours += [v * width + u for v, u in near]
            weights += list(weight)
    return pixels, neighbours, weights


def definition(
    image: np.ndarray, depth_m: np.ndarray
) -> tuple[scipy.sparse.csr_matrix, np.ndarray]:
    """Matrix and right-hand side of (I - W + K) x = K d."""
    pixels, neighbours, weights = weights_by_loops(image)
    size = depth_m.size
    known = (depth_m.reshape(-1) > 0).astype(np.float64)
    tied = scipy.sparse.csr_matrix((weights, (pixels, neighbours)), (size, size))
    matrix = scipy.sparse.identity(size, format="csr") - tied + scipy.sparse.diags(known)
    return matrix.tocsr(), known * depth_m.reshape(-1).astype(np.float64)


def fill_by_definition(image: np.ndarray, depth_m: np.ndarray) -> np.ndarray:
    """Fill missing depth; metres, float64."""
    matrix, right = definition(image, depth_m)
    solution = spsolve(matrix.tocsc(), right).reshape(depth_m.shape)
    return np.where(depth_m > 0, depth_m, solution)


def fill_in_long_double(image: np.ndarray, depth_m: np.ndarray) -> np.ndarray:
    """Do the same with more digits than float64 has, for a few hundred pixels.

    Elimination without the diagonal, so that nothing cancels.
    """
    matrix, right = definition(image, depth_m)
    rates = -matrix.toarray().astype(np.longdouble)
    pay = right.astype(np.longdouble)
    kill = (depth_m.reshape(-1) > 0).astype(np.longdouble)
    np.fill_diagonal(rates, 0)
    size = len(pay)
    for node in range(size - 1, -1, -1):
        hold = 1 / (rates[node, :node].sum() + kill[node])
        rates[node, :node] *= hold
        pay[node] *= hold
        into = rates[:node, node]
        pay[:node] += into * pay[node]
        kill[:node] += into * kill[node] * hold
        rates[:node, :node] += np.outer(into, rates[node, :node])
        np.fill_diagonal(rates[:node, :node], 0)
    values = np.zeros(size, np.longdouble)
    for node in range(size):
        values[node] = pay[node] + rates[node, :node] @ values[:node]
    return np.where(depth_m > 0, depth_m, values.reshape(depth_m.shape))
