"""A node's objects as open files: brought there once, checked once, bounded in bytes.

All processes of a node share a folder. The first that wants an object downloads it and checks
size and sha256; a mark then says so, and holds for that very file (inode, size, time stamps) until
the machine starts anew. Where the store is a folder of this machine nothing is copied: its own
files are opened, and checked once in the same way.
"""

import errno
import functools
import hashlib
import os
import queue
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path

from cluster.cache_space import FRESH_S, CacheSpace, mark_of
from cluster.download import exclusive_part
from cluster.errors import ObjectMissing, StorageError, from_os_error
from cluster.storage import ObjectRef, ObjectStore

NUM_THREADS = 3
"""Threads of a process that bring objects ahead of use."""


@dataclass(frozen=True)
class NodeCache:
    """Objects of a store on this node; a small value that any process of the node may use.

    Attributes:
        store: Where the objects are.
        folder: The node's folder for them, on its own disk; made if need be.
        limit_bytes: What it may hold; None = half of the disk that would be free without it.
    """

    store: ObjectStore
    folder: Path
    limit_bytes: int | None = None

    def open(self, ref: ObjectRef) -> FileIO:
        """Open an object for reading; its bytes have been checked on this node.

        The file stays readable until it is closed, whatever happens to the cache.

        Raises:
            ObjectMissing: No object has this key.
            ObjectCorrupt: The bytes are others.
            NoSpaceLeft: The disk is full, or the object above the limit.
        """
        file = self._open(ref, ahead=False)
        assert file is not None
        return file

    def prefetch(self, ref: ObjectRef) -> None:
        """Bring an object here in the background, unless that takes another's place.

        What goes wrong is not told: ``open`` will find it again.
        """
        own = self.store.own_file(ref.key)
        if not _is_checked(own or self.folder / ref.sha256, self._mark(ref, own)):
            _fetcher(os.getpid()).ask(self, ref)

    def bring(self, ref: ObjectRef) -> None:
        """Do what ``prefetch`` starts, in this thread."""
        file = self._open(ref, ahead=True)
        if file is not None:
            file.close()

    def distrust(self, ref: ObjectRef) -> None:
        """Have an object checked, or brought, again at its next opening: its bytes are others."""
        with suppress(OSError):
            self._mark(ref, self.store.own_file(ref.key)).unlink()

    def _open(self, ref: ObjectRef, *, ahead: bool) -> FileIO | None:
        own = self.store.own_file(ref.key)
        path, mark = own or self.folder / ref.sha256, self._mark(ref, own)
        try:
            file = self._checked(path, mark, ref, ahead=ahead)
            if file is not None:
                return file
            with exclusive_part(self.folder, mark.stem) as part:
                file = self._checked(path, mark, ref, ahead=ahead)
                if file is None and own is None:
                    file = self._download(part, path, ref, ahead=ahead)
                elif file is None:
                    file = self._check(own, mark, ref)
                return file
        except OSError as error:
            if own is not None and error.filename == str(own):
                raise from_os_error(error, self.store.url_of(ref.key), writing=False) from error
            raise from_os_error(error, str(self.folder), writing=True) from error

    def _mark(self, ref: ObjectRef, own: Path | None) -> Path:
        name = ref.sha256
        if own is not None:  # two stores of one node have files of their own
            name += "-" + hashlib.sha256(os.fsencode(own)).hexdigest()[:8]
        return mark_of(self.folder / name)

    def _checked(self, path: Path, mark: Path, ref: ObjectRef, *, ahead: bool) -> FileIO | None:
        """Open a file if it is the one that was checked."""
        try:
            file = FileIO(os.fspath(path))
        except (FileNotFoundError, NotADirectoryError):
            return None
        try:
            if os.fstat(file.fileno()).st_size == ref.size_bytes and _identity(file) == _read(mark):
                if not ahead:
                    with suppress(FileNotFoundError):
                        os.utime(mark)  # used now; the file may have gone meanwhile
                return file
        except BaseException:
            file.close()
            raise
        file.close()
        return None

    def _check(self, own: Path | None, mark: Path, ref: ObjectRef) -> FileIO:
        """Open the store's own file, read it whole and note that it is as it should be."""
        try:
            assert own is not None
            file = FileIO(os.fspath(own))
        except (FileNotFoundError, NotADirectoryError):
            raise ObjectMissing(self.store.url_of(ref.key), "there is no such object") from None
        try:
            identity = _identity(file)
            size_bytes, sha256 = os.fstat(file.fileno()).st_size, ""
            if size_bytes == ref.size_bytes:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            self.store.compare(ref, size_bytes, sha256)
            _write(mark, identity, ahead=False)
            file.seek(0)
            return file
        except BaseException:
            file.close()
            raise

    def _download(self, part: FileIO, path: Path, ref: ObjectRef, *, ahead: bool) -> FileIO | None:
        space = CacheSpace(self.folder, self.limit_bytes)
        while True:
            if not space.reserve(part, ref.size_bytes, ahead=ahead):
                return None
            try:
                self.store.download(ref, part)
                break
            except OSError as error:
                # Others fill the disk too: the cache shrinks before it gives up.
                part.truncate(0)
                is_full = error.errno in (errno.ENOSPC, errno.EDQUOT)
                if not is_full or ahead or not space.free(ref.size_bytes):
                    raise
        _write(mark_of(path), _identity(part), ahead=ahead)
        file = FileIO(part.name)  # before others can see and evict it
        space.keep(part, path)
        return file


@dataclass
class _Fetcher:
    """The threads of a process that bring objects; they die with it."""

    waiting: "queue.SimpleQueue[tuple[NodeCache, ObjectRef]]" = field(
        default_factory=queue.SimpleQueue
    )
    known: set[tuple[Path, str]] = field(default_factory=set)
    lock: threading.Lock = field(default_factory=threading.Lock)
    num_threads: int = 0

    def ask(self, cache: NodeCache, ref: ObjectRef) -> None:
        with self.lock:
            if (cache.folder, ref.sha256) in self.known:
                return
            self.known.add((cache.folder, ref.sha256))
            if self.num_threads < NUM_THREADS:
                self.num_threads += 1
                threading.Thread(target=self._work, name="prefetch", daemon=True).start()
        self.waiting.put((cache, ref))

    def _work(self) -> None:
        while True:
            cache, ref = self.waiting.get()
            try:
                with suppress(StorageError):  # who opens it will be told
                    cache.bring(ref)
            finally:
                with self.lock:
                    self.known.discard((cache.folder, ref.sha256))


@functools.cache
def _fetcher(process_id: int) -> _Fetcher:
    """Return this process's threads; those of the parent do not live on after a fork."""
    return _Fetcher()


def _is_checked(path: Path, mark: Path) -> bool:
    try:
        return _identity_of(path.stat()) == _read(mark)
    except OSError:
        return False


def _identity(file: FileIO) -> str:
    return _identity_of(os.fstat(file.fileno()))


def _identity_of(status: os.stat_result) -> str:
    """What makes a file this one: after a power cut its bytes may be others, so the boot counts."""
    parts = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, _boot())
    return " ".join(map(str, parts))


@functools.cache
def _boot() -> str:
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return "?"


def _read(mark: Path) -> str | None:
    try:
        return mark.read_text()
    except FileNotFoundError:
        return None


def _write(mark: Path, identity: str, *, ahead: bool) -> None:
    new = mark.with_name(f"{mark.name}.{os.getpid()}.{threading.get_ident()}")
    try:
        new.write_text(identity)
        if ahead:  # what nobody has used yet goes last
            until = time.time() + FRESH_S
            os.utime(new, (until, until))
        os.replace(new, mark)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
