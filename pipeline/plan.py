"""What would run, what is up to date, and why. Reads the store, changes nothing."""

from collections.abc import Mapping
from dataclasses import dataclass

from cluster.storage import ObjectStore
from pipeline.console import local_time
from pipeline.dag import Node
from pipeline.errors import UsageMistake
from pipeline.fingerprint import Fingerprint, fingerprint
from pipeline.records import (
    StageRecord,
    artifact_digest,
    damage,
    find_record,
    last_failure,
    latest_record,
)
from pipeline.selection import Selection, upstream_of


@dataclass(frozen=True)
class Decision:
    """Whether a node must run.

    Attributes:
        node: the node's name.
        runs: False where a verified artifact of an earlier run stands.
        causes: exactly why it runs, the likeliest cause first; or what was verified.
        record: the earlier run's record: the valid one, or the damaged one.
        fingerprint: None while an input is still to be made.
        last_seconds: how long the node took last time.
    """

    node: str
    runs: bool
    causes: tuple[str, ...]
    record: StageRecord | None = None
    fingerprint: Fingerprint | None = None
    last_seconds: float | None = None

    @property
    def reason(self) -> str:
        """The causes as one line, which names no more than four."""
        more = f"; {len(self.causes) - 4} more" if len(self.causes) > 4 else ""
        return "; ".join(self.causes[:4]) + more


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
        return Decision(node.name, True, ("forced",), record, mark, record.seconds)
    if record is not None:
        broken = damage(store, record)
        if broken is None:
            objects = len(record.artifact.objects())
            found = f"up to date, {objects} object{'s' if objects != 1 else ''} verified"
            return Decision(node.name, False, (found,), record, mark, record.seconds)
        return Decision(node.name, True, (f"damaged: {broken}",), record, mark, record.seconds)
    last = latest_record(store, node.name)
    failed = _failure(store, node.name, None if last is None else mark.digest())
    if last is None:
        return Decision(node.name, True, failed or ("never run",), None, mark)
    causes = (*mark.differences(last.fingerprint), *failed)
    causes = causes or ("it stopped before its result was published",)
    return Decision(node.name, True, causes, None, mark, last.seconds)


def _failure(store: ObjectStore, node: str, digest: str | None) -> tuple[str, ...]:
    """Say how a node failed last; with a digest only if it was this fingerprint's execution."""
    failure = last_failure(store, node)
    if failure is None or digest not in (None, failure.fingerprint):
        return ()
    when, why = local_time(failure.at), failure.reason.partition("\n")[0][:200]
    never = "" if digest else "never done: "
    return (f"{never}it failed in {failure.run_id} at {when}: {why}",)


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
            causes = (f"after {', '.join(stale)}",)
            plan[name] = Decision(name, True, causes, last_seconds=seconds)
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
