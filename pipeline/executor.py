"""Runs the graph: skips what is verified, runs branches side by side, records what is done.

A stage that fails stops the stages that need it; the other branches run to their end. What was
finished stays, and the same command goes on from there.
"""

import contextlib
import datetime
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cluster.monitor import MonitorHandle
from cluster.services import Services
from cluster.session import Session
from cluster.storage import ObjectStore
from pipeline.console import RunDisplay, duration_text
from pipeline.dag import Node
from pipeline.errors import StageFailed
from pipeline.plan import Decision, decide
from pipeline.records import StageRecord, drop_record, publish_record

POLL_S = 0.3


@dataclass
class Execution:
    """One run of a graph.

    Attributes:
        graph: the nodes, in an order in which they can run.
        store: records and objects.
        run_id: the pipeline run's id.
        open_session: connects to Ray when the first stage has to run.
        scratch: a folder on this machine for downloads.
        config: the whole configuration, logged as the run's parameters.
        tags: of the pipeline's MLflow run, such as the git commit.
    """

    graph: Mapping[str, Node]
    store: ObjectStore
    run_id: str
    open_session: Callable[[], contextlib.AbstractContextManager[Session]]
    scratch: Path
    config: Mapping[str, Any]
    tags: Mapping[str, str]
    display: RunDisplay
    records: dict[str, StageRecord] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    _session: Session | None = None
    _parent_id: str = ""

    def run(self) -> dict[str, StageRecord]:
        """Run what must run.

        Returns:
            Every node's record.

        Raises:
            StageFailed: a stage failed; all that did not need it has been run.
        """
        with contextlib.ExitStack() as stack, self.display:
            try:
                for node, decision in self._stale_nodes():
                    if self._session is None:
                        self._open(stack)
                    self._start(node, decision)
            except BaseException as error:
                status = "FAILED" if isinstance(error, Exception) else "KILLED"
                self._abandon(status)
                raise
            if self._session is not None:
                self._finish_parent()
        if self.failures:
            stage, reason = next(iter(self.failures.items()))
            raise StageFailed(stage, reason)
        return self.records

    def _stale_nodes(self) -> Iterator[tuple[Node, Decision]]:
        """Yield each node that must run once its inputs are there; wait for running ones."""
        waiting = dict(self.graph)
        self._running: dict[Any, tuple[Node, Decision, Services, float]] = {}
        while waiting or self._running:
            for name, node in list(waiting.items()):
                if any(needed in self.failures for needed in node.needs()):
                    del waiting[name]
                    self.failures[name] = "an input failed"
                    self.display.set(name, "failed", "not run: an input failed")
                elif all(needed in self.records for needed in node.needs()):
                    del waiting[name]
                    inputs = {n: self.records[n] for n in node.needs()}
                    decision = decide(node, self.store, inputs)
                    if decision.runs:
                        yield node, decision
                    else:
                        assert decision.record is not None
                        self.records[name] = decision.record
                        self.display.set(name, "cached", decision.reason)
            if self._running:
                self._collect()

    def _open(self, stack: contextlib.ExitStack) -> None:
        """Check the store, connect to Ray, open the pipeline's MLflow run."""
        self.store.check_writable()
        self._session = stack.enter_context(self.open_session())
        monitor = self._session.monitor
        self._parent_id = monitor.ensure_run(self.run_id, self.run_id, None, self.tags)
        monitor.log_params(self._parent_id, self.config)

    def _start(self, node: Node, decision: Decision) -> None:
        assert self._session is not None
        assert decision.fingerprint is not None
        self.display.set(node.name, "runs", decision.reason)
        if decision.record is not None:
            drop_record(self.store, decision.record)
        digest = decision.fingerprint.digest()
        key = f"{self.run_id}/{node.name}/{digest[:12]}"
        tags = {
            **self.tags,
            "depth.stage": node.name,
            "depth.run": self.run_id,
            "depth.fingerprint": digest,
        }
        stage_run = self._session.monitor.ensure_run(key, node.name, self._parent_id, tags)
        services = Services(
            self.store, self._session.monitor, node.name, key, stage_run, self.scratch
        )
        inputs = {name: self._artifacts(source) for name, source in node.inputs.items()}
        handle = self._session.submit(run_stage, node.stage.__name__, node.config, services, inputs)
        self._running[handle] = (node, decision, services, time.monotonic())

    def _artifacts(self, source: str | Mapping[str, str]) -> Any:
        if isinstance(source, str):
            return self.records[source].artifact
        return {branch: self.records[name].artifact for branch, name in source.items()}

    def _collect(self) -> None:
        """Wait a moment; record what ended."""
        assert self._session is not None
        for handle in self._session.wait(list(self._running), POLL_S):
            node, decision, services, started = self._running.pop(handle)
            seconds = time.monotonic() - started
            try:
                artifact = self._session.result(handle)
            except Exception as error:
                self._fail(node.name, services, error)
                continue
            assert decision.fingerprint is not None
            record = StageRecord(
                node=node.name,
                fingerprint=decision.fingerprint,
                artifact=artifact,
                seconds=seconds,
                finished_at=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
                run_id=self.run_id,
                mlflow_run_id=services.run_id,
            )
            publish_record(self.store, record)
            self.records[node.name] = record
            self._log_summary(services.monitor, record)
            services.monitor.finish(services.run_id, "FINISHED")
            self.display.set(node.name, "done", f"in {duration_text(seconds)}")
        self.display.progress(self._session.monitor.snapshot())

    def _fail(self, name: str, services: Services, error: Exception) -> None:
        """Note a stage's failure; the traceback goes to its MLflow run."""
        self.failures[name] = f"{type(error).__name__}: {error}"
        self.display.set(name, "failed", self.failures[name])
        trace = "".join(traceback.format_exception(error))
        services.monitor.set_tags(services.run_id, {"depth.error": self.failures[name][:4000]})
        services.monitor.log_bytes(services.run_id, "error.txt", trace.encode())
        services.monitor.finish(services.run_id, "FAILED")

    def _log_summary(self, monitor: MonitorHandle, record: StageRecord) -> None:
        """Copy a stage's few figures to the pipeline's run, where runs are compared."""
        stage, _, branch = record.node.partition(".")
        prefix = f"{branch}/" if stage == "evaluate" else f"{record.node}/"
        figures = {f"{prefix}{name}": value for name, value in record.artifact.summary().items()}
        monitor.log_summary(self._parent_id, figures)

    def _finish_parent(self) -> None:
        assert self._session is not None
        status = "FAILED" if self.failures else "FINISHED"
        cached = [n for n, r in self.records.items() if r.run_id != self.run_id]
        if cached:
            self._session.monitor.set_tags(self._parent_id, {"depth.cached": ", ".join(cached)})
        self._session.monitor.finish(self._parent_id, status)

    def _abandon(self, status: str) -> None:
        """Stop what runs and say so in MLflow; nothing half-done was published."""
        if self._session is None:
            return
        for handle in self._running:
            self._session.cancel(handle)
        self._session.monitor.finish_all(status)


def run_stage(module: str, config: Any, services: Services, inputs: Mapping[str, Any]) -> Any:
    """Run one stage: the body of its task on the cluster."""
    import importlib

    return importlib.import_module(module).run(config, services, **inputs)
