"""Names the rank that holds up a training: whose loader stalls, or which one hangs.

Each rank tells the monitor where it is; the stage's task looks at what all of them told.
"""

import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from cluster.monitor import Beat
from cluster.services import Services

T = TypeVar("T")

BEAT_S = 5.0
"""Seconds between two words of a rank."""
SILENT_AFTER_S = 60.0
"""Seconds without a word after which a rank's process itself is taken to hang."""


class Heart:
    """Tells the monitor every ``BEAT_S`` what this rank does, and for how long already."""

    def __init__(self, services: Services, rank: int, world_size: int) -> None:
        self._services = services
        self._rank, self._world_size = rank, world_size
        self._doing, self._step, self._since = "starting", 0, time.monotonic()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True, name=f"heart of {rank}")

    def __enter__(self) -> "Heart":
        if self._rank == 0:  # of an elastic training that had more ranks, and lost their node
            for rank in self._services.beats():
                if rank >= self._world_size:
                    self._services.end_beats(rank)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()  # a last beat behind the end would stand for a rank that hangs
        self._services.end_beats(self._rank)

    def waiting(self, batches: Iterable[T]) -> Iterator[T]:
        """Pass batches on; between two of them the rank is in a step, behind the last at an end."""
        self._enter("batch")
        for batch in batches:
            self._step += 1
            self._enter("step")
            yield batch
            self._enter("batch")
        self._enter("end")

    def _enter(self, doing: str) -> None:
        self._doing, self._since = doing, time.monotonic()

    def _beat(self) -> None:
        while not self._stop.wait(BEAT_S):
            seconds = time.monotonic() - self._since
            self._services.beat(self._rank, self._doing, self._step, seconds)


def who_stalls(beats: dict[int, Beat], stalled_after_s: float) -> str:
    """Say which ranks hold up the others, and how; empty where none does.

    Ranks meet in every step, so that one that stalls keeps all others in theirs: a silent rank is
    named before a rank that waits for its batch, and that before the rank with the fewest steps.
    Who has come to the end of a validation waits for those that have more frames.

    Args:
        beats: each rank's last word.
        stalled_after_s: how long a batch or a step may take.
    """
    silent = {r: b for r, b in beats.items() if b.silent_s > SILENT_AFTER_S}
    if silent:
        return _names(silent, "has not said a word for {b.silent_s:.0f} s: its process hangs")
    slow = {r: b for r, b in beats.items() if b.seconds > stalled_after_s}
    starved = {r: b for r, b in slow.items() if b.doing == "batch"}
    if starved:
        return _names(starved, "has waited {b.seconds:.0f} s for its batch {b.step}: loader stalls")
    in_step = {r: b for r, b in slow.items() if b.doing != "end"}
    if in_step:
        last = min(b.step for b in in_step.values())
        behind = {r: b for r, b in in_step.items() if b.step == last}
        return _names(behind, "has been {b.seconds:.0f} s in its step {b.step}")
    if slow and all(b.doing == "end" for b in beats.values()):
        return _names(slow, "has been {b.seconds:.0f} s behind the last of its {b.step} steps")
    return ""


def _names(ranks: dict[int, Beat], text: str) -> str:
    return "; ".join(
        f"rank {rank} (process {beat.pid} on {beat.node}) {text.format(b=beat)}"
        for rank, beat in sorted(ranks.items())
    )


@contextmanager
def watched(services: Services, stalled_after_s: float) -> Iterator[None]:
    """While a training runs, say in its progress and its log which rank stalls."""
    stop = threading.Event()

    def watch() -> None:
        told = ""
        while not stop.wait(BEAT_S):
            stalled = who_stalls(services.beats(), stalled_after_s)
            if stalled:
                services.say(stalled)
            if stalled and not told:
                services.log_bytes("stalled.txt", (stalled + "\n").encode())
            told = stalled

    thread = threading.Thread(target=watch, daemon=True, name="watch")
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
