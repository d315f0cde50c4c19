"""A stage that runs: what its task does, what it was given, and why it is stopped."""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cluster.services import Services
from pipeline.dag import Node
from pipeline.errors import StageTimeout
from pipeline.fingerprint import Fingerprint
from pipeline.plan import Decision
from pipeline.records import StageRecord
from pipeline.runs import now_iso


@dataclass
class Running:
    """One execution of a stage, from its beginning on.

    Attributes:
        node: the stage.
        decision: why it runs, and its fingerprint.
        services: what it was given.
        started: when, on this process's clock.
        stopped: why it was told to stop; None while it was not.
        kill_at: when it is killed, if it has not ended by then.
    """

    node: Node
    decision: Decision
    services: Services
    started: float = field(default_factory=time.monotonic)
    stopped: StageTimeout | None = None
    kill_at: float = math.inf

    @property
    def fingerprint(self) -> Fingerprint:
        """What decides its result; known, for it runs."""
        assert self.decision.fingerprint is not None
        return self.decision.fingerprint

    def record(self, artifact: Any, run_id: str, mark: str) -> StageRecord:
        """Return what is to be published of it, now that it is done.

        Args:
            artifact: its result.
            run_id: the run that it is part of.
            mark: of an execution that was forced.
        """
        return StageRecord(
            node=self.node.name,
            fingerprint=self.fingerprint,
            artifact=artifact,
            seconds=time.monotonic() - self.started,
            finished_at=now_iso(),
            run_id=run_id,
            mlflow_run_id=self.services.run_id,
            mark=mark,
        )

    def timeout(self, limit_s: float | None) -> StageTimeout | None:
        """Return an error if it has taken longer than a limit."""
        if limit_s is None or time.monotonic() < self.started + limit_s:
            return None
        return StageTimeout(self.node.name, f"it took longer than its limit of {limit_s:g} s")


def run_stage(module: str, config: Any, services: Services, inputs: Mapping[str, Any]) -> Any:
    """Run one stage: the body of its task on the cluster."""
    import importlib

    return importlib.import_module(module).run(config, services, **inputs)
