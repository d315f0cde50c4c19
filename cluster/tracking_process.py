"""MLflow in a process of its own, which is ready by the time that the driver is connected to Ray.

Importing MLflow and checking its database takes longer than anything else before a run's first
stage. The driver starts this process first and connects to Ray meanwhile; the monitor's actor on
the same machine sends it its calls over a socket, one after the other. It ends with its driver,
however that ends.
"""

import contextlib
import gc
import hmac
import json
import os
import pickle
import secrets
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.errors import TrackingError
from cluster.tracking import Tracking, TrackingConfig

PROJECT_ROOT = Path(__file__).resolve().parent.parent
END_TIMEOUT_S = 2.0
"""Seconds that the process has, after its driver, to end the call that it is at."""


@dataclass(frozen=True)
class Address:
    """Where the process listens: a name that this machine knows, and what a caller must say first.

    Attributes:
        name: of a socket in Linux's abstract namespace, which leaves no file behind.
        secret: the name alone is visible to every user of the machine.
    """

    name: str
    secret: str


@contextlib.contextmanager
def tracking_process(config: TrackingConfig, artifact_root: Path | None) -> Iterator[Address]:
    """Start the process without waiting for it; end it afterwards."""
    address = Address(f"\0depth-{secrets.token_hex(8)}", secrets.token_hex(16))
    paths = [str(PROJECT_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "PYTHONWARNINGS": "ignore"}
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address.name)
        listener.listen()
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "cluster.tracking_process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,  # what fails is told to the caller
            pass_fds=[listener.fileno()],
            env={**os.environ, **quiet, "PYTHONPATH": os.pathsep.join(paths)},
            start_new_session=True,  # Ctrl-C is the driver's to answer
        )
        given = {
            "listener": listener.fileno(),
            "secret": address.secret,
            "tracking": config.model_dump(),
            "artifact_root": None if artifact_root is None else str(artifact_root),
        }
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it is gone: callers do without it
            process.stdin.write(json.dumps(given).encode() + b"\n")
            process.stdin.flush()
    try:
        yield address
    finally:
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        try:
            process.wait(END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class Connection:
    """A caller's way to the process.

    Args:
        address: where it listens.

    Raises:
        OSError: nothing listens there, or it is another machine's.
    """

    def __init__(self, address: Address) -> None:
        with socket.socket(socket.AF_UNIX) as one:
            one.connect(address.name)
            self._stream = one.makefile("rwb")
        self._stream.write(address.secret.encode())

    def call(self, method: str, *args: Any) -> Any:
        """Call a method of the tracker and wait for what it returns.

        Raises:
            TrackingError: the tracker's own.
            OSError, EOFError: the process has ended.
        """
        self._stream.write(pickle.dumps((method, args)))
        self._stream.flush()
        is_result, value = pickle.load(self._stream)
        if is_result:
            return value
        raise value


def main() -> None:
    """Do what callers ask for, one call at a time, until the driver has ended."""
    given = json.loads(sys.stdin.buffer.readline())
    root = given["artifact_root"]
    tracking = Tracking(TrackingConfig(**given["tracking"]), None if root is None else Path(root))
    busy = threading.Lock()
    threading.Thread(target=_end_with_driver, args=(busy,), daemon=True).start()
    gc.disable()  # two thousand modules are loaded and none is let go
    not_opened: Exception | None = None
    try:
        tracking.open()
    except TrackingError as error:  # the first call tries again
        not_opened = error
    gc.freeze()
    gc.enable()
    listener = socket.socket(fileno=given["listener"])
    while True:
        caller, _ = listener.accept()  # the monitor, and perhaps who does not know the secret
        work = (caller, given["secret"].encode(), tracking, busy, not_opened)
        threading.Thread(target=_serve, args=work, daemon=True).start()


def _serve(
    caller: socket.socket,
    secret: bytes,
    tracking: Tracking,
    busy: threading.Lock,
    not_opened: Exception | None,
) -> None:
    """Do what one caller asks for until it hangs up."""
    with caller, caller.makefile("rwb") as stream, contextlib.suppress(OSError, EOFError):
        if not hmac.compare_digest(stream.read(len(secret)), secret):
            return
        while True:
            method, args = pickle.load(stream)
            with busy:
                try:
                    answer = (True, tracking.call(method, *args))
                    not_opened = None
                except Exception as error:
                    # A disk that was full leaves half a database, which fails otherwise.
                    answer = (False, not_opened or error)
            stream.write(pickle.dumps(answer))
            stream.flush()


def _end_with_driver(busy: threading.Lock) -> None:
    sys.stdin.buffer.read()  # nothing more comes: until the driver closes it or dies
    busy.acquire(timeout=END_TIMEOUT_S)
    os._exit(0)


if __name__ == "__main__":
    main()
