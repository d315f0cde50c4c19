"""Runs the graph: skips what is verified, runs branches side by side, records what is done.

After a failure nothing new begins; with ``keep_going`` the branches that do not need the failed
stage run to their end. What was finished stays, and the same command goes on from there.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cluster.services import Services
from pipeline.console import RunDisplay, duration_text, progress_text
from pipeline.dag import Node
from pipeline.driver import Driver
from pipeline.errors import StageFailed, StageTimeout, exit_code_of
from pipeline.plan import Decision, decide, not_chosen
from pipeline.records import StageRecord, find_record, publish_record
from pipeline.retry import ExecutionConfig, patiently, wait_before_retry_s
from pipeline.runs import StageState, now_iso
from pipeline.selection import upstream_of
from pipeline.signals import undisturbed

POLL_S = 0.3
MAX_LOOK_S = 5.0
"""Seconds between two looks at a stage that another driver computes, after growing ones."""
GRACE_S = 15.0
"""Seconds that a stage beyond its time limit has to stop before its process is killed."""


@dataclass
class Running:
    """A stage that runs: its node, why, what it was given, since when, until when at most."""

    node: Node
    decision: Decision
    services: Services
    started: float
    deadline: float | None
    is_cancelled: bool = False


@dataclass
class Execution:
    """One run of a graph.

    Attributes:
        graph: the nodes, in an order in which they can run.
        driver: the outside world.
        display: what a person sees.
        chosen: the nodes that may run; others must be up to date where these need them.
        forced: nodes that run although they are up to date -> the mark of that execution.
        settings: retries and time limits.
        keep_going: whether a failure leaves the other branches running.
        records: node -> its record, as far as it is known.
        failures: node -> its error.
    """

    graph: Mapping[str, Node]
    driver: Driver
    display: RunDisplay
    chosen: frozenset[str]
    forced: dict[str, str] = field(default_factory=dict)
    settings: ExecutionConfig = field(default_factory=ExecutionConfig)
    keep_going: bool = False
    records: dict[str, StageRecord] = field(default_factory=dict)
    failures: dict[str, StageFailed] = field(default_factory=dict)
    _states: dict[str, StageState] = field(default_factory=dict)
    _running: dict[Any, Running] = field(default_factory=dict)
    _not_before: dict[str, float] = field(default_factory=dict)
    _look_s: dict[str, float] = field(default_factory=dict)
    _shown_at: float = float("-inf")

    def run(self) -> dict[str, StageRecord]:
        """Run what must run.

        Returns:
            The record of every chosen node and of what these need.

        Raises:
            StageFailed: a stage failed.
            UsageMistake: a chosen stage needs one that is not, and that is not up to date.
        """
        needed = upstream_of(self.graph, self.chosen)
        self._states = {name: StageState() for name in self.graph}
        waiting = {name: node for name, node in self.graph.items() if name in needed}
        for name in self.graph.keys() - needed:
            self._set(name, "left out", "not chosen")
        try:
            with self.display:
                try:
                    while waiting or self._running:
                        self._advance(waiting)
                        self._collect(waiting)
                    if not self.driver.is_open and self.driver.settle(self._states):
                        self._open()
                    if self.driver.is_open:
                        self.driver.finish(bool(self.failures), self.records)
                except BaseException as error:
                    with undisturbed():
                        self.driver.abandon(list(self._running), error)
                    raise
        finally:
            with undisturbed():
                self.driver.close()
        for failure in self.failures.values():
            raise failure
        return self.records

    def _advance(self, waiting: dict[str, Node]) -> None:
        """Settle what needs no work, then start what is ready."""
        ready: list[tuple[Node, Decision]] = []
        for name, node in list(waiting.items()):
            if time.monotonic() < self._not_before.get(name, 0.0):
                continue
            if self._is_out(name, node):
                del waiting[name]
            elif all(needed in self.records for needed in node.needs()):
                decision = self._decide(node)
                if not decision.runs:
                    del waiting[name]
                    self._keep(decision)
                elif name in self.chosen:
                    ready.append((node, decision))
                else:
                    raise not_chosen(self.graph, self.chosen, name, decision.reason)
        if ready and not self.driver.is_open:
            self._refuse_gaps(waiting)
        for node, decision in ready:
            if self._start(node, decision):
                del waiting[node.name]

    def _refuse_gaps(self, waiting: Mapping[str, Node]) -> None:
        """Refuse, before anything runs, a stage between chosen ones that would have to run, too."""
        for name in waiting:
            if name not in self.chosen:
                stale = ", ".join(n for n in self.graph[name].needs() if n in waiting)
                raise not_chosen(self.graph, self.chosen, name, f"after {stale}")

    def _is_out(self, name: str, node: Node) -> bool:
        """Give up a stage whose input failed, or any after a failure."""
        if any(needed in self.failures for needed in node.needs()):
            self.failures[name] = StageFailed(name, "not run: an input failed")
        elif self.failures and not self.keep_going and not self._states[name].tries:
            first = next(iter(self.failures))
            self._set(name, "left out", f"not begun after {first} failed (see --keep-going)")
            return True
        else:
            return False
        self._set(name, "failed", "not run: an input failed")
        return True

    def _decide(self, node: Node) -> Decision:
        inputs = {name: self.records[name] for name in node.needs()}
        mark = self.forced.get(node.name, "")
        decision = patiently(decide, node, self.driver.store, inputs, forced=bool(mark))
        made = decision.record
        if mark and made is not None and (made.run_id, made.mark) == (self.driver.run_id, mark):
            # An attempt that died had published the execution that it was forced to.
            decision = patiently(decide, node, self.driver.store, inputs)
            if not decision.runs:
                del self.forced[node.name]
        return decision

    def _keep(self, decision: Decision) -> None:
        """Take an earlier run's result."""
        assert decision.record is not None
        assert decision.fingerprint is not None
        self.records[decision.node] = decision.record
        self._states[decision.node].fingerprint = decision.fingerprint.digest()
        self._states[decision.node].seconds = decision.record.seconds
        self._set(decision.node, "cached", decision.reason)

    def _open(self) -> None:
        self.driver.open(self._states)
        self._states = self.driver.log.state.stages
        self.driver.log.state.forced = dict(self.forced)

    def _start(self, node: Node, decision: Decision) -> bool:
        """Start a stage; false while another driver computes it."""
        assert decision.fingerprint is not None
        name, digest = node.name, decision.fingerprint.digest()
        if not self.driver.is_open:
            self._open()
        holder = self.driver.claim(name, digest)
        if holder is not None:
            self._set(name, "waits", f"{holder} computes it")
            wait_s = self._look_s.get(name, POLL_S)
            self._not_before[name] = time.monotonic() + wait_s
            self._look_s[name] = min(2 * wait_s, MAX_LOOK_S)
            return False
        if name not in self.forced and patiently(find_record, self.driver.store, name, digest):
            again = self._decide(node)
            if not again.runs:  # another driver published it in the meantime
                self.driver.release(name, digest)
                self._keep(again)
                return True
        services = self.driver.services_for(node, digest, self.forced.get(name, ""))
        state = self._states[name]
        state.fingerprint, state.mlflow_run_id, state.tries = (
            digest, services.run_id, state.tries + 1,
        )  # fmt: skip
        inputs = {key: self._artifacts(source) for key, source in node.inputs.items()}
        handle = self.driver.session.submit(
            run_stage, node.stage.__name__, node.config, services, inputs
        )
        limit_s, now = self.settings.time_limit_s(name), time.monotonic()
        deadline = None if limit_s is None else now + limit_s
        self._running[handle] = Running(node, decision, services, now, deadline)
        self._set(name, "runs", decision.reason, fingerprint=digest)
        return True

    def _artifacts(self, source: str | Mapping[str, str]) -> Any:
        if isinstance(source, str):
            return self.records[source].artifact
        return {branch: self.records[name].artifact for branch, name in source.items()}

    def _collect(self, waiting: dict[str, Node]) -> None:
        """Wait a moment; record what ended, stop what takes too long."""
        if not self._running:
            if waiting and self.driver.is_open:  # for another driver's stage, or for a retry
                self.driver.log.save_sometimes()
                self.driver.check_lease()
                time.sleep(POLL_S)
            return
        for handle in self.driver.session.wait(list(self._running), POLL_S):
            running = self._running.pop(handle)
            try:
                artifact = self.driver.session.result(handle)
            except Exception as error:
                self._failed(running, error, waiting)
            else:
                self._finished(running, artifact)
        for handle, running in list(self._running.items()):
            self._check_time(handle, running, waiting)
        if time.monotonic() - self._shown_at >= POLL_S:
            self._show_progress()
        self.driver.log.save_sometimes()
        self.driver.check_lease()

    def _show_progress(self) -> None:
        self._shown_at = time.monotonic()
        snapshot = self.driver.session.monitor.snapshot()
        for name, state in self._states.items():
            if state.status == "runs" and name in snapshot:
                state.note = progress_text(snapshot[name])
        self.display.progress(snapshot)

    def _finished(self, running: Running, artifact: Any) -> None:
        """Publish a result: MLflow first, the record last, for it is what makes a stage done."""
        name, mark = running.node.name, running.decision.fingerprint
        assert mark is not None
        seconds = time.monotonic() - running.started
        record = StageRecord(
            node=name,
            fingerprint=mark,
            artifact=artifact,
            seconds=seconds,
            finished_at=now_iso(),
            run_id=self.driver.run_id,
            mlflow_run_id=running.services.run_id,
            mark=self.forced.get(name, ""),
        )
        self.driver.check_lease()
        self.driver.finish_stage(record)
        replace = name in self.forced or running.decision.record is not None
        self.records[name] = patiently(publish_record, self.driver.store, record, replace=replace)
        self.forced.pop(name, None)
        self.driver.log.state.forced = dict(self.forced)
        self.driver.release(name, mark.digest())
        self._states[name].seconds = seconds
        self._set(name, "done", f"in {duration_text(seconds)}", seconds=seconds)

    def _failed(self, running: Running, error: Exception, waiting: dict[str, Node]) -> None:
        """Note a failure, and whether the stage is tried again."""
        name, services = running.node.name, running.services
        tries = self._states[name].tries
        failure = StageFailed(name, f"{type(error).__name__}: {error}", exit_code_of(error))
        if running.is_cancelled:
            limit_s = self.settings.time_limit_s(name) or 0
            failure = StageTimeout(name, f"it took longer than its limit of {limit_s:g} s")
        wait_s = wait_before_retry_s(error, tries, self.settings)
        self.driver.note_failure(services, error, failure.reason)
        if wait_s is not None and not running.is_cancelled:
            waiting[name] = running.node
            self._not_before[name] = time.monotonic() + wait_s
            self._set(name, "waits", f"try {tries + 1} in {wait_s:.0f} s after {failure.reason}")
            return
        assert running.decision.fingerprint is not None
        self.driver.fail_stage(services, running.decision.fingerprint.digest(), failure.reason)
        self.failures[name] = failure
        self._set(name, "failed", failure.reason)

    def _check_time(self, handle: Any, running: Running, waiting: dict[str, Node]) -> None:
        """Stop a stage beyond its limit; kill it where it does not stop."""
        if running.deadline is None or time.monotonic() < running.deadline:
            return
        if not running.is_cancelled:
            self.driver.session.cancel(handle)
            running.is_cancelled, running.deadline = True, time.monotonic() + GRACE_S
            return
        self.driver.session.cancel(handle, force=True)
        del self._running[handle]
        self._failed(running, TimeoutError("killed"), waiting)

    def _set(self, name: str, status: Any, note: str, **facts: Any) -> None:
        """Move a stage to a status, for the log and for who watches."""
        state = self._states[name]
        if (state.status, state.note) == (status, note):
            return
        state.status, state.note = status, note
        if self.driver.is_open:
            self.driver.log.event(status, name, note=note, **facts)
        self.display.set(name, status, note)


def run_stage(module: str, config: Any, services: Services, inputs: Mapping[str, Any]) -> Any:
    """Run one stage: the body of its task on the cluster."""
    import importlib

    return importlib.import_module(module).run(config, services, **inputs)
