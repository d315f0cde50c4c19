"""The room of a node's cache: who is measured, who goes when a new object needs it.

A folder holds objects (``SHA256``), marks of what was checked (``SHA256.ok``, whose time stamp is
the object's last use) and objects on their way (``SHA256.part``, as long as they will be from
their beginning). All processes of the node decide under one lock; what a process has open stays
readable to it when the name is gone.
"""

import fcntl
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

from cluster.download import is_at
from cluster.errors import NoSpaceLeft

LIMIT_VARIABLE = "DEPTH_CACHE_GB"
FREE_SHARE = 0.5
"""Without a limit the cache takes at most this share of what would be free without it."""
FRESH_S = 600.0
"""So long what was brought ahead of use is kept before all that was used already."""
_OBJECT = re.compile(r"[0-9a-f]{64}")
_POLL_S = 0.05


def limit_from_environment() -> int | None:
    """Return what ``$DEPTH_CACHE_GB`` of this process allows, in bytes; None where it is not set.

    Raises:
        ValueError: It is no number above 0.
    """
    text = os.environ.get(LIMIT_VARIABLE, "")
    if not text:
        return None
    try:
        limit_bytes = int(float(text) * 1e9)
    except (ValueError, OverflowError):
        limit_bytes = 0
    if limit_bytes <= 0:
        raise ValueError(f"{LIMIT_VARIABLE} = {text!r}: give gigabytes, such as 200 or 0.5")
    return limit_bytes


@dataclass(frozen=True)
class _Kept:
    path: Path
    size_bytes: int
    used_at: float


@dataclass(frozen=True)
class CacheSpace:
    """A folder and how many bytes it may hold.

    Attributes:
        folder: Where the objects lie.
        limit_bytes: None = a share of the disk, ``FREE_SHARE``.
    """

    folder: Path
    limit_bytes: int | None

    def reserve(self, part: FileIO, need_bytes: int, *, ahead: bool) -> bool:
        """Take room for an object on its way by giving its file the length that it will have.

        Waits where others' objects on their way fill the cache.

        Args:
            part: The file, locked by this caller.
            need_bytes: The length.
            ahead: Whether nobody waits for the object: then nothing goes for it that was brought
                ahead of use itself.

        Returns:
            False where there is no room, which happens with ``ahead`` only.

        Raises:
            NoSpaceLeft: The object is larger than the limit.
        """
        if self.limit_bytes is not None and need_bytes > self.limit_bytes:
            reason = f"an object of {need_bytes} bytes is above the limit of {self.limit_bytes}"
            raise NoSpaceLeft(str(self.folder), reason, f"Raise {LIMIT_VARIABLE}")
        while True:
            with self._exclusive():
                kept, on_the_way_bytes = self._scan()
                used_bytes = sum(k.size_bytes for k in kept) + on_the_way_bytes
                limit_bytes = max(need_bytes, self._limit(used_bytes))
                excess_bytes = used_bytes + need_bytes - limit_bytes
                goes = _oldest(kept, excess_bytes, before=time.time() if ahead else None)
                if goes is not None:
                    for one in goes:
                        _drop(one.path)
                    part.truncate(need_bytes)
                    return True
            if ahead:
                return False
            time.sleep(_POLL_S)

    def keep(self, part: FileIO, path: Path) -> None:
        """Give an object that has arrived its name, while nobody measures.

        Who lists the folder meanwhile would count it under neither name.
        """
        with self._exclusive():
            os.replace(part.name, path)

    def free(self, need_bytes: int) -> bool:
        """Let objects go because the disk is full; say whether there was one."""
        with self._exclusive():
            kept, _ = self._scan()
            total_bytes = sum(k.size_bytes for k in kept)
            goes = _oldest(kept, min(need_bytes, total_bytes), before=None) or []
            for one in goes:
                _drop(one.path)
            return bool(goes)

    def _limit(self, used_bytes: int) -> int:
        if self.limit_bytes is not None:
            return self.limit_bytes
        disk = os.statvfs(self.folder)
        return int(FREE_SHARE * (disk.f_bavail * disk.f_frsize + used_bytes))

    def _scan(self) -> tuple[list[_Kept], int]:
        """Return the objects, and the bytes of those on their way; clear what the dead left."""
        kept: list[_Kept] = []
        on_the_way_bytes = 0
        with os.scandir(self.folder) as entries:
            for entry in entries:
                path = Path(entry.path)
                with suppress(FileNotFoundError):
                    if _OBJECT.fullmatch(entry.name):
                        status = path.stat()
                        kept.append(_Kept(path, status.st_size, _used_at(path, status.st_mtime)))
                    elif path.suffix == ".part" and not _clear_if_dead(path):
                        on_the_way_bytes += path.stat().st_size
        return kept, on_the_way_bytes

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        with (self.folder / "lock").open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            try:
                yield
            finally:  # closing is not enough when a fork has copied the descriptor
                fcntl.flock(file, fcntl.LOCK_UN)


def mark_of(path: Path) -> Path:
    """Return where it is noted that an object was checked."""
    return path.with_name(f"{path.name}.ok")


def _oldest(kept: list[_Kept], excess_bytes: int, before: float | None) -> list[_Kept] | None:
    """Choose what was not used for longest; None where that is not enough."""
    goes: list[_Kept] = []
    for one in sorted(kept, key=lambda k: k.used_at):
        if excess_bytes <= 0:
            break
        if before is None or one.used_at <= before:
            goes.append(one)
            excess_bytes -= one.size_bytes
    return goes if excess_bytes <= 0 else None


def _used_at(path: Path, otherwise: float) -> float:
    try:
        return mark_of(path).stat().st_mtime
    except FileNotFoundError:
        return otherwise


def _drop(path: Path) -> None:
    for one in (path, mark_of(path)):
        with suppress(FileNotFoundError):
            one.unlink()


def _clear_if_dead(path: Path) -> bool:
    """Remove an object on its way that no living process brings."""
    with FileIO(os.fspath(path)) as part:
        try:
            fcntl.flock(part, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        try:
            if is_at(part, path):
                path.unlink()
            return True
        finally:
            fcntl.flock(part, fcntl.LOCK_UN)
