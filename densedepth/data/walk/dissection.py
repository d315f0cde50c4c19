"""What a random walker on a pixel grid is paid, exactly, by nested dissection (George 1973).

The grid is cut into leaves that share their border lines; the pixels inside a leaf are taken out
of the walk, then pairs of blocks are joined and the pixels between them taken out, until none is
left. On the way back every pixel gets its value from the border around it.  There is no
iteration, so the work does not depend on how the picture conducts.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
from jaxtyping import Bool, Float32, Int

from densedepth.data.walk.front import Joint, join, node_columns, plan_joint
from densedepth.data.walk.leaf import LEAF, Leaves, leaf_border

_EQUAL_JOINTS = 8  # joints of blocks of the same shape, all at once: from 4x4 to 64x64 steps
_FEW = 64  # so few blocks are joined one by one, each with its own shape
_BATCH_BYTES = 1 << 20  # of fronts joined at a time: what the cache holds
_ROW = 1 << 20  # names a place (y, x): y * _ROW + x
GRID = LEAF << (_EQUAL_JOINTS // 2)  # a grid's height and width are a multiple of this, plus 1


@dataclass(frozen=True)
class _Step:
    """Nodes taken out of blocks, and how they follow from those that stayed.

    Attributes:
        origin: where each block starts.
        gone: the nodes taken out, counted from there.
        nodes: those that stayed.
        split: column of ``exits`` with what is paid before.
        exits: see ``front.join``.
    """

    origin: Int[np.ndarray, " b"]
    gone: Int[np.ndarray, " m"]
    nodes: Int[np.ndarray, " n"]
    split: int
    exits: Float32[np.ndarray, "b m c"]

    def fill(self, values: Float32[np.ndarray, " p"]) -> None:
        """Give the nodes taken out their values, once those that stayed have theirs."""
        border = values[self.origin[:, None] + self.nodes]
        pay = np.tile(np.array([1, 0], np.float32), (len(border), 1))
        known = np.hstack([border[:, : self.split], pay, border[:, self.split :]])
        values[self.origin[:, None] + self.gone] = (self.exits @ known[:, :, None])[:, :, 0]


@dataclass(frozen=True)
class _Blocks:
    """Blocks of one size; block (y, x) starts at grid place (y * height, x * width)."""

    y: Int[np.ndarray, " b"]
    x: Int[np.ndarray, " b"]
    height: int
    width: int

    @property
    def sideways(self) -> bool:
        """Whether the next joint is with the block on the right, not below."""
        return self.width <= self.height

    def joined(self) -> tuple["_Blocks", Int[np.ndarray, "2 k"]]:
        """Pair the blocks; the index says where a pair's halves are, -1 for none."""
        along = self.x if self.sideways else self.y
        y, x = (self.y, along // 2) if self.sideways else (along // 2, self.x)
        names, pair = np.unique(y * _ROW + x, return_inverse=True)
        halves = np.full((2, len(names)), -1)
        halves[along % 2, pair] = np.arange(len(along))
        height, width = self.height, self.width
        size = (height, 2 * width) if self.sideways else (2 * height, width)
        return _Blocks(*np.divmod(names, _ROW), *size), halves


@cache
def _equal_joint(level: int) -> Joint:
    """Plan the joint of two equal blocks; their nodes are named from the block's start."""
    if level == 0:
        nodes, split = np.array([y * _ROW + x for y, x in leaf_border()]), 0
    else:
        nodes, split = _equal_joint(level - 1).nodes, _equal_joint(level - 1).split
    y, x = np.divmod(nodes, _ROW)
    height, width = int(y.max()), int(x.max())
    if width <= height:
        gone, shift = (x == width) & (y > 0) & (y < height), width
    else:
        gone, shift = (y == height) & (x > 0) & (x < width), height * _ROW
    return plan_joint(nodes, split, gone, nodes + shift, split)


def _places(nodes: Int[np.ndarray, " n"], row: int) -> Int[np.ndarray, " n"]:
    """Turn names into places of a grid with ``row`` columns."""
    return nodes // _ROW * row + nodes % _ROW


def _join_equal(
    fronts: Float32[np.ndarray, "b n c"], halves: Int[np.ndarray, "2 k"], joint: Joint
) -> tuple[Float32[np.ndarray, "k n2 c2"], Float32[np.ndarray, "k m c2"]]:
    """Join pairs of equal blocks; gives their fronts and the exits of what was taken out."""
    count, size = halves.shape[1], len(joint.nodes)
    joined = np.empty((count, size, size + 2), np.float32)
    exits = np.empty((count, len(joint.gone), size + 2), np.float32)
    batch = max(1, _BATCH_BYTES // (4 * size * size))
    for start in range(0, count, batch):
        part = slice(start, start + batch)
        join(joint, [(fronts, index) for index in halves[:, part]], joined[part], exits[part])
    return joined, exits


@dataclass(frozen=True)
class _Front:
    """The front of one block; nodes are places of the grid."""

    nodes: Int[np.ndarray, " n"]
    split: int
    rates: Float32[np.ndarray, "1 n c"]


class _LastBlocks:
    """Blocks joined one by one, without the nodes that no walker can reach."""

    def __init__(self, num_places: int) -> None:
        self.steps: list[_Step] = []
        self._num_holders = np.zeros(num_places, np.int16)

    def enter(
        self, nodes: Int[np.ndarray, " n"], split: int, rates: Float32[np.ndarray, "n c"]
    ) -> _Front:
        """Take a block in; all must be in before the first is shrunk."""
        alive = np.flatnonzero(rates.any(axis=1))
        columns = np.concatenate([[split, split + 1], node_columns(alive, split)])
        self._num_holders[nodes[alive]] += 1
        return _Front(nodes[alive], 0, rates[alive].take(columns, axis=1)[None])

    def shrink(self, front: _Front) -> _Front:
        """Take out the nodes that no other block holds."""
        gone = self._num_holders[front.nodes] == 1
        return self._joined(plan_joint(front.nodes, front.split, gone), front, None)

    def join(self, first: _Front, second: _Front) -> _Front:
        """Join two blocks and take out the nodes that no third block holds."""
        if not len(first.nodes) or not len(second.nodes):
            return first if len(first.nodes) else second
        self._num_holders[np.intersect1d(first.nodes, second.nodes, assume_unique=True)] -= 1
        gone = self._num_holders[first.nodes] == 1
        joint = plan_joint(first.nodes, first.split, gone, second.nodes, second.split)
        return self._joined(joint, first, second)

    def _joined(self, joint: Joint, first: _Front, second: _Front | None) -> _Front:
        size = len(joint.nodes)
        rates = np.empty((1, size, size + 2), np.float32)
        exits = np.empty((1, len(joint.gone), size + 2), np.float32)
        sides = [first] if second is None else [first, second]
        join(joint, [(side.rates, np.zeros(1, np.intp)) for side in sides], rates, exits)
        self.steps.append(_Step(np.zeros(1, np.intp), joint.gone, joint.nodes, joint.split, exits))
        return _Front(joint.nodes, joint.split, rates)


def _join_last(
    blocks: _Blocks,
    nodes: Int[np.ndarray, " n"],
    split: int,
    fronts: Float32[np.ndarray, "b n c"],
    grid_shape: tuple[int, int],
) -> list[_Step]:
    """Join blocks until no node is left."""
    row = grid_shape[1]
    last = _LastBlocks(grid_shape[0] * row)
    starts = blocks.y * blocks.height * row + blocks.x * blocks.width
    held = [
        last.enter(start + nodes, split, rates) for start, rates in zip(starts, fronts, strict=True)
    ]
    held = [last.shrink(front) for front in held]
    while len(held) > 1:
        blocks, halves = blocks.joined()
        held = [
            last.join(held[one], held[two]) if min(one, two) >= 0 else held[max(one, two)]
            for one, two in halves.T
        ]
    return last.steps


def expected_pay(
    rates: Float32[np.ndarray, "8 h w"],
    kill: Float32[np.ndarray, "h w"],
    gain: Float32[np.ndarray, "h w"],
    used: Bool[np.ndarray, "rows columns"],
) -> Float32[np.ndarray, "h w"]:
    """Solve ``(kill + sum of rates) x = rates to neighbours times their x + gain`` for x.

    Args:
        rates: how fast a walker moves to each of the neighbours ``leaf.OFFSETS``, >= 0.
            Height and width are multiples of ``GRID``, plus 1; there is no rate from or to the
            places on the grid's border.
        kill: how fast it stops, >= 0.
        gain: ``kill`` times what it is then paid, >= 0.
        used: which leaves take part; leaf (y, x) spans the places from
            (LEAF * y, LEAF * x) to (LEAF * (y + 1), LEAF * (x + 1)) inclusive.

    Returns:
        The value of every place in a leaf that takes part, 0 elsewhere and where nothing leaves.
    """
    row = kill.shape[1]
    leaves = Leaves(rates, kill, gain, used)
    blocks, fronts = _Blocks(leaves.y, leaves.x, LEAF, LEAF), leaves.fronts
    nodes, split = np.array([y * _ROW + x for y, x in leaf_border()]), 0
    steps: list[_Step] = []
    for level in range(_EQUAL_JOINTS):
        if len(blocks.y) <= _FEW:
            break
        joint = _equal_joint(level)
        nodes, split = joint.nodes, joint.split
        blocks, halves = blocks.joined()
        fronts, exits = _join_equal(fronts, halves, joint)
        start = blocks.y * blocks.height * row + blocks.x * blocks.width
        steps.append(_Step(start, _places(joint.gone, row), _places(nodes, row), split, exits))
    steps += _join_last(blocks, _places(nodes, row), split, fronts, kill.shape)
    values = np.zeros(kill.size, np.float32)
    for step in reversed(steps):
        step.fill(values)
    leaves.fill(values)
    return values.reshape(kill.shape)
