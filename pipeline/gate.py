"""The gate of a store: runs begin, or what is left over is swept; never both at once."""

import contextlib
import time
from collections.abc import Callable, Iterator

from cluster.storage import ObjectStore
from pipeline.errors import RunHeld
from pipeline.lease import (
    BEAT_S,
    DEAD_AFTER_S,
    Holder,
    Lease,
    acquire,
    lease_key,
    living_drivers,
    this_process,
)

KEY = "sweep/lease"
"""Lease of who sweeps, and for a moment of each driver that begins."""
SWEEPER = "gc"
"""Stands in the place of a run's id in the lease of who sweeps."""


def take_run(store: ObjectStore, me: Holder, *, wait: bool, say: Callable[[str], None]) -> Lease:
    """Take a run's lease at a moment when nobody sweeps the store.

    Args:
        store: where leases lie.
        me: who wants to drive the run.
        wait: wait for another driver of the run, and for who sweeps, rather than stop.
        say: is told what is waited for, once.

    Raises:
        RunHeld: another driver works on this run, or the store is being swept.
    """
    told, pause_s = False, 1.0
    while True:
        sweeper = acquire(store, KEY, me, wait=False, say=say)
        if isinstance(sweeper, Holder):  # else a driver that begins, which takes a moment
            if sweeper.run_id == SWEEPER and not wait:
                raise RunHeld(f"{store.url} is being swept by {sweeper}; try again soon")
            time.sleep(0.5)
            continue
        try:
            lease = acquire(store, lease_key(me.run_id), me, wait=False, say=say)
        finally:
            sweeper.release()
        if isinstance(lease, Lease):
            return lease
        if not wait:
            raise RunHeld(
                f"another driver works on it: {lease}. Watch it with `python -m pipeline "
                f"status {me.run_id}`, or give --wait to go on when it has ended"
            )
        if not told:
            say(f"waiting: {lease} works on it")
            told = True
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, 5.0)


@contextlib.contextmanager
def sweeping(store: ObjectStore) -> Iterator[Lease]:
    """Keep runs from beginning while the block sweeps the store.

    Raises:
        RunHeld: a driver works with the store, or another one sweeps it.
    """
    lease = acquire(store, KEY, this_process(SWEEPER), wait=False, say=lambda text: None)
    if isinstance(lease, Holder):
        raise RunHeld(f"{store.url} is in use by {lease}; try again in a moment")
    try:
        for holder in living_drivers(store, DEAD_AFTER_S + BEAT_S):
            raise RunHeld(f"{holder} works with {store.url}: delete when it has ended")
        yield lease
    finally:
        lease.release()
