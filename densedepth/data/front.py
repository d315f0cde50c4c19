"""Fronts: blocks of a random walk that are known only by the nodes on their border.

A walker at node i moves to node j at the rate ``r_ij`` and stops at the rate ``kill_i``, where it
is paid ``gain_i / kill_i``.  Taking a node c out of the walk keeps what every other node can
expect to be paid: who used to move to c moves to where c moves to,

    r_ij += r_ic p_cj,   kill_i += r_ic p_c,kill,   gain_i += r_ic p_c,gain,
    p_cj = r_cj / sum of c's rates to other nodes and its kill.

This is Gaussian elimination of ``(kill_i + sum_j r_ij) x_i - sum_j r_ij x_j = gain_i`` with the
diagonal left out (Grassmann, Taksar and Heyman 1985): only non-negative numbers are added and
multiplied, nothing is subtracted, so every number is right to a few float32 roundings however
weakly a part of the picture hangs on the rest.

Layout of a front with n nodes: rows are nodes; columns are nodes too, with two columns put in
before column ``split``: gain, then kill.  The rate from a node to itself is 0.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Int

_NEVER = np.float32(1e-30)  # a total rate below this: nothing leaves the node
_TINY = np.float32(1e-18)  # probabilities below this are 0, so that no product is subnormal
_VECTORISED = 8  # up to this size many small matrices are inverted side by side
_DENSE = 40  # up to this size LAPACK inverts in float64; above, by halves


@dataclass(frozen=True)
class _Side:
    """Where one of two fronts holds what a joint needs."""

    gone: Int[np.ndarray, " m"]
    gone_columns: Int[np.ndarray, " m"]
    kept: Int[np.ndarray, " k"]
    kept_columns: Int[np.ndarray, " k2"]


@dataclass(frozen=True)
class Joint:
    """How two fronts become one; made once for all pairs of the same shape.

    Attributes:
        nodes: the joint front's nodes: the first's own, the shared, the second's own.
        split: the joint front's column of gain.
        gone: the nodes that are taken out.
        shared: how many of ``nodes`` both fronts have.
    """

    nodes: Int[np.ndarray, " n"]
    split: int
    gone: Int[np.ndarray, " m"]
    shared: int
    first: _Side
    second: _Side | None


def _columns(rows: Int[np.ndarray, " k"], split: int) -> Int[np.ndarray, " k"]:
    return rows + 2 * (rows >= split)


def plan_joint(
    nodes: Int[np.ndarray, " n1"],
    split: int,
    gone: Bool[np.ndarray, " n1"],
    other_nodes: Int[np.ndarray, " n2"] | None = None,
    other_split: int = 0,
) -> Joint:
    """Plan how to join two fronts, or to shrink one.

    Args:
        nodes: names of the first front's nodes.
        split: its column of gain.
        gone: which of them are taken out; with a second front, all of these are shared.
        other_nodes: names of the second front's nodes, None for no second front.
        other_split: its column of gain.
    """
    pay = np.arange(2)
    if other_nodes is None:
        kept, out = np.flatnonzero(~gone), np.flatnonzero(gone)
        columns = np.concatenate([pay + split, _columns(kept, split)])
        side = _Side(out, _columns(out, split), kept, columns)
        return Joint(nodes[kept], 0, nodes[out], len(kept), side, None)
    order = np.argsort(other_nodes)
    found = np.searchsorted(other_nodes, nodes, sorter=order)
    twin = order[np.minimum(found, len(order) - 1)]
    shared = other_nodes[twin] == nodes
    own = np.flatnonzero(~shared)
    ends, out = np.flatnonzero(shared & ~gone), np.flatnonzero(shared & gone)
    alone = np.ones(len(other_nodes), bool)
    alone[twin[shared]] = False
    other_own = np.flatnonzero(alone)
    first = _Side(
        out,
        _columns(out, split),
        np.concatenate([own, ends]),
        np.concatenate([_columns(own, split), pay + split, _columns(ends, split)]),
    )
    other_kept = np.concatenate([twin[ends], other_own])
    second = _Side(
        twin[out],
        _columns(twin[out], other_split),
        other_kept,
        np.concatenate([pay + other_split, _columns(other_kept, other_split)]),
    )
    names = np.concatenate([nodes[own], nodes[ends], other_nodes[other_own]])
    return Joint(names, len(own), nodes[out], len(ends), first, second)


def _visits_side_by_side(
    rates: Float32[np.ndarray, "b m m"], exits: Float32[np.ndarray, "b m"]
) -> Float32[np.ndarray, "b m m"]:
    """Do what ``_visits`` does, one node after the other, all blocks at once."""
    size = rates.shape[1]
    move = np.ascontiguousarray(rates.transpose(1, 2, 0))
    leave = np.ascontiguousarray(exits.T)
    visits = np.zeros_like(move)
    for node in range(size):
        later = slice(node + 1, size)
        hold = 1 / np.maximum(leave[node] + move[node, later].sum(0), _NEVER)
        visits[node, node] = 1
        visits[node, : node + 1] *= hold
        move[node, later] *= hold
        leave[node] *= hold
        into = move[later, node].copy()
        move[later, later] += into[:, None] * move[node, later]
        move[range(node + 1, size), range(node + 1, size)] = 0
        leave[later] += into * leave[node]
        visits[later, : node + 1] += into[:, None] * visits[node, : node + 1]
    for node in range(size - 1, 0, -1):
        visits[:node] += move[:node, node, None] * visits[node]
    return np.ascontiguousarray(visits.transpose(2, 0, 1))


def _visits(
    rates: Float32[np.ndarray, "b m m"], exits: Float32[np.ndarray, "b m"]
) -> Float32[np.ndarray, "b m m"]:
    """Time spent at node j by a walker from node i before it leaves these nodes.

    The inverse of ``diag(exits + row sums of rates) - rates``.

    Args:
        rates: among the nodes, 0 on the diagonal.
        exits: total rate out of the nodes, kill included.
    """
    blocks, size, _ = rates.shape
    if size <= _VECTORISED and blocks > 2 * _VECTORISED:
        return _visits_side_by_side(rates, exits)
    if size <= _DENSE:
        matrix = np.negative(rates, dtype=np.float64)
        matrix.reshape(blocks, -1)[:, :: size + 1] = np.maximum(exits - matrix.sum(2), _NEVER)
        return np.linalg.inv(matrix).astype(np.float32)
    half = size // 2
    across = rates[:, :half, half:]
    visits = np.empty((blocks, size, size), np.float32)
    upper = _visits(rates[:, :half, :half], exits[:, :half] + across.sum(2))
    back = rates[:, half:, :half] @ upper
    rest = back @ across
    rest += rates[:, half:, half:]
    rest.reshape(blocks, -1)[:, :: size - half + 1] = 0
    leave = exits[:, half:] + (back @ exits[:, :half, None])[:, :, 0]
    lower = _visits(rest, leave)
    forth = upper @ across
    visits[:, half:, half:] = lower
    visits[:, half:, :half] = lower @ back
    visits[:, :half, half:] = forth @ lower
    visits[:, :half, :half] = forth @ visits[:, half:, :half]
    visits[:, :half, :half] += upper
    return visits


def join(
    joint: Joint,
    first: Float32[np.ndarray, "b n1 c1"],
    second: Float32[np.ndarray, "b n2 c2"] | None,
    rates: Float32[np.ndarray, "b n c"],
    exits: Float32[np.ndarray, "b m c"],
) -> None:
    """Join pairs of fronts and take the nodes between them out.

    Args:
        joint: how.
        first: blocks of the first front.
        second: blocks of the second front, None where the joint has none.
        rates: the joint fronts are written here.
        exits: for every node taken out, where a walker goes next among the joint's nodes: written
            here with the joint's columns; the column of gain holds what it is paid on the way.
    """
    blocks, size = exits.shape[:2]
    split, seam = joint.split, len(joint.nodes) - len(joint.first.kept)
    seam = len(joint.first.kept) - joint.shared
    sides = [(first, joint.first, slice(0, len(joint.first.kept)), slice(0, len(joint.first.kept_columns)))]
    if second is not None and joint.second is not None:
        sides.append((second, joint.second, slice(seam, None), slice(split, None)))
    kept = [block.take(side.kept, axis=1) for block, side, _, _ in sides]
    if size:
        among = np.zeros((blocks, size, size), np.float32)
        away = np.zeros_like(exits)
        into = np.zeros((blocks, len(joint.nodes), size), np.float32)
        for (block, side, rows, columns), kept_rows in zip(sides, kept, strict=True):
            gone_rows = block.take(side.gone, axis=1)
            among += gone_rows.take(side.gone_columns, axis=2)
            away[:, :, columns] += gone_rows.take(side.kept_columns, axis=2)
            into[:, rows] += kept_rows.take(side.gone_columns, axis=2)
        not_gain = np.ones(exits.shape[2], np.float32)
        not_gain[split] = 0
        np.matmul(_visits(among, away @ not_gain), away, out=exits)
        exits *= exits > _TINY
        into *= into > _TINY
        np.matmul(into, exits, out=rates)
    else:
        rates[:] = 0
    for (_, side, rows, columns), kept_rows in zip(sides, kept, strict=True):
        rates[:, rows, columns] += kept_rows.take(side.kept_columns, axis=2)
    flat, step = rates.reshape(blocks, -1), len(joint.nodes) + 3
    flat[:, : split * step : step] = 0
    flat[:, split * step + 2 :: step] = 0
