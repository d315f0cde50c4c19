"""Fronts: blocks of a random walk, told by the nodes on their border alone.

A walker at node i moves to node j at the rate ``r_ij`` and stops at the rate ``kill_i``, where it
is paid ``gain_i / kill_i``. Taking a node c out of the walk leaves what every other node can
expect to be paid: who used to move to c moves to where c moves to,

    r_ij += r_ic p_cj,   kill_i += r_ic p_c,kill,   gain_i += r_ic p_c,gain,
    p_cj = r_cj / (kill_c + sum of c's rates to other nodes).

This is Gaussian elimination of ``(kill_i + sum_j r_ij) x_i - sum_j r_ij x_j = gain_i`` with the
diagonal left out (Grassmann, Taksar and Heyman 1985): non-negative numbers are added and
multiplied, none subtracted, so float32 is enough however weakly a part hangs on the rest.

Layout of a front with n nodes: rows are nodes; columns are nodes too, with two columns put in
before column ``split``: gain, then kill. The rate from a node to itself is 0.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Int

# Numbers below are taken as 0, so that no product of two is subnormal: those are slow.
_TINY = np.sqrt(np.finfo(np.float32).tiny)
_NEVER = 1e-30  # put for the total rate of a node that nothing leaves
_SLACK = 1e-13  # keeps a matrix regular where walkers all but never leave
_NO_EXIT = 1e-20  # smaller chances to leave are none
_DENSE = 64  # up to this size LAPACK inverts in float64; above, by halves


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
    """How two fronts become one; the same for all pairs of the same shape.

    Attributes:
        nodes: the joint front's nodes: the first's own, the shared, the second's own.
        split: its column of gain.
        gone: the nodes that are taken out.
        sides: the first front and, if there is one, the second.
    """

    nodes: Int[np.ndarray, " n"]
    split: int
    gone: Int[np.ndarray, " m"]
    sides: tuple[_Side, ...]


def _side(
    gone: Int[np.ndarray, " m"],
    before: Int[np.ndarray, " k1"],
    after: Int[np.ndarray, " k2"],
    split: int,
    rows: slice,
    columns: slice,
) -> _Side:
    """Make a side whose kept nodes come before and after gain and kill."""
    kept = [node_columns(before, split), np.array([split, split + 1]), node_columns(after, split)]
    return _Side(
        gone=gone,
        gone_columns=node_columns(gone, split),
        kept=np.concatenate([before, after]),
        kept_columns=np.concatenate(kept),
        rows=rows,
        columns=columns,
    )


def plan_joint(
    nodes: Int[np.ndarray, " n1"],
    split: int,
    gone: Bool[np.ndarray, " n1"],
    other_nodes: Int[np.ndarray, " n2"] | None = None,
    other_split: int = 0,
) -> Joint:
    """Plan how to join two fronts, or to take nodes out of one.

    Args:
        nodes: names of the first front's nodes.
        split: its column of gain.
        gone: which of them are taken out; with a second front, all of these are shared.
        other_nodes: names of the second front's nodes, None for no second front.
        other_split: its column of gain.
    """
    if other_nodes is None:
        out, kept = np.flatnonzero(gone), np.flatnonzero(~gone)
        side = _side(out, kept[:0], kept, split, slice(None), slice(None))
        return Joint(nodes[kept], 0, nodes[out], (side,))
    order = np.argsort(other_nodes)
    place = np.searchsorted(other_nodes, nodes, sorter=order)
    twin = order[np.minimum(place, len(order) - 1)]
    shared = other_nodes[twin] == nodes
    alone = np.ones(len(other_nodes), bool)
    alone[twin[shared]] = False
    own, other_own = np.flatnonzero(~shared), np.flatnonzero(alone)
    ends, out = np.flatnonzero(shared & ~gone), np.flatnonzero(shared & gone)
    kept, second_kept = np.concatenate([own, ends]), np.concatenate([twin[ends], other_own])
    rest = slice(len(own), None)
    first = _side(out, own, ends, split, slice(0, len(kept)), slice(0, len(kept) + 2))
    second = _side(twin[out], own[:0], second_kept, other_split, rest, rest)
    names = np.concatenate([nodes[kept], other_nodes[other_own]])
    return Joint(names, len(own), nodes[out], (first, second))


def node_columns(rows: Int[np.ndarray, " k"], split: int) -> Int[np.ndarray, " k"]:
    """Give the columns of the nodes in these rows."""
    return rows + 2 * (rows >= split)


def _visits(
    rates: Float32[np.ndarray, "b m m"], exits: Float32[np.ndarray, "b m"]
) -> Float32[np.ndarray, "b m m"]:
    """Time that a walker from node i spends at node j before it leaves these nodes.

    The inverse of ``diag(exits + row sums of rates) - rates``.

    Args:
        rates: among the nodes, 0 on the diagonal.
        exits: total rate out of the nodes, kill included.
    """
    blocks, size, _ = rates.shape
    if size <= _DENSE:
        matrix = np.negative(rates, dtype=np.float64)
        total = np.maximum((exits - matrix.sum(2)) * (1 + _SLACK), _NEVER)
        matrix.reshape(blocks, -1)[:, :: size + 1] = total
        inverse = np.linalg.inv(matrix)
        # Who enters must leave: rows times exits are 1. Where the exits are so small that the
        # inverse lost their scale, this puts it right.
        leave = (inverse @ exits[:, :, None].astype(np.float64)).clip(0)
        inverse /= np.where(leave > _NO_EXIT, leave, 1)
        return inverse.astype(np.float32)
    half = size // 2
    across = rates[:, :half, half:]
    upper = _visits(rates[:, :half, :half], exits[:, :half] + across.sum(2))
    back = rates[:, half:, :half] @ upper
    rest = back @ across
    rest += rates[:, half:, half:]
    rest.reshape(blocks, -1)[:, :: size - half + 1] = 0
    lower = _visits(rest, exits[:, half:] + (back @ exits[:, :half, None])[:, :, 0])
    forth = upper @ across
    visits = np.empty((blocks, size, size), np.float32)
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
            away[:, :, side.columns] += gone.take(side.kept_columns, axis=2)
            into[:, side.rows] += rows.take(side.gone_columns, axis=2)
        not_gain = np.ones(exits.shape[2], np.float32)
        not_gain[split] = 0
        leave = (away.reshape(-1, len(not_gain)) @ not_gain).reshape(blocks, size)
        np.matmul(_visits(among, leave), away, out=exits)
        exits *= exits > _TINY
        into *= into > _TINY
        np.matmul(into, exits, out=rates)
    else:
        rates[:] = 0
    for side, rows in zip(joint.sides, kept, strict=True):
        rates[:, side.rows, side.columns] += rows.take(side.kept_columns, axis=2)
    # A walker that comes straight back has not moved.
    diagonal = rates.reshape(blocks, -1)
    diagonal[:, : split * step : step] = 0
    diagonal[:, split * step + 2 :: step] = 0
