"""Bytes, their references, and callers at once: what the tests of the stores share."""

import hashlib
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from cluster.storage import ObjectRef

DATA = os.urandom(3_000_000)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def ref_to(key: str, data: bytes) -> ObjectRef:
    return ObjectRef(key=key, size_bytes=len(data), sha256=sha256(data))


def at_once(call: Callable[[int], bool], count: int = 16) -> list[bool]:
    """Call with 0, 1, ... from as many threads, all let go at the same moment."""
    barrier = threading.Barrier(count)

    def wait_and_call(number: int) -> bool:
        barrier.wait()
        return call(number)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(wait_and_call, range(count)))


def rot(path: Path, place: int = 0) -> None:
    """Flip a bit of a file as a failing disk does: the time stamps stay."""
    times = path.stat()
    with path.open("r+b") as file:
        file.seek(place)
        byte = file.read(1)[0]
        file.seek(place)
        file.write(bytes([byte ^ 1]))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def files_below(folder: Path) -> set[str]:
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
