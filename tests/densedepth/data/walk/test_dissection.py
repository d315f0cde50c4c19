"""The walk's values equal a direct solution, for any rates."""

import numpy as np
import pytest
import scipy.sparse
from scipy.sparse.linalg import spsolve

from densedepth.data.walk import dissection
from densedepth.data.walk.dissection import GRID, expected_pay
from densedepth.data.walk.leaf import LEAF, OFFSETS


def random_walk(
    height: int, width: int, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Rates from 1e-5 to 1, unlike to and fro, on a part of a grid; kill at few pixels."""
    rng = np.random.default_rng(seed)
    shape = tuple(-(-(length + 1) // GRID) * GRID + 1 for length in (height, width))
    inside = np.zeros(shape, bool)
    inside[1 : height + 1, 1 : width + 1] = True
    rates = np.zeros((len(OFFSETS), *shape), np.float32)
    for rate, offset in zip(rates, OFFSETS, strict=True):
        to = np.roll(inside, (-offset[0], -offset[1]), (0, 1))
        rate[:] = np.where(inside & to, 10 ** rng.uniform(-5, 0, shape), 0)
    kill = np.where(inside & (rng.random(shape) < 0.05), rng.random(shape), 0)
    return inside, rates, kill.astype(np.float32), rng.uniform(0, 9, shape).astype(np.float32)


def solve_directly(rates: np.ndarray, kill: np.ndarray, gain: np.ndarray) -> np.ndarray:
    """Solve with float64 and a sparse direct solver; 0 where nothing leaves."""
    height, width = kill.shape
    place = np.arange(kill.size).reshape(height, width)
    total = (rates.sum(0, dtype=np.float64) + kill).reshape(-1)
    matrix = scipy.sparse.diags(np.where(total > 0, total, 1)).tocsr()
    for rate, offset in zip(rates, OFFSETS, strict=True):
        y, x = np.nonzero(rate)
        to = place[y + offset[0], x + offset[1]]
        size = (kill.size, kill.size)
        matrix = matrix - scipy.sparse.csr_matrix(
            (rate[y, x].astype(float), (place[y, x], to)), size
        )
    return spsolve(matrix.tocsc(), gain.reshape(-1).astype(float)).reshape(height, width)


@pytest.mark.parametrize("few", [0, 64])
@pytest.mark.parametrize("size", [(3, 3), (63, 20), (64, 70), (10, 150)])
def test_values_equal_a_direct_solution(
    size: tuple[int, int], few: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(dissection, "_FEW", few)
    inside, rates, kill, depth = random_walk(*size, seed=sum(size))
    used = np.ones([(length - 1) // LEAF for length in inside.shape], bool)
    kill[1, 1] = 0.5
    values = expected_pay(rates, kill, kill * depth, used)
    expected = solve_directly(rates, kill, kill * depth)
    np.testing.assert_allclose(values[inside], expected[inside], rtol=0, atol=5e-5)


def test_leaves_out_of_use_cut_the_walk_in_two():
    inside, rates, kill, depth = random_walk(60, 60, seed=1)
    used = np.ones([(length - 1) // LEAF for length in inside.shape], bool)
    used[:, 6:9] = False
    left, right = used.copy(), used.copy()
    left[:, 9:] = False
    right[:, :6] = False
    values = expected_pay(rates, kill, kill * depth, used)
    parts = [expected_pay(rates, kill, kill * depth, part) for part in (left, right)]
    np.testing.assert_allclose(values, parts[0] + parts[1], rtol=0, atol=2e-5)
    assert (values[:, 6 * LEAF + 1 : 9 * LEAF] == 0).all()
    assert values[:, : 6 * LEAF].max() > 1
    assert values[:, 9 * LEAF + 1 :].max() > 1


def test_rates_of_a_leaf_out_of_use_do_not_count():
    inside, rates, kill, depth = random_walk(40, 40, seed=2)
    used = np.ones([(length - 1) // LEAF for length in inside.shape], bool)
    used[4, 5] = False
    kill[4 * LEAF : 5 * LEAF + 1, 5 * LEAF : 6 * LEAF + 1] = 1
    before = expected_pay(rates, kill, kill * depth, used)
    middle = slice(4 * LEAF + 1, 5 * LEAF), slice(5 * LEAF + 1, 6 * LEAF)
    assert (before[middle] == 0).all()
    rates[:, *middle] = 7
    kill[middle] = 3
    np.testing.assert_array_equal(expected_pay(rates, kill, kill * depth, used), before)
