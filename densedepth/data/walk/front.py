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

import itertools
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Int

_NEVER = np.float32(1e-30)  # a total rate below this: nothing leaves the node
_TINY = np.float32(1e-18)  # probabilities below this are 0, so that no product is subnormal
_DENSE = 64  # up to this size LAPACK inverts in float64; above, by halves
_LONG = 24  # runs of columns at least this long on average are copied as slices


@dataclass(frozen=True)
class _Side:
    """Where one of two fronts holds what a joint needs, and where in the joint it belongs.

    Attributes:
        gone: rows of the nodes taken out.
        gone_columns: their columns.
        kept: rows of the nodes that stay, in the joint's order.
        kept_columns: their columns and those of gain and kill.
        rows: the joint's rows for ``kept``.
        columns: the joint's columns for ``kept_columns``.
    """

    gone: Int[np.ndarray, " m"]
    gone_columns: Int[np.ndarray, " m"]
    kept: Int[np.ndarray, " k"]
    kept_columns: Int[np.ndarray, " k2"]
    rows: slice
    columns: slice


@dataclass(frozen=True)
class Joint:
    """How two fronts become one; made once for all pairs of the same shape.

    Attributes:
        nodes: the joint front's nodes: the first's own, the shared, the second's own.
        split: the joint front's column of gain.
        gone: the nodes that are taken out.
        sides: the first front and, if there is one, the second.
    """

    nodes: Int[np.ndarray, " n"]
    split: int
    gone: Int[np.ndarray, " m"]
    sides: tuple[_Side, ...]


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
        side = _Side(out, _columns(out, split), kept, columns, slice(None), slice(None))
        return Joint(nodes[kept], 0, nodes[out], (side,))
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
        slice(0, len(own) + len(ends)),
        slice(0, len(own) + len(ends) + 2),
    )
    other_kept = np.concatenate([twin[ends], other_own])
    second = _Side(
        twin[out],
        _columns(twin[out], other_split),
        other_kept,
        np.concatenate([pay + other_split, _columns(other_kept, other_split)]),
        slice(len(own), None),
        slice(len(own), None),
    )
    names = np.concatenate([nodes[own], nodes[ends], other_nodes[other_own]])
    return Joint(names, len(own), nodes[out], (first, second))


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


def _rows(
    fronts: Float32[np.ndarray, "b n c"],
    index: Int[np.ndarray, " k"],
    rows: Int[np.ndarray, " r"],
) -> Float32[np.ndarray, "k r c"]:
    """Copy rows of some blocks; a block of index -1 has no rates."""
    _, size, columns = fronts.shape
    places = index[:, None] * size + rows
    taken = fronts.reshape(-1, columns).take(places, axis=0, mode="clip")
    if index.min() < 0:
        taken[index < 0] = 0
    return taken


def _add_columns(
    target: Float32[np.ndarray, "b n k"],
    source: Float32[np.ndarray, "b n c"],
    columns: Int[np.ndarray, " k"],
) -> None:
    """Add columns of the source in the given order."""
    cuts = [0, *(np.flatnonzero(np.diff(columns) != 1) + 1).tolist(), len(columns)]
    if len(columns) < _LONG * (len(cuts) - 1):
        target += source.take(columns, axis=2)
        return
    for start, stop in itertools.pairwise(cuts):
        first = int(columns[start])
        target[:, :, start:stop] += source[:, :, first : first + stop - start]


def join(
    joint: Joint,
    fronts: list[tuple[Float32[np.ndarray, "_ _ _"], Int[np.ndarray, " b"]]],
    rates: Float32[np.ndarray, "b n c"],
    exits: Float32[np.ndarray, "b m c"],
) -> None:
    """Join pairs of fronts and take the nodes between them out.

    Args:
        joint: how.
        fronts: for each side, fronts of one shape and which of them take part, -1 for one
            without rates.
        rates: the joint fronts are written here.
        exits: for every node taken out, where a walker goes next among the joint's nodes, written
            here in the joint's columns; the column of gain holds what it is paid before.
    """
    blocks, size = exits.shape[:2]
    split, step = joint.split, len(joint.nodes) + 3
    kept = [_rows(*front, side.kept) for front, side in zip(fronts, joint.sides, strict=True)]
    if size:
        among = np.zeros((blocks, size, size), np.float32)
        away = np.zeros_like(exits)
        into = np.zeros((blocks, len(joint.nodes), size), np.float32)
        for front, side, rows in zip(fronts, joint.sides, kept, strict=True):
            gone = _rows(*front, side.gone)
            among += gone.take(side.gone_columns, axis=2)
            _add_columns(away[:, :, side.columns], gone, side.kept_columns)
            into[:, side.rows] += rows.take(side.gone_columns, axis=2)
        not_gain = np.ones(exits.shape[2], np.float32)
        not_gain[split] = 0
        np.matmul(_visits(among, away @ not_gain), away, out=exits)
        exits *= exits > _TINY
        into *= into > _TINY
        np.matmul(into, exits, out=rates)
    else:
        rates[:] = 0
    for side, rows in zip(joint.sides, kept, strict=True):
        _add_columns(rates[:, side.rows, side.columns], rows, side.kept_columns)
    # A walker that comes straight back has not moved.
    flat = rates.reshape(blocks, -1)
    flat[:, : split * step : step] = 0
    flat[:, split * step + 2 :: step] = 0
