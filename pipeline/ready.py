"""What must be there and fit before anything runs: raw files, and depth that the protocols mean."""

from collections.abc import Iterable, Mapping

from densedepth.errors import DepthError
from pipeline.dag import Node
from pipeline.errors import NotReady
from pipeline.fingerprint import raw_sources
from pipeline.selection import upstream_of
from stages.shard import truth_kind


def check_ready(graph: Mapping[str, Node], chosen: Iterable[str]) -> None:
    """Look at what the stages read outside the store, and at their protocols.

    Raises:
        NotReady: with all that is not there or does not fit.
    """
    reasons: dict[str, str] = {}
    needed = upstream_of(graph, chosen)
    for node in (node for name, node in graph.items() if name in needed):
        try:
            raw_sources(node)
        except DepthError as error:
            reasons.setdefault(str(error), node.name)
            continue
        if reason := protocol_mistake(graph, node):
            reasons.setdefault(reason, node.name)
    if reasons:
        raise NotReady(tuple(f"{node}: {reason}" for reason, node in reasons.items()))


def protocol_mistake(graph: Mapping[str, Node], node: Node) -> str:
    """Say why a stage's protocol does not fit its data set's depth; empty where it does."""
    shard = graph.get(f"shard.{node.name.partition('.')[2]}")
    name = getattr(node.config, "protocol", None)
    if name is None or shard is None:
        return ""
    from densedepth.protocols import get_protocol

    try:
        get_protocol(name).require_truth(truth_kind(shard.config))
    except DepthError:  # of the reader's settings: told of the stage that reads
        return ""
    except ValueError as error:
        return str(error)
    return ""
