"""What would run, what is up to date, and why. Reads the store, changes nothing."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from cluster.storage import ObjectStore
from pipeline.dag import Node
from pipeline.errors import UsageMistake
from pipeline.fingerprint import Fingerprint, fingerprint
from pipeline.past import Past
from pipeline.records import StageRecord, artifact_digest, damage, find_record
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
        compared_with: the run whose result the causes are the differences from, where this run
            has none of its own.
    """

    node: str
    runs: bool
    causes: tuple[str, ...]
    record: StageRecord | None = None
    fingerprint: Fingerprint | None = None
    last_seconds: float | None = None
    compared_with: str = ""

    @property
    def reason(self) -> str:
        """The causes as one line, which names no more than four."""
        more = f"; {len(self.causes) - 4} more" if len(self.causes) > 4 else ""
        other = f" (compared with {self.compared_with})" if self.compared_with else ""
        return "; ".join(self.causes[:4]) + more + other


def decide(node: Node, past: Past, inputs: Mapping[str, StageRecord], forced: str = "") -> Decision:
    """Decide about a node whose inputs are all there.

    Args:
        node: the node.
        past: what earlier runs left.
        inputs: needed node -> its record.
        forced: the mark of an execution that runs although the node is up to date; empty = none.
            One that its run has published already is not repeated, as after a driver that died.
    """
    mark = fingerprint(node, _digests(inputs))
    record = find_record(past.store, node.name, mark.digest())
    if record is None:
        return _stale(node, past, mark, bool(forced))
    if forced and (record.run_id, record.mark) != (past.run_id, forced):
        return Decision(node.name, True, ("forced",), record, mark, record.seconds)
    broken = damage(past.store, record)
    if broken is None:
        objects = len(record.artifact.objects())
        found = f"up to date, {objects} object{'s' if objects != 1 else ''} verified"
        return Decision(node.name, False, (found,), record, mark, record.seconds)
    return Decision(node.name, True, (f"damaged: {broken}",), record, mark, record.seconds)


def _stale(
    node: Node, past: Past, mark: Fingerprint, forced: bool, missing: Sequence[str] = ()
) -> Decision:
    """Say why a node must run of which there is no such result, or that waits for an input."""
    causes, record, is_own = past.explain(node.name, mark, missing)
    other = "" if record is None or is_own or not causes else record.run_id
    causes = (f"after {', '.join(missing)}", *causes) if missing else causes
    causes += ("forced",) if forced else ()
    return Decision(
        node.name,
        True,
        causes,
        fingerprint=None if missing else mark,
        last_seconds=None if record is None else record.seconds,
        compared_with=other,
    )


def _digests(records: Mapping[str, StageRecord]) -> dict[str, str]:
    return {name: artifact_digest(record.artifact) for name, record in records.items()}


def make_plan(
    graph: Mapping[str, Node],
    store: ObjectStore,
    selection: Selection | None = None,
    run_id: str = "",
) -> dict[str, Decision]:
    """Decide about every node as far as it can be said without running anything.

    Args:
        graph: the nodes, in an order in which they can run.
        store: where earlier runs left their records.
        selection: what may run; None = everything. What is neither chosen nor needed is left out.
        run_id: the run that is planned, with whose own results what is stale is compared.

    Raises:
        UsageMistake: a chosen node needs one that is not, and that is not up to date.
    """
    selection = selection or Selection(frozenset(graph))
    needed = upstream_of(graph, selection.chosen)
    past = Past(store, run_id)
    plan: dict[str, Decision] = {}
    for name, node in graph.items():
        if name not in needed:
            continue
        missing = [n for n in node.needs() if plan[n].runs]
        records = {n: r for n in node.needs() if n not in missing and (r := plan[n].record)}
        forced = name in selection.forced
        if missing:
            mark = fingerprint(node, _digests(records))
            plan[name] = _stale(node, past, mark, forced, missing)
        else:
            plan[name] = decide(node, past, records, "forced" if forced else "")
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


def refuse_gaps(
    graph: Mapping[str, Node], chosen: frozenset[str], waiting: Collection[str]
) -> None:
    """Refuse a stage between chosen ones that would have to run, too.

    Args:
        graph: the nodes.
        chosen: those that may run.
        waiting: those that are not up to date, or wait for one that is not.

    Raises:
        UsageMistake: there is one.
    """
    for name in waiting:
        if name not in chosen:
            stale = ", ".join(n for n in graph[name].needs() if n in waiting)
            raise not_chosen(graph, chosen, name, f"after {stale}")
