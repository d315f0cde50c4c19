"""Runs the graph: skips what is verified, runs branches side by side, records what is done.

After a failure nothing new begins; with ``keep_going`` the branches that do not need the failed
stage run to their end. What was finished stays, and the same command goes on from there.

The code of a run is what it was when the run began: the session gives the stages a copy of it.
"""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from pipeline import source_code
from pipeline.console import RunDisplay, duration_text, progress_text
from pipeline.dag import Node
from pipeline.driver import Driver
from pipeline.errors import CodeEdited, StageFailed, as_failure
from pipeline.fingerprint import code_modules
from pipeline.past import Past
from pipeline.plan import Decision, decide, not_chosen, refuse_gaps
from pipeline.pretrained import fetch_weights
from pipeline.records import StageRecord, find_record
from pipeline.retry import ExecutionConfig, patiently, wait_before_retry_s
from pipeline.running import Running, run_stage
from pipeline.runs import StageState
from pipeline.selection import upstream_of
from pipeline.signals import undisturbed

POLL_S = 0.3
MAX_LOOK_S = 5.0
"""Seconds between two looks at a stage that another driver computes, after growing ones."""
GRACE_S = 15.0
"""Seconds that a stage which is stopped has to end before its process is killed."""


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
    _waiting: dict[str, Node] = field(default_factory=dict)
    _states: dict[str, StageState] = field(default_factory=dict)
    _running: dict[Any, Running] = field(default_factory=dict)
    _not_before: dict[str, float] = field(default_factory=dict)
    _look_s: dict[str, float] = field(default_factory=dict)
    _shown_at: float = -math.inf

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
        self._waiting = {name: node for name, node in self.graph.items() if name in needed}
        for node in self._waiting.values():
            for module in code_modules(node):
                source_code.reached(module)
        for name in self.graph:
            if name not in needed:
                self._set(name, "left out", "not chosen")
        try:
            with self.display:
                try:
                    while self._waiting or self._running:
                        self._advance()
                        self._collect()
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

    def _advance(self) -> None:
        """Settle what needs no work, then start what is ready."""
        ready: list[tuple[Node, Decision]] = []
        for name, node in list(self._waiting.items()):
            if time.monotonic() < self._not_before.get(name, 0.0):
                continue
            if self._is_out(name, node):
                del self._waiting[name]
            elif all(needed in self.records for needed in node.needs()):
                decision = self._decide(node)
                if not decision.runs:
                    del self._waiting[name]
                    self._keep(decision)
                elif name in self.chosen:
                    ready.append((node, decision))
                else:
                    raise not_chosen(self.graph, self.chosen, name, decision.reason)
        if ready and not self.driver.is_open:
            refuse_gaps(self.graph, self.chosen, self._waiting)
        for node, decision in ready:
            if self._start(node, decision):
                del self._waiting[node.name]

    def _is_out(self, name: str, node: Node) -> bool:
        """Give up a stage whose input failed, or any after a failure."""
        if any(needed in self.failures for needed in node.needs()):
            self.failures[name] = StageFailed(name, "not run: an input failed")
            self._set(name, "failed", "not run: an input failed")
            return True
        if self.failures and not self.keep_going and not self._states[name].tries:
            first = next(iter(self.failures))
            self._set(name, "left out", f"not begun after {first} failed (see --keep-going)")
            return True
        return False

    def _decide(self, node: Node) -> Decision:
        inputs = {name: self.records[name] for name in node.needs()}
        mark = self.forced.get(node.name, "")
        decision = patiently(decide, node, self._past, inputs, mark)
        if not decision.runs:
            self.forced.pop(node.name, None)
        return decision

    def _keep(self, decision: Decision) -> None:
        """Take an earlier run's result."""
        assert decision.record is not None
        assert decision.fingerprint is not None
        self.records[decision.node] = decision.record
        self._states[decision.node].fingerprint = decision.fingerprint.digest()
        self._states[decision.node].seconds = decision.record.seconds
        self._set(decision.node, "cached", decision.reason)

    @cached_property
    def _past(self) -> Past:
        return Past(self.driver.store, self.driver.run_id)

    def _open(self) -> None:
        may_run = [node for name, node in self._waiting.items() if name in self.chosen]
        fetch_weights(may_run, self.driver.say)
        self.driver.open(self._states)
        self._states = self.driver.log.state.stages
        self.driver.log.state.forced = dict(self.forced)
        for node in self._waiting.values():  # the copy was made just now: is it what was planned?
            if paths := source_code.edited(code_modules(node)):
                raise CodeEdited(node.name, tuple(paths))

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
        if patiently(find_record, self.driver.store, name, digest) != decision.record:
            decision = self._decide(node)  # another driver published it in the meantime
            if not decision.runs:
                self.driver.release(name, digest)
                self._keep(decision)
                return True
        services = self.driver.services_for(node, digest, self.forced.get(name, ""))
        state = self._states[name]
        state.fingerprint, state.mlflow_run_id, state.tries = (
            digest, services.run_id, state.tries + 1,
        )  # fmt: skip
        running = Running(node, decision, services)
        self._set(name, "runs", decision.reason, fingerprint=digest)
        inputs = node.arguments({needed: self.records[needed].artifact for needed in node.needs()})
        handle = self.driver.session.submit(
            run_stage, node.stage.__name__, node.config, services, inputs
        )
        self._running[handle] = running
        return True

    def _collect(self) -> None:
        """Wait a moment; record what ended, look after what runs."""
        if self.driver.is_open:
            self.driver.catch_up()
        if not self._running:
            if self._waiting and self.driver.is_open:  # for another driver's stage, or for a retry
                self.driver.log.save_sometimes()
                self.driver.check_lease()
                time.sleep(POLL_S)
            return
        for handle in self.driver.session.wait(list(self._running), POLL_S):
            running = self._running.pop(handle)
            try:
                artifact = self.driver.session.result(handle)
            except Exception as error:
                self._failed(running, error)
            else:
                self._finished(running, artifact)
        self._watch()
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
        """Publish a result."""
        name = running.node.name
        record = running.record(artifact, self.driver.run_id, self.forced.get(name, ""))
        stands = self.driver.publish(record, running.decision.record)
        self.records[name], note = stands, f"in {duration_text(record.seconds)}"
        if (stands.run_id, stands.mark) != (record.run_id, record.mark):
            note += f"; what {stands.run_id} published meanwhile stands"
        self.forced.pop(name, None)
        self.driver.log.state.forced = dict(self.forced)
        self._states[name].seconds = record.seconds
        self._set(name, "done", note, seconds=record.seconds)

    def _failed(self, running: Running, error: Exception) -> None:
        """Note a failure, and whether the stage is tried again."""
        name, services = running.node.name, running.services
        tries = self._states[name].tries
        failure = running.stopped or as_failure(name, error)
        wait_s = wait_before_retry_s(error, tries, self.settings)
        self.driver.note_failure(services, error, failure.reason)
        if wait_s is not None and running.stopped is None:
            self._waiting[name] = running.node
            self._not_before[name] = time.monotonic() + wait_s
            self._set(name, "waits", f"try {tries + 1} in {wait_s:.0f} s after {failure.reason}")
            return
        self.driver.fail_stage(services, running.fingerprint.digest(), failure.reason)
        self.failures[name] = failure
        self._set(name, "failed", failure.reason)

    def _watch(self) -> None:
        """Stop a stage beyond its limit; kill it where it does not end."""
        now = time.monotonic()
        for handle, running in list(self._running.items()):
            if running.stopped is None:
                running.stopped = running.timeout(self.settings.time_limit_s(running.node.name))
                if running.stopped is not None:
                    self.driver.session.cancel(handle)
                    running.kill_at = now + GRACE_S
            elif now >= running.kill_at:
                self.driver.session.cancel(handle, force=True)
                del self._running[handle]
                self._failed(running, TimeoutError("killed"))

    def _set(self, name: str, status: Any, note: str, **facts: Any) -> None:
        """Move a stage to a status, for the log and for who watches."""
        state = self._states[name]
        if (state.status, state.note) == (status, note):
            return
        state.status, state.note = status, note
        if self.driver.is_open:
            self.driver.log.event(status, name, note=note, **facts)
        self.display.set(name, status, note)
