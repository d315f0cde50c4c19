"""Signals that stop a run: the first one begins an orderly stop, the next ones do not spoil it."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Ctrl-C, ``kill`` and batch systems, a closed terminal."""


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Let the end of a run be done to its end: MLflow told, claims and lease given back.

    A signal meanwhile is answered with a sentence. The next one ends the process at once, with the
    signal's usual exit code; what it leaves is what ``kill -9`` leaves, and ``resume`` mends it.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    received: list[int] = []

    def answer(number: int, frame: Any) -> None:
        if received:
            os._exit(128 + number)
        received.append(number)
        # Not by way of a stream, whose lock may be this thread's just now.
        os.write(2, b"stopping already, wait some seconds; once more ends it at once\n")

    before = {number: signal.getsignal(number) for number in STOPS}
    replaced = {
        n: handler for n, handler in before.items() if handler not in (signal.SIG_IGN, None)
    }
    for number in replaced:
        signal.signal(number, answer)
    try:
        yield
    finally:
        for number, handler in replaced.items():
            signal.signal(number, handler)
