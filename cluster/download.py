"""A folder of downloads, shared by the processes of a node: each object is brought there once.

A download grows in ``<sha256>.part`` under a file lock and is renamed to ``<sha256>`` when its
bytes have been checked. The processes that want the same object wait at the lock; the kernel
releases the lock of a process that dies, and the next one starts the download again.
"""

import fcntl
import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from cluster.errors import from_os_error
from cluster.storage import ObjectRef


def download_once(ref: ObjectRef, folder: Path, write_to: Callable[[BinaryIO], None]) -> Path:
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
    path, part_path = folder / ref.sha256, folder / f"{ref.sha256}.part"
    try:
        while not _has(path, ref):
            folder.mkdir(parents=True, exist_ok=True)
            with part_path.open("ab") as part:
                fcntl.flock(part, fcntl.LOCK_EX)
                if not _is_at(part, part_path):
                    continue  # the process that held the lock has renamed or removed the file
                if _has(path, ref):
                    part_path.unlink()
                    continue
                try:
                    part.truncate(0)
                    write_to(part)
                    part.flush()
                    os.replace(part_path, path)
                except BaseException:
                    part_path.unlink(missing_ok=True)
                    raise
        return path
    except OSError as error:
        raise from_os_error(error, str(path), writing=True) from error


def _has(path: Path, ref: ObjectRef) -> bool:
    """Whether a file has the bytes of a reference."""
    if not path.is_file() or path.stat().st_size != ref.size_bytes:
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == ref.sha256


def _is_at(file: BinaryIO, path: Path) -> bool:
    """Whether an open file is the one that stands at a path now."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
