"""What a run left of itself in the store: its state, and its events as JSON lines.

A run's id names its configuration. Every time a driver has something to do for it, that is one
attempt, with two objects: ``runs/RUN/0001.json``, the state, rewritten as it changes, and
``runs/RUN/0001.jsonl``, the events.
"""

import contextlib
import datetime
import json
import re
import time
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cluster.errors import ClusterError, ObjectMissing
from cluster.storage import ObjectStore
from pipeline.errors import UsageMistake
from pipeline.lease import UNKNOWN, Watch, lease_key

StageStatus = Literal["waits", "runs", "done", "cached", "failed", "killed", "left out"]
RunStatus = Literal["running", "finished", "failed", "killed"]
SAVE_EVERY_S = 1.0
"""Seconds between two writes of a state."""


class StageState(BaseModel):
    """How one stage of an attempt stands.

    Attributes:
        status: what it does.
        note: why it runs, how far it is, what it failed with.
        fingerprint: digest of what decides its result; empty until its inputs are there.
        seconds: wall time of the execution; of the earlier one where it is cached.
        tries: executions in this attempt.
        mlflow_run_id: its MLflow run.
    """

    model_config = ConfigDict(extra="forbid", validate_assignment=True)

    status: StageStatus = "waits"
    note: str = ""
    fingerprint: str = ""
    seconds: float | None = None
    tries: int = 0
    mlflow_run_id: str = ""


class RunState(BaseModel):
    """One attempt at a run.

    Attributes:
        run_id: the run.
        attempt: 1 for the first.
        status: how it stands; of a driver that died it stays ``running``, see ``is_alive``.
        started_at: ISO time, UTC.
        ended_at: the same; empty while it runs.
        owner: the driver's name in the run's lease.
        host: the driver's machine.
        pid: the driver's process.
        config: the whole configuration.
        tags: commit, preset.
        chosen: the nodes that it was allowed to run.
        forced: nodes that it had to run again and has not yet -> the mark of that execution.
        keep_going: whether a failure leaves the other branches running.
        stages: node -> how it stands.
        mlflow_run_id: the run's own MLflow run.
    """

    model_config = ConfigDict(extra="forbid", validate_assignment=True)

    run_id: str
    attempt: int
    status: RunStatus = "running"
    started_at: str
    ended_at: str = ""
    owner: str
    host: str
    pid: int
    config: dict[str, Any]
    tags: dict[str, str]
    chosen: tuple[str, ...]
    forced: dict[str, str] = Field(default_factory=dict)
    keep_going: bool = False
    stages: dict[str, StageState] = Field(default_factory=dict)
    mlflow_run_id: str = ""

    @property
    def name(self) -> str:
        """``RUN@ATTEMPT``, as commands take it."""
        return f"{self.run_id}@{self.attempt}"


class RunLog:
    """The writer of one attempt's state and events; only its driver has one.

    What happens within ``SAVE_EVERY_S`` is written together. A store that cannot be written now
    costs the log a moment, never the run: what is not written goes with the next.
    """

    def __init__(self, store: ObjectStore, state: RunState) -> None:
        self.state = state
        self._store = store
        self._events: list[str] = []
        self._num_saved = 0
        self._saved = b""
        self._saved_at = float("-inf")

    def event(self, what: str, stage: str = "", **facts: Any) -> None:
        """Add an event."""
        entry = {"at": now_iso(), "event": what, **({"stage": stage} if stage else {}), **facts}
        self._events.append(json.dumps(entry))
        self.save_sometimes()

    def save_sometimes(self) -> None:
        """Write state and events, unless that was just done."""
        if time.monotonic() - self._saved_at >= SAVE_EVERY_S:
            with contextlib.suppress(ClusterError):
                self.flush()

    def flush(self) -> None:
        """Write state and events, where they changed.

        Raises:
            StorageError: the store cannot be written.
        """
        self._saved_at = time.monotonic()
        if len(self._events) > self._num_saved:
            text = "\n".join(self._events) + "\n"
            self._store.put_bytes(_key(self.state, "jsonl"), text.encode())
            self._num_saved = len(self._events)
        data = self.state.model_dump_json(indent=1).encode()
        if data != self._saved:
            self._store.put_bytes(_key(self.state, "json"), data)
            self._saved = data


def leave_state(store: ObjectStore, state: RunState) -> None:
    """Write state and events of an attempt in which nothing had to run.

    A driver that began an attempt of this number in the meantime is not overwritten.
    """
    state.status, state.ended_at = "finished", now_iso()
    if store.put_bytes_if_absent(_key(state, "json"), state.model_dump_json(indent=1).encode()):
        log = RunLog(store, state)
        log.event("run started", attempt=state.attempt, host=state.host, pid=state.pid)
        log.event("run finished", note="everything was up to date")
        log.flush()


def next_attempt(store: ObjectStore, run_id: str) -> int:
    """Return the number of a run's next attempt."""
    return max(_attempts(store, run_id), default=0) + 1


def list_runs(store: ObjectStore) -> list[RunState]:
    """Return the latest attempt of every run, the newest first; unreadable ones are left out."""
    latest: dict[str, int] = {}
    for key in store.list_keys("runs/"):
        if match := re.fullmatch(r"runs/([^/]+)/(\d+)\.json", key):
            latest[match[1]] = max(latest.get(match[1], 0), int(match[2]))
    found = [_load(store, run_id, attempt) for run_id, attempt in latest.items()]
    known = [state for state in found if state is not None]
    return sorted(known, key=lambda state: state.started_at, reverse=True)


def load_run(store: ObjectStore, name: str) -> RunState:
    """Return an attempt by ``RUN`` (its last), ``RUN@ATTEMPT``, or the beginning of a run's id.

    Raises:
        UsageMistake: there is none, or several runs begin so.
    """
    wanted, _, number = name.partition("@")
    attempts = _attempts(store, wanted) if re.fullmatch(r"[A-Za-z0-9_-]+", wanted) else []
    if not attempts:
        ids = {key.split("/")[1] for key in store.list_keys("runs/")}
        fitting = sorted(run_id for run_id in ids if run_id.startswith(wanted))
        if len(fitting) != 1:
            there = ", ".join(fitting or sorted(ids)) or "no runs yet"
            problem = f"several runs begin with {wanted!r}" if fitting else f"no run {wanted!r}"
            raise UsageMistake(f"{problem} in {store.url}; there are: {there}")
        wanted = fitting[0]
        attempts = _attempts(store, wanted)
    if number and (not number.isdigit() or int(number) not in attempts):
        have = ", ".join(map(str, sorted(attempts)))
        raise UsageMistake(f"{wanted} has no attempt {number!r}; there are: {have}")
    state = _load(store, wanted, int(number or max(attempts)))
    if state is None:
        raise UsageMistake(
            f"{wanted}@{number or max(attempts)} in {store.url} was written by another version of "
            "the project, or is damaged"
        )
    return state


def last_attempt(store: ObjectStore, run_id: str) -> RunState | None:
    """Return a run's last attempt that can be read; None where there is none."""
    numbers = sorted(_attempts(store, run_id), reverse=True)
    return next((s for n in numbers if (s := _load(store, run_id, n)) is not None), None)


def unreadable_states(store: ObjectStore) -> list[str]:
    """Return the keys of states that cannot be read: of another version, or damaged."""
    found = []
    for key in store.list_keys("runs/"):
        match = re.fullmatch(r"runs/([^/]+)/(\d+)\.json", key)
        if match and _load(store, match[1], int(match[2])) is None:
            found.append(key)
    return found


def load_attempts(store: ObjectStore, run_id: str) -> list[RunState]:
    """Return every attempt of a run, the first one first; unreadable ones are left out."""
    found = [_load(store, run_id, number) for number in sorted(_attempts(store, run_id))]
    return [state for state in found if state is not None]


def load_events(store: ObjectStore, state: RunState) -> list[dict[str, Any]]:
    """Return an attempt's events; none if they were lost."""
    try:
        lines = store.get_bytes(_key(state, "jsonl")).decode().splitlines()
    except ObjectMissing:
        return []
    return [json.loads(line) for line in lines]


def is_alive(store: ObjectStore, state: RunState, watch: Watch | None = None) -> bool | None:
    """Say whether an attempt's driver lives; None while that cannot be told."""
    if state.status != "running":
        return False
    holder, lives = (watch or Watch(store, lease_key(state.run_id))).look()
    if holder is None or holder.owner not in (state.owner, UNKNOWN):
        return False
    return lives


def now_iso() -> str:
    """Return the time, UTC."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")


def _load(store: ObjectStore, run_id: str, attempt: int) -> RunState | None:
    try:
        data = store.get_bytes(f"runs/{run_id}/{attempt:04d}.json")
        return RunState.model_validate_json(data)
    except (ObjectMissing, ValidationError):
        return None


def _attempts(store: ObjectStore, run_id: str) -> list[int]:
    pattern = re.compile(rf"runs/{re.escape(run_id)}/(\d+)\.json")
    return [
        int(m[1]) for key in store.list_keys(f"runs/{run_id}/") if (m := pattern.fullmatch(key))
    ]


def _key(state: RunState, extension: str) -> str:
    return f"runs/{state.run_id}/{state.attempt:04d}.{extension}"
