"""A Ray on loopback for the benchmark: ``ray start --head`` with a token of its own."""

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from cluster.session import PROJECT_ROOT

START_TIMEOUT_S = 120


@dataclass(frozen=True)
class Head:
    """A running head: its address and the environment of its clients."""

    address: str
    environment: Mapping[str, str]


@contextlib.contextmanager
def ray_head(num_attempts: int = 3) -> Iterator[Head]:
    """Start a head; on a busy machine Ray can need a second attempt.

    Raises:
        SystemExit: it did not start; its last words are in the message.
    """
    folder = Path(tempfile.mkdtemp(prefix="rb-"))  # short: Ray's sockets lie below it
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")} | {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_USAGE_STATS_ENABLED": "0",
        "PYTHONPATH": str(PROJECT_ROOT),  # a session leaves benchmarks/ out of what it uploads
    }
    try:
        for attempt in range(num_attempts):
            log = folder / f"start-{attempt}.log"
            address, process = _start(folder / str(attempt), environment, log)
            try:
                if _is_up(process, log):
                    yield Head(address, environment)
                    return
            finally:
                end(process)
        raise SystemExit(f"Ray did not start:\n{log.read_text()[-2000:]}")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _start(
    folder: Path, environment: Mapping[str, str], log: Path
) -> tuple[str, subprocess.Popen[bytes]]:
    folder.mkdir()
    gcs, agent, client, metrics = free_ports(4)
    command = [
        *[str(Path(sys.executable).parent / "ray"), "start", "--head", "--block"],
        *["--num-cpus=2", "--num-gpus=0", "--node-ip-address=127.0.0.1", f"--port={gcs}"],
        *["--include-dashboard=false", f"--dashboard-agent-listen-port={agent}"],
        *[f"--ray-client-server-port={client}", f"--metrics-export-port={metrics}"],
        *["--object-store-memory=100000000", f"--temp-dir={folder}", "--disable-usage-stats"],
    ]
    with log.open("wb") as stream:
        process = subprocess.Popen(
            command, env=environment, stdout=stream, stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip
    return f"127.0.0.1:{gcs}", process


def _is_up(process: subprocess.Popen[bytes], log: Path) -> bool:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline and process.poll() is None:
        if "Ray runtime started" in log.read_text():
            return True
        time.sleep(0.2)
    return False


def free_ports(count: int) -> list[int]:
    """Return ports of loopback that nobody listens on now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def end(process: subprocess.Popen[bytes]) -> list[int]:
    """End a head and what is left in its session, nothing else; return what could not be ended."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(40)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    deadline = time.monotonic() + 10
    while (members := _session_members(process.pid)) and time.monotonic() < deadline:
        time.sleep(0.2)
    for pid in members:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    time.sleep(0.5 if members else 0)
    return _session_members(process.pid)


def _session_members(session_id: int) -> list[int]:
    """Return the living processes of a session."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            state, _, _, session = (entry / "stat").read_text().rpartition(")")[2].split()[:4]
        except OSError:
            continue
        if int(session) == session_id and state != "Z":
            found.append(int(entry.name))
    return found
