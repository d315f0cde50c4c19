"""Leaves: blocks of 4x4 pixel steps, the first fronts of the dissection.

A leaf has 5x5 nodes and shares the 16 on its border with its neighbours.  All leaves of a picture
are worked on at once: one array per pair of nodes, one number per leaf.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
from jaxtyping import Bool, Float32, Int

LEAF = 4  # pixel steps along a side
OFFSETS = [(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1) if (y, x) != (0, 0)]

Node = tuple[int, int]
_NEVER = np.float32(1e-30)  # a total rate below this: nothing leaves the node
_TURNED = 256  # leaves turned at a time from one array per pair to one matrix per leaf


@dataclass(frozen=True)
class _Plan:
    """The same for every leaf.

    Attributes:
        moves: pairs of nodes with a rate, and its index in ``OFFSETS``.
        order: nodes inside, as they are taken out, each with the nodes it then moves to.
    """

    moves: dict[tuple[Node, Node], int]
    order: list[tuple[Node, list[Node]]]


def leaf_border() -> list[Node]:
    """List the nodes (y, x) of a leaf's border, clockwise."""
    side = range(LEAF)
    return (
        [(0, x) for x in side]
        + [(y, LEAF) for y in side]
        + [(LEAF, LEAF - x) for x in side]
        + [(LEAF - y, 0) for y in side]
    )


@cache
def _plan() -> _Plan:
    """Share the moves out and choose the order with the fewest new pairs."""
    nodes = [(y, x) for y in range(LEAF + 1) for x in range(LEAF + 1)]
    moves = {}
    for y, x in nodes:
        for index, (down, right) in enumerate(OFFSETS):
            to = (y + down, x + right)
            # Moves along the top and left border belong to the neighbours there.
            along = (y == 0 and to[0] == 0) or (x == 0 and to[1] == 0)
            if to in nodes and not along:
                moves[(y, x), to] = index
    near: dict[Node, set[Node]] = {node: set() for node in nodes}
    for node, to in moves:
        near[node].add(to)
        near[to].add(node)
    order = []
    inside = set(nodes) - set(leaf_border())
    while inside:
        node = min(inside, key=lambda node: (len(near[node]), node))
        inside.remove(node)
        others = near.pop(node)
        order.append((node, sorted(others)))
        for other in others:
            near[other] = (near[other] | others) - {node, other}
    return _Plan(moves, order)


@dataclass(frozen=True)
class _Exit:
    """A node taken out: where a walker goes from there, and what it is paid before."""

    node: Node
    to: dict[Node, Float32[np.ndarray, " b"]]
    paid: Float32[np.ndarray, " b"]


class Leaves:
    """The leaves of a grid that are in use.

    Attributes:
        y: leaf (y, x) starts at grid row ``LEAF * y``.
        x: and at grid column ``LEAF * x``.
        fronts: their borders (see front.py), nodes as in ``leaf_border``, gain in column 0.
    """

    def __init__(
        self,
        rates: Float32[np.ndarray, "8 h w"],
        kill: Float32[np.ndarray, "h w"],
        gain: Float32[np.ndarray, "h w"],
        used: Bool[np.ndarray, "rows columns"],
    ) -> None:
        self.y, self.x = np.nonzero(used)
        self._row = kill.shape[1]
        self._origin = LEAF * (self.y * self._row + self.x)
        flat = rates.reshape(len(OFFSETS), -1)
        moves = {pair: flat[index][self._at(pair[0])] for pair, index in _plan().moves.items()}
        kills, gains = {}, {}
        for node, share in self._shares(used).items():
            kills[node] = kill.reshape(-1)[self._at(node)] * share
            gains[node] = gain.reshape(-1)[self._at(node)] * share
        self._exits = [self._take_out(*step, moves, kills, gains) for step in _plan().order]
        self.fronts = self._pack(moves, kills, gains)

    def _at(self, node: Node) -> Int[np.ndarray, " b"]:
        return self._origin + (node[0] * self._row + node[1])

    def _shares(
        self, used: Bool[np.ndarray, "rows columns"]
    ) -> dict[Node, Bool[np.ndarray, " b"] | bool]:
        """Tell which leaves hold a node's kill and gain: the upper left one, or those in use."""
        framed = np.pad(used, ((1, 0), (1, 0)))
        above, left = ~framed[self.y, self.x + 1], ~framed[self.y + 1, self.x]
        corner = ~framed[self.y, self.x]
        shares: dict[Node, Bool[np.ndarray, " b"] | bool] = {}
        for y in range(LEAF + 1):
            for x in range(LEAF + 1):
                shares[y, x] = (left if y else corner) if x == 0 else (above if y == 0 else True)
        return shares

    @staticmethod
    def _take_out(
        node: Node,
        others: list[Node],
        moves: dict[tuple[Node, Node], Float32[np.ndarray, " b"]],
        kills: dict[Node, Float32[np.ndarray, " b"]],
        gains: dict[Node, Float32[np.ndarray, " b"]],
    ) -> _Exit:
        """Take one node out of every leaf, as told in front.py."""
        to = {other: moves.pop((node, other)) for other in others if (node, other) in moves}
        total = sum(to.values(), kills[node])
        hold = 1 / np.maximum(total, _NEVER)
        for rate in to.values():
            rate *= hold
        killed, paid = kills.pop(node) * hold, gains.pop(node) * hold
        product = np.empty_like(hold)
        for other in others:
            if (other, node) not in moves:
                continue
            into = moves.pop((other, node))
            kills[other] += np.multiply(into, killed, out=product)
            gains[other] += np.multiply(into, paid, out=product)
            for target, chance in to.items():
                if target == other:
                    continue
                if (other, target) in moves:
                    moves[other, target] += np.multiply(into, chance, out=product)
                else:
                    moves[other, target] = into * chance
        return _Exit(node, to, paid)

    def _pack(
        self,
        moves: dict[tuple[Node, Node], Float32[np.ndarray, " b"]],
        kills: dict[Node, Float32[np.ndarray, " b"]],
        gains: dict[Node, Float32[np.ndarray, " b"]],
    ) -> Float32[np.ndarray, "b n c"]:
        border, count = leaf_border(), len(self.y)
        columns = len(border) + 2
        planes = np.zeros((len(border), columns, count), np.float32)
        for row, node in enumerate(border):
            planes[row, 0], planes[row, 1] = gains[node], kills[node]
            for column, to in enumerate(border):
                if (node, to) in moves:
                    planes[row, column + 2] = moves[node, to]
        fronts = np.empty((count, len(border), columns), np.float32)
        for start in range(0, count, _TURNED):
            part = slice(start, start + _TURNED)
            fronts[part] = planes[:, :, part].transpose(2, 0, 1)
        return fronts

    def fill(self, values: Float32[np.ndarray, " p"]) -> None:
        """Give the nodes inside their values, once those on the borders have theirs."""
        known = {node: values[self._at(node)] for node in leaf_border()}
        for step in reversed(self._exits):
            value = step.paid.copy()
            for node, chance in step.to.items():
                value += chance * known[node]
            known[step.node] = value
            values[self._at(step.node)] = value
