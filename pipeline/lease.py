"""A lease in the store with a heartbeat, so that two drivers never do the same.

A lease is a small object that its holder rewrites every ``BEAT_S``. Nobody compares clocks: a
holder is dead when its lease has not changed for ``DEAD_AFTER_S`` of the watcher's own time, or at
once where its process was on this machine and is gone. Every change is a conditional put, so of
several that take over one wins.
"""

import functools
import hashlib
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path

from pydantic import BaseModel, ConfigDict, PrivateAttr, ValidationError

from cluster.errors import ObjectMissing
from cluster.storage import ObjectStore

BEAT_S = 4.0
"""Seconds between two heartbeats."""
DEAD_AFTER_S = 20.0
"""Seconds without a heartbeat after which a holder counts as dead."""
UNKNOWN = "?"
"""Stands for what a lease says that cannot be read."""


class Holder(BaseModel):
    """What stands in a lease.

    Attributes:
        owner: a name that no other driver has.
        run_id: the run that it drives.
        host: its machine's name, for people.
        machine: its machine, this boot and process namespace, for programs.
        pid: its process.
        beat: heartbeats so far.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    owner: str
    run_id: str
    host: str
    machine: str
    pid: int
    beat: int = 0
    _bytes: bytes = PrivateAttr(b"")  # of a lease that cannot be read

    def data(self) -> bytes:
        """Return the bytes of the lease."""
        return self._bytes or self.model_dump_json().encode()

    def sha256(self) -> str:
        """Return the digest of the lease's bytes."""
        return hashlib.sha256(self.data()).hexdigest()

    def __str__(self) -> str:
        if self.owner == UNKNOWN:
            return "a driver whose lease cannot be read (of another version of the project?)"
        return f"run {self.run_id}, process {self.pid} on {self.host}"


def this_process(run_id: str) -> Holder:
    """Return a holder for this process, with a new name."""
    return Holder(
        owner=uuid.uuid4().hex,
        run_id=run_id,
        host=socket.gethostname(),
        machine=_machine(),
        pid=os.getpid(),
    )


def holder_of(store: ObjectStore, key: str) -> Holder | None:
    """Return who holds a lease, dead or alive; None if nobody does."""
    try:
        data = store.get_bytes(key)
    except ObjectMissing:
        return None
    try:
        return Holder.model_validate_json(data)
    except ValidationError:  # another version of the project wrote it, or it is damaged
        unknown = Holder(owner=UNKNOWN, run_id=UNKNOWN, host=UNKNOWN, machine=UNKNOWN, pid=0)
        unknown._bytes = data
        return unknown


class Watch:
    """Tells whether the holder of a lease lives, by looking at it again and again."""

    def __init__(self, store: ObjectStore, key: str) -> None:
        self._store, self._key = store, key
        self._last: Holder | None = None
        self._since = 0.0
        self._looked = float("-inf")

    def look(self) -> tuple[Holder | None, bool | None]:
        """Return the holder, and whether it lives: None while that cannot be said yet."""
        holder, last = holder_of(self._store, self._key), self._last
        now, looked = time.monotonic(), self._looked
        self._looked = now
        if holder is None:
            return None, False
        if holder.machine == _machine() and not _runs(holder.pid):
            return holder, False
        # A store that nobody could reach for a while is not held against the holder.
        if last is None or last.owner != holder.owner or now - looked > max(2 * BEAT_S, 1.0):
            self._last, self._since = holder, now
            return holder, None
        if (
            holder.data() != last.data()
        ):  # another version's lease changes, too, while it is renewed
            self._last, self._since = holder, now
            return holder, True
        return holder, False if now - self._since >= DEAD_AFTER_S else None


class Lease:
    """A lease that this process holds, with a thread that renews it.

    Args:
        store: where it lies.
        key: its key.
        me: who holds it.
    """

    def __init__(self, store: ObjectStore, key: str, me: Holder) -> None:
        self.me = me
        self.lost_to: str | None = None
        self._store, self._key = store, key
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="lease", daemon=True)

    def try_acquire(self, instead_of: Holder | None = None) -> bool:
        """Take the lease if nobody holds it, or the dead holder's place; start to renew it."""
        data = self.me.data()
        if instead_of is None:
            taken = self._store.put_bytes_if_absent(self._key, data)
        else:
            # What was seen dead, and nothing that came after it.
            taken = self._store.replace_bytes(self._key, data, instead_of.sha256())
        if taken:
            self._thread.start()
        return taken

    def release(self) -> None:
        """Stop renewing and give the lease back."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        holder = holder_of(self._store, self._key)
        if holder is not None and holder.owner == self.me.owner:
            self._store.delete(self._key)

    def _beat(self) -> None:
        while not self._stop.wait(BEAT_S):
            renewed = self.me.model_copy(update={"beat": self.me.beat + 1})
            try:
                if self._store.replace_bytes(self._key, renewed.data(), self.me.sha256()):
                    self.me = renewed
                    continue
                holder = holder_of(self._store, self._key)
            except Exception:  # a store that is away now may be back at the next beat
                continue
            if holder is not None and holder.owner == self.me.owner:
                self.me = holder  # an earlier beat arrived although its answer did not
                continue
            self.lost_to = str(holder) if holder else "nobody: the lease was deleted"
            return


def acquire(
    store: ObjectStore, key: str, me: Holder, *, wait: bool, say: Callable[[str], None]
) -> Lease | Holder:
    """Take a lease, waiting until it is known whether its holder lives.

    Args:
        store: where it lies.
        key: its key.
        me: who wants it.
        wait: wait for a living holder to end, too.
        say: is told what is waited for, once.

    Returns:
        The lease, or the living holder where ``wait`` is false.
    """
    watch, told = Watch(store, key), False
    while True:
        holder, lives = watch.look()
        lease = Lease(store, key, me)
        if holder is None or lives is False:
            if lease.try_acquire(instead_of=holder):
                return lease
            continue
        if lives and not wait:
            return holder
        if not told:
            say(f"waiting: {holder} has it, or died less than {DEAD_AFTER_S:g} s ago")
            told = True
        time.sleep(min(0.5, BEAT_S / 4))


def lease_key(run_id: str) -> str:
    """Return the key of a run's lease."""
    return f"runs/{run_id}/lease"


def living_drivers(store: ObjectStore, patience_s: float = 0.0) -> list[Holder]:
    """Return the holder of every run's lease that is not known to be dead.

    Args:
        store: where the leases are.
        patience_s: how long to watch those that may have died on other machines.
    """
    keys = [key for key in store.list_keys("runs/") if key.endswith("/lease")]
    watches = [Watch(store, key) for key in keys]
    until = time.monotonic() + patience_s
    while True:
        looks = [watch.look() for watch in watches]
        is_clear = all(lives is not None for _, lives in looks)
        if is_clear or time.monotonic() >= until:
            return [holder for holder, lives in looks if holder and lives is not False]
        time.sleep(0.5)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


@functools.cache
def _machine() -> str:
    """Name what makes a process's number mean the same process: host, boot, process namespace."""
    parts = [socket.gethostname()]
    for read in (
        lambda: Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
        lambda: os.readlink("/proc/self/ns/pid"),
    ):
        try:
            parts.append(read())
        except OSError:  # no Linux: a number of a process says nothing
            parts.append(uuid.uuid4().hex)
    return "/".join(parts)
