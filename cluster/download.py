"""A folder of downloads, shared by the processes of a node: each object is brought there once.

A download grows in ``NAME.part`` under a file lock and is renamed to ``NAME`` when its bytes have
been checked. The processes that want the same object wait at the lock; the kernel releases the
lock of a process that dies, and the next one starts the download again.
"""

import fcntl
import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path

from cluster.errors import from_os_error
from cluster.storage import ObjectRef


def download_once(ref: ObjectRef, folder: Path, write_to: Callable[[FileIO], None]) -> Path:
    """Give the file with an object's bytes, downloading it if no process has done so yet.

    Args:
        ref: The object.
        folder: Where downloads lie; made if need be.
        write_to: Writes the object's bytes to an empty file, or raises if they are others.

    Returns:
        ``folder/<sha256>``, its size and sha256 checked in this call.

    Raises:
        StorageError: The folder cannot be written, or no space is left there.
    """
    path = folder / ref.sha256
    try:
        if not _has(path, ref):
            with exclusive_part(folder, ref.sha256) as part:
                if not _has(path, ref):
                    write_to(part)
                    os.replace(part.name, path)
        return path
    except OSError as error:
        raise from_os_error(error, str(path), writing=True) from error


@contextmanager
def exclusive_part(folder: Path, name: str) -> Iterator[FileIO]:
    """Open ``folder/NAME.part``, empty, for this caller alone; wait while another has it.

    Afterwards the part is gone, unless it was renamed.
    """
    path = folder / f"{name}.part"
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        with open(path, "r+b", buffering=0, opener=_create) as part:
            fcntl.flock(part, fcntl.LOCK_EX)
            try:
                if not is_at(part, path):
                    continue  # the process that held the lock has renamed or removed the file
                part.truncate(0)
                yield part
            finally:
                if is_at(part, path):
                    with suppress(FileNotFoundError):
                        path.unlink()
                # Said aloud: closing is not enough when a fork has copied the descriptor.
                fcntl.flock(part, fcntl.LOCK_UN)
        return


def _create(path: str, flags: int) -> int:
    # Not by "ab": what is written to such a file goes to its end, whatever the position.
    return os.open(path, flags | os.O_CREAT, 0o666)


def is_at(file: FileIO, path: Path) -> bool:
    """Whether an open file is the one that stands at a path now."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _has(path: Path, ref: ObjectRef) -> bool:
    """Whether a file has the bytes of a reference."""
    if not path.is_file() or path.stat().st_size != ref.size_bytes:
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == ref.sha256
