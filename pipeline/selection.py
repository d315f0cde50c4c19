"""Which stages a command means: ``--from --to --only --force --downstream``. No I/O."""

import difflib
import fnmatch
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pipeline.dag import Node
from pipeline.errors import UsageMistake


@dataclass(frozen=True)
class Selection:
    """What a run is allowed to run, and what it must.

    Attributes:
        chosen: nodes that may run; what they need of others must be up to date.
        forced: nodes that run although they are up to date.
    """

    chosen: frozenset[str]
    forced: frozenset[str] = frozenset()


def select(
    graph: Mapping[str, Node],
    *,
    first: Sequence[str] = (),
    last: Sequence[str] = (),
    only: Sequence[str] = (),
    force: Sequence[str] | None = None,
    downstream: bool = False,
) -> Selection:
    """Turn the options of a command into sets of nodes.

    A name is a node (``train.nyu``), a stage of all branches (``train``) or a pattern (``*.nyu``).

    Args:
        graph: the nodes.
        first: ``--from``: these and all that follows from them.
        last: ``--to``: these and all that they need.
        only: ``--only``: these alone.
        force: ``--force``: these run anyway; empty = all that is chosen; None = none.
        downstream: adds what follows to ``only`` and to ``force``.

    Raises:
        UsageMistake: a name that no node has, options that leave nothing, or ``downstream`` alone.
    """
    if downstream and not only and force is None:
        raise UsageMistake(
            "--downstream adds what follows to the stages of --only or of --force: give one of "
            "them, or --from STAGE for a stage and all that follows from it"
        )
    chosen = set(graph)
    if only:
        chosen &= _named(graph, only, downstream)
    if first:
        chosen &= _named(graph, first, True)
    if last:
        chosen &= upstream_of(graph, _named(graph, last, False))
    if not chosen:
        raise UsageMistake("the options --from, --to and --only leave no stage to run")
    forced = set(chosen) if force == [] else _named(graph, force or (), False)
    if outside := sorted(forced - chosen):
        raise UsageMistake(
            f"--force names {', '.join(outside)}, which --from, --to or --only leave out"
        )
    if downstream:
        forced = downstream_of(graph, forced) & chosen
    return Selection(frozenset(chosen), frozenset(forced))


def upstream_of(graph: Mapping[str, Node], names: Iterable[str]) -> set[str]:
    """Return these nodes and all that they need."""
    found, waiting = set(), list(names)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += graph[name].needs()
    return found


def downstream_of(graph: Mapping[str, Node], names: Iterable[str]) -> set[str]:
    """Return these nodes and all that follows from them."""
    found = set(names)
    for name, node in graph.items():  # the graph's order: inputs come first
        if found & set(node.needs()):
            found.add(name)
    return found


def _named(graph: Mapping[str, Node], names: Sequence[str], downstream: bool) -> set[str]:
    found: set[str] = set()
    for name in names:
        fitting = {n for n in graph if name in (n, n.partition(".")[0]) or _fits(n, name)}
        if not fitting:
            known = sorted({*graph, *(n.partition(".")[0] for n in graph)})
            close = difflib.get_close_matches(name, known, n=1)
            there = f"did you mean {close[0]}? There are" if close else "there are"
            raise UsageMistake(f"no stage is called {name!r}; {there} {', '.join(graph)}")
        found |= fitting
    return downstream_of(graph, found) if downstream else found


def _fits(node: str, pattern: str) -> bool:
    return any(mark in pattern for mark in "*?[") and fnmatch.fnmatchcase(node, pattern)
