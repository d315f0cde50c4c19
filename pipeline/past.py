"""What a plan compares a stage with: what its run last had of it, else what is nearest."""

from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property

from cluster.storage import ObjectStore
from pipeline.console import local_time
from pipeline.fingerprint import Fingerprint
from pipeline.records import StageRecord, find_record, last_failure, node_records
from pipeline.runs import RunState, is_alive, load_attempts

_HAS_RESULT = ("done", "cached")


@dataclass
class Past:
    """What earlier attempts at a run and other runs left, looked up when something is stale.

    Attributes:
        store: where they left it.
        run_id: the run that is planned; empty = none in particular.
    """

    store: ObjectStore
    run_id: str = ""

    def explain(
        self, node: str, mark: Fingerprint, unknown: Collection[str] = ()
    ) -> tuple[tuple[str, ...], StageRecord | None, bool]:
        """Say why there is no result of a fingerprint.

        Args:
            node: the node.
            mark: its fingerprint.
            unknown: inputs that are still to be made, and that the fingerprint lacks.

        Returns:
            The causes, the likeliest first; the record that was compared with, None where the node
            was never done; whether that is what this run had itself.
        """
        record = self._own(node)
        is_own = record is not None
        record = record or self._nearest(node, mark, unknown)
        causes = [] if record is None else mark.differences(record.fingerprint, unknown)
        ends = [] if unknown else self._ends(node, mark.digest())
        if record is None:
            causes = [f"never done: {end}" for end in ends or self._ends(node, None)]
            return tuple(causes or ["never run"]), None, False
        return (*causes, *ends), record, is_own

    @cached_property
    def _attempts(self) -> list[RunState]:
        """This run's attempts, the newest first."""
        return load_attempts(self.store, self.run_id)[::-1] if self.run_id else []

    def _own(self, node: str) -> StageRecord | None:
        stages = [stage for a in self._attempts if (stage := a.stages.get(node))]
        digests = [s.fingerprint for s in stages if s.fingerprint and s.status in _HAS_RESULT]
        found = (find_record(self.store, node, digest) for digest in dict.fromkeys(digests))
        return next((record for record in found if record is not None), None)

    def _nearest(
        self, node: str, mark: Fingerprint, unknown: Collection[str]
    ) -> StageRecord | None:
        """Return the record with the fewest differences, of several the newest."""
        newest_first = sorted(
            node_records(self.store, node), key=lambda record: record.finished_at, reverse=True
        )
        return min(
            newest_first, key=lambda r: len(mark.differences(r.fingerprint, unknown)), default=None
        )

    def _ends(self, node: str, digest: str | None) -> list[str]:
        """Say how executions of a fingerprint, or of any, ended without a result."""
        stages = [(a, s) for a in self._attempts if (s := a.stages.get(node)) and s.fingerprint]
        fitting = ((a, s) for a, s in stages if digest in (None, s.fingerprint))
        attempt, stage = next(fitting, (None, None))
        if attempt and stage and stage.status in ("runs", "killed"):
            if attempt.status == "running" and is_alive(self.store, attempt) is not False:
                return [f"{attempt.name} computes it"]
            return [f"it was stopped in {attempt.name}"]
        failure = last_failure(self.store, node)
        if failure is None or digest not in (None, failure.fingerprint):
            return []
        when, why = local_time(failure.at), failure.reason.partition("\n")[0][:200]
        return [f"it failed in {failure.run_id} at {when}: {why}"]
