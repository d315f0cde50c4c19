"""What would run, what is up to date, and why. Reads the store, changes nothing."""

from collections.abc import Mapping
from dataclasses import dataclass

from cluster.storage import ObjectStore
from pipeline.dag import Node
from pipeline.errors import UsageMistake
from pipeline.fingerprint import Fingerprint, fingerprint
from pipeline.records import StageRecord, artifact_digest, damage, find_record, latest_record
from pipeline.selection import Selection, upstream_of


@dataclass(frozen=True)
class Decision:
    """Whether a node must run.

    Attributes:
        node: the node's name.
        runs: False where a verified artifact of an earlier run stands.
        reason: the exact cause, or what was verified.
        record: the earlier run's record: the valid one, or the damaged one.
        fingerprint: None while an input is still to be made.
        last_seconds: how long the node took last time.
    """

    node: str
    runs: bool
    reason: str
    record: StageRecord | None = None
    fingerprint: Fingerprint | None = None
    last_seconds: float | None = None


def decide(
    node: Node, store: ObjectStore, inputs: Mapping[str, StageRecord], *, forced: bool = False
) -> Decision:
    """Decide about a node whose inputs are all there.

    Args:
        node: the node.
        store: where earlier runs left their records.
        inputs: needed node -> its record.
        forced: run it although it is up to date.
    """
    mark = fingerprint(node, {name: artifact_digest(r.artifact) for name, r in inputs.items()})
    record = find_record(store, node.name, mark.digest())
    if record is not None and forced:
        return Decision(node.name, True, "forced", record, mark, record.seconds)
    if record is not None:
        broken = damage(store, record)
        if broken is None:
            objects = len(record.artifact.objects())
            reason = f"up to date, {objects} object{'s' if objects != 1 else ''} verified"
            return Decision(node.name, False, reason, record, mark, record.seconds)
        return Decision(node.name, True, f"damaged: {broken}", record, mark, record.seconds)
    last = latest_record(store, node.name)
    if last is None:
        return Decision(node.name, True, "never run", None, mark)
    causes = mark.differences(last.fingerprint)
    reason = "; ".join(causes[:4]) + (f"; {len(causes) - 4} more" if len(causes) > 4 else "")
    reason = reason or "it stopped before its result was published"
    return Decision(node.name, True, reason, None, mark, last.seconds)


def make_plan(
    graph: Mapping[str, Node], store: ObjectStore, selection: Selection | None = None
) -> dict[str, Decision]:
    """Decide about every node as far as it can be said without running anything.

    Args:
        graph: the nodes, in an order in which they can run.
        store: where earlier runs left their records.
        selection: what may run; None = everything. What is neither chosen nor needed is left out.

    Raises:
        UsageMistake: a chosen node needs one that is not, and that is not up to date.
    """
    selection = selection or Selection(frozenset(graph))
    needed = upstream_of(graph, selection.chosen)
    plan: dict[str, Decision] = {}
    for name, node in graph.items():
        if name not in needed:
            continue
        stale = [n for n in node.needs() if plan[n].runs]
        if stale:
            last = latest_record(store, name)
            seconds = last.seconds if last else None
            plan[name] = Decision(name, True, f"after {', '.join(stale)}", last_seconds=seconds)
        else:
            records = {n: r for n in node.needs() if (r := plan[n].record) is not None}
            plan[name] = decide(node, store, records, forced=name in selection.forced)
        if plan[name].runs and name not in selection.chosen:
            raise not_chosen(graph, selection.chosen, name, plan[name].reason)
    return plan


def not_chosen(
    graph: Mapping[str, Node], chosen: frozenset[str], name: str, reason: str
) -> UsageMistake:
    """Return the error for a stage that would have to run, but was not chosen."""
    needing = [n for n in graph if n in chosen and name in upstream_of(graph, [n])]
    return UsageMistake(
        f"{', '.join(needing)} needs {name}, which is not up to date ({reason}) and not among the "
        "chosen stages: choose it too"
    )
