"""What a run holds of the outside world while it works: lease, Ray, MLflow, its own log.

Opened when the first stage has to run: a run in which everything is up to date opens nothing. It
leaves a state, unless its last attempt's says the same.
"""

import contextlib
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cluster.errors import ClusterError
from cluster.services import Services
from cluster.session import Session
from cluster.storage import ObjectStore
from pipeline.claims import Claims
from pipeline.dag import Node
from pipeline.errors import RunHeld
from pipeline.gate import take_run
from pipeline.lease import Holder, Lease, this_process
from pipeline.records import Failure, StageRecord, note_failure, publish_record
from pipeline.retry import patiently
from pipeline.runs import (
    RunLog,
    RunState,
    StageState,
    last_attempt,
    leave_state,
    next_attempt,
    now_iso,
)

STOP_S = 20.0
"""Seconds that MLflow has to note that a run is stopped."""
FIGURES_EVERY_S = 1.0
"""Seconds between two copies of stages' figures to the run's."""


@dataclass
class Driver:
    """One driver of one run.

    Attributes:
        store: records, objects, locks, logs.
        run_id: the run.
        open_session: connects to Ray.
        scratch: a folder on this machine for downloads.
        config: the whole configuration, logged as the run's parameters.
        tags: of the run, such as the git commit.
        wait: wait for another driver of the same run, rather than stop.
        say: shows a sentence to whoever watches.
        plan: what the attempt is to do, for its log: ``RunState``'s fields of the same names.
    """

    store: ObjectStore
    run_id: str
    open_session: Callable[[], contextlib.AbstractContextManager[Session]]
    scratch: Path
    config: Mapping[str, Any]
    tags: Mapping[str, str]
    wait: bool = False
    say: Callable[[str], None] = lambda text: None
    plan: Mapping[str, Any] = field(default_factory=dict)
    _stack: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    _session: Session | None = None
    _lease: Lease | None = None
    _claims: Claims | None = None
    _log: RunLog | None = None
    _parent_id: str = ""
    _figures: dict[str, float] = field(default_factory=dict)
    _copied_at: float = float("-inf")
    _published: list[StageRecord] = field(default_factory=list)

    @property
    def is_open(self) -> bool:
        """Whether a stage had to run."""
        return self._session is not None

    @property
    def session(self) -> Session:
        """The connection to Ray; there is one once the driver is open."""
        assert self._session is not None
        return self._session

    @property
    def log(self) -> RunLog:
        """The attempt's log; there is one once the driver is open."""
        assert self._log is not None
        return self._log

    def open(self, stages: Mapping[str, StageState]) -> None:
        """Take the run's lease, begin its log, connect to Ray, open its MLflow run.

        Raises:
            RunHeld: another driver works on this run, or the store is being swept.
        """
        self.store.check_writable()
        me = this_process(self.run_id)
        lease = take_run(self.store, me, wait=self.wait, say=self.say)
        self._lease, self._claims = lease, Claims(self.store, me)
        self._stack.callback(lease.release)
        self._stack.callback(self._claims.release_all)
        state = self._new_state(me, stages)
        self._log = RunLog(self.store, state)
        self._log.event("run started", attempt=state.attempt, host=me.host, pid=me.pid)
        self._session = self._stack.enter_context(self.open_session())
        monitor = self._session.monitor
        self._parent_id = monitor.ensure_run(self.run_id, self.run_id, None, dict(self.tags))
        monitor.log_params(self._parent_id, self.config)
        state.mlflow_run_id = self._parent_id

    def _new_state(self, me: Holder, stages: Mapping[str, StageState]) -> RunState:
        return RunState(
            run_id=self.run_id,
            attempt=next_attempt(self.store, self.run_id),
            started_at=now_iso(),
            owner=me.owner,
            host=me.host,
            pid=me.pid,
            config=dict(self.config),
            tags=dict(self.tags),
            stages=dict(stages),
            **self.plan,
        )

    def settle(self, stages: Mapping[str, StageState]) -> bool:
        """Leave a state where nothing had to run, unless the last attempt's says the same.

        Returns:
            Whether the last attempt did not end well: its MLflow run is still to be ended.
        """
        last = last_attempt(self.store, self.run_id)
        chosen = set(self.plan.get("chosen", ()))
        if last is not None and last.status != "finished" and set(last.chosen) <= chosen:
            return True
        known = {} if last is None else {n: s.fingerprint for n, s in last.stages.items()}
        if any(s.fingerprint not in ("", known.get(n)) for n, s in stages.items()):
            state = self._new_state(this_process(self.run_id), stages)
            with contextlib.suppress(
                ClusterError
            ):  # who has nothing to do need not be able to write
                leave_state(self.store, state)
        return False

    def check_lease(self) -> None:
        """Make sure that this driver still is the run's.

        Raises:
            RunHeld: it stalled for so long that another one took over.
        """
        if self._lease is not None and self._lease.lost_to:
            raise RunHeld(f"this driver stood still and lost the run to {self._lease.lost_to}")

    def claim(self, node: str, digest: str) -> Holder | None:
        """Claim a stage's execution; return who has it if another driver does."""
        assert self._claims is not None
        return patiently(self._claims.try_claim, f"{node}/{digest}")

    def release(self, node: str, digest: str) -> None:
        """Give a claim back."""
        assert self._claims is not None
        patiently(self._claims.release, f"{node}/{digest}")

    def services_for(self, node: Node, digest: str, mark: str) -> Services:
        """Return what a stage's execution is given; the same again after a restart.

        Args:
            node: the stage.
            digest: its fingerprint's.
            mark: sets an execution that was forced apart from the one that it repeats.
        """
        key = "/".join(filter(None, [self.run_id, node.name, digest[:12], mark]))
        tags = {
            **self.tags,
            "depth.stage": node.name,
            "depth.run": self.run_id,
            "depth.fingerprint": digest,
        }
        monitor = self.session.monitor
        stage_run = monitor.ensure_run(key, node.name, self._parent_id, tags)
        return Services(self.store, monitor, node.name, key, stage_run, self.scratch)

    def note_failure(self, services: Services, error: BaseException, reason: str) -> None:
        """Put an error and its traceback into a stage's MLflow run."""
        trace = "".join(traceback.format_exception(error))
        services.monitor.set_tags(services.run_id, {"depth.error": reason[:4000]})
        services.monitor.log_bytes(services.run_id, "error.txt", trace.encode())

    def publish(self, record: StageRecord, instead_of: StageRecord | None) -> StageRecord:
        """Publish a result: MLflow first, the record last, for it is what makes a stage done.

        Args:
            record: the result.
            instead_of: the record that it replaces, as it was when the stage began.

        Returns:
            The record that stands: another driver's, if that was published in the meantime.
        """
        self.check_lease()
        self.session.monitor.finish(record.mlflow_run_id, "FINISHED")
        self._figures |= _figures_of(record)  # the run's soon
        stands = patiently(publish_record, self.store, record, instead_of=instead_of)
        self._published.append(record)
        return stands

    def catch_up(self) -> None:
        """Do what no stage waits for, after those that could begin have begun.

        Claims of published stages are given back: who waits for one sees the record first. Stages'
        figures are copied to the run's, where runs are compared: those of stages that end within a
        moment together. ``finish`` copies what an attempt that died did not.
        """
        while self._published:
            done = self._published.pop()
            self.release(done.node, done.fingerprint.digest())
        if self._figures and time.monotonic() - self._copied_at >= FIGURES_EVERY_S:
            self._copied_at = time.monotonic()
            self.session.monitor.log_summary(self._parent_id, self._figures)
            self._figures = {}

    def fail_stage(self, services: Services, digest: str, reason: str) -> None:
        """End a stage that is not tried again; leave why, for later plans."""
        failure = Failure(
            node=services.stage,
            fingerprint=digest,
            at=now_iso(),
            run_id=self.run_id,
            reason=reason[:2000],
        )
        note_failure(self.store, failure)
        self.release(services.stage, digest)
        services.monitor.finish(services.run_id, "FAILED")

    def finish(self, failed: bool, records: Mapping[str, StageRecord]) -> None:
        """End the run that came to its end, and in MLflow what an earlier driver left open."""
        monitor, stages = self.session.monitor, self.log.state.stages
        cached = {name: r for name, r in records.items() if stages[name].status == "cached"}
        if cached:
            monitor.set_tags(self._parent_id, {"depth.cached": ", ".join(cached)})
        own = [r for r in cached.values() if r.run_id == self.run_id]
        if own:  # such as one that had made a damaged object anew, and died
            monitor.finish_left([record.mlflow_run_id for record in own])
        for record in own:  # an attempt that died may have left them out
            self._figures |= _figures_of(record)
        if self._figures:
            monitor.log_summary(self._parent_id, self._figures)
        monitor.finish(self._parent_id, "FAILED" if failed else "FINISHED")
        self._end("failed" if failed else "finished")

    def abandon(self, handles: list[Any], error: BaseException) -> None:
        """Stop what runs and say so in MLflow and the log; nothing half-done was published.

        A driver that lost its run leaves MLflow and the log to the one that has it now.
        """
        killed = not isinstance(error, Exception)
        if self._lease is not None and self._lease.lost_to:
            for handle in handles:
                self.session.cancel(handle)
            return
        if self._session is not None:
            for handle in handles:
                self._session.cancel(handle)
            try:
                self._session.monitor.finish_all("KILLED" if killed else "FAILED", STOP_S)
            except ClusterError as unreachable:
                self.say(f"MLflow does not know that the run ends: {unreachable}")
        if self._log is not None:
            for stage in self._log.state.stages.values():
                if stage.status == "runs":
                    stage.status = "killed"
            self._end("killed" if killed else "failed")

    def close(self) -> None:
        """Let go of Ray, claims and lease; a store that is away does not hide how the run ended."""
        try:
            self._stack.close()
        except ClusterError as error:
            self.say(f"the run's lease was not given back and ends by itself soon: {error}")

    def _end(self, status: Any) -> None:
        self.log.state.status = status
        self.log.state.ended_at = now_iso()
        self.log.event(f"run {status}")
        try:
            self.log.flush()
        except ClusterError as error:  # the results are what counts, and they are published
            self.say(f"the run's log could not be written: {error}")


def _figures_of(record: StageRecord) -> dict[str, float]:
    """Return a stage's figures by the names that they have in the pipeline's run."""
    stage, _, branch = record.node.partition(".")
    prefix = f"{branch}/" if stage == "evaluate" else f"{record.node}/"
    return {f"{prefix}{name}": value for name, value in record.artifact.summary().items()}
