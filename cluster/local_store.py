"""The object store in a local or mounted folder: one file per object.

Data goes to a new file below ``ROOT/.objectstore/incoming``, to the disk with fsync, and then by
one rename or hard link under its key. What a killed process leaves there is never listed.
Renames and deletions hold ``ROOT/.objectstore/lock`` for a moment, so that a compare-and-swap is
atomic against all of them; the kernel lets go of the lock of a dead process.
"""

import errno
import fcntl
import hashlib
import io
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from cluster.errors import StoreUnwritable, from_os_error
from cluster.storage import RESERVED_NAME, ObjectInfo, ObjectRef, ObjectStore, checked_key

_CHUNK_BYTES = 1 << 20
_NO_HARD_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)


@dataclass(frozen=True)
class LocalStore(ObjectStore):
    """A store in one folder, which is made at the first write.

    Attributes:
        root: Absolute path of the folder. It needs hard links and flock, as every POSIX file
            system has them; a store inside another one's folder is not supported.
    """

    root: Path

    @property
    def url(self) -> str:
        """``file://`` and the absolute path."""
        return self.root.as_uri()

    def put_bytes(self, key: str, data: bytes) -> ObjectRef:
        """Write an object, in the place of the one that may be there."""
        return self._put(key, io.BytesIO(data))

    def put_file(self, key: str, path: Path) -> ObjectRef:
        """Write a file's bytes as an object, as a stream."""
        with path.open("rb") as stream:
            return self._put(key, stream)

    def put_bytes_if_absent(self, key: str, data: bytes) -> bool:
        """Write an object if none has this key, by a hard link, which is atomic."""
        if self.stat(key) is not None:
            return False
        with self._os_errors(key, writing=True), self._incoming(key, io.BytesIO(data)) as (new, _):
            path = self._folder_made(key)
            try:
                os.link(new, path)
            except FileExistsError:
                if path.is_dir():
                    raise
                return False
            except OSError as error:
                if error.errno not in _NO_HARD_LINKS:
                    raise
                reason = f"the file system has no hard links ({error.strerror}), so no locks"
                raise StoreUnwritable(self.url, reason, "Choose another folder") from error
            _fsync_folder(path.parent)
            return True

    def replace_bytes(self, key: str, data: bytes, expected_sha256: str) -> bool:
        """Write an object if the one there now has this digest."""
        path = self._path(key)
        if not path.is_file():
            return False
        with (
            self._os_errors(key, writing=True),
            self._incoming(key, io.BytesIO(data)) as (new, _),
            self._exclusive(),
        ):
            try:
                if _sha256_of(path) != expected_sha256:
                    return False
            except FileNotFoundError:
                return False
            os.replace(new, path)
            _fsync_folder(path.parent)
            return True

    def get_bytes(self, key: str) -> bytes:
        """Read a whole object into memory."""
        with self._os_errors(key, writing=False):
            return self._path(key).read_bytes()

    def fetch(self, ref: ObjectRef, folder: Path) -> Path:
        """Give the store's own file after a check of its bytes; nothing is copied."""
        self.verify(ref)
        return self._path(ref.key)

    def own_file(self, key: str) -> Path:
        """Give the path below the root."""
        return self._path(key)

    def download(self, ref: ObjectRef, file: io.FileIO) -> None:
        """Copy the file and check the copy."""
        with self._os_errors(ref.key, writing=False):
            source = self._path(ref.key).open("rb")
        file.seek(0)
        with source:
            while chunk := source.read(_CHUNK_BYTES):
                _write_all(file, chunk)
        size_bytes = file.tell()
        file.truncate()
        file.seek(0)
        self.compare(ref, size_bytes, hashlib.file_digest(file, "sha256").hexdigest())

    def stat(self, key: str) -> ObjectInfo | None:
        """Say how long an object is; a folder keeps no digests."""
        path = self._path(key)
        try:
            size_bytes = path.stat().st_size
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise from_os_error(error, self.url_of(key), writing=False) from error
        return ObjectInfo(key=key, size_bytes=size_bytes, sha256=None) if path.is_file() else None

    def _read_sha256(self, key: str) -> str:
        with self._os_errors(key, writing=False):
            return _sha256_of(self._path(key))

    def _list_keys(self, prefix: str) -> Iterator[str]:
        start = self.root / prefix.rpartition("/")[0]
        for folder, subfolders, names in os.walk(start, onerror=self._walk_error):
            subfolders[:] = [name for name in subfolders if name != RESERVED_NAME]
            for name in names:
                key = (Path(folder) / name).relative_to(self.root).as_posix()
                if key.startswith(prefix):
                    yield key

    def delete(self, key: str) -> None:
        """Remove an object; nothing happens if it is not there."""
        path = self._path(key)
        if not path.is_file():
            return
        with (
            self._os_errors(key, writing=True),
            self._exclusive(),
            suppress(FileNotFoundError),
        ):
            path.unlink()

    def ray_location(self, key: str) -> tuple[str, None]:
        """Give an absolute path, which Ray opens by itself."""
        return str(self._path(key)), None

    def _path(self, key: str) -> Path:
        return self.root / checked_key(key)

    def _put(self, key: str, stream: BinaryIO) -> ObjectRef:
        with self._os_errors(key, writing=True), self._incoming(key, stream) as (new, ref):
            path = self._folder_made(key)
            with self._exclusive():
                os.replace(new, path)
            _fsync_folder(path.parent)
            return ref

    def _folder_made(self, key: str) -> Path:
        path = self._path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    @contextmanager
    def _incoming(self, key: str, stream: BinaryIO) -> Iterator[tuple[Path, ObjectRef]]:
        """Write a stream to a new file of no key; it is gone afterwards unless renamed."""
        checked_key(key)
        folder = self.root / RESERVED_NAME / "incoming"
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / uuid.uuid4().hex
        digest, size_bytes = hashlib.sha256(), 0
        try:
            with path.open("xb", buffering=0) as file:
                while chunk := stream.read(_CHUNK_BYTES):
                    _write_all(file, chunk)
                    digest.update(chunk)
                    size_bytes += len(chunk)
                os.fsync(file.fileno())
            yield path, ObjectRef(key=key, size_bytes=size_bytes, sha256=digest.hexdigest())
        finally:
            with suppress(OSError):
                path.unlink()

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        """Exclude all other renames and deletions in this store, of any process."""
        folder = self.root / RESERVED_NAME
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "lock").open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    @contextmanager
    def _os_errors(self, key: str, *, writing: bool) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise from_os_error(error, self.url_of(key), writing=writing) from error

    def _walk_error(self, error: OSError) -> None:
        if not isinstance(error, (FileNotFoundError, NotADirectoryError)):
            raise from_os_error(error, self.url, writing=False) from error


def _write_all(file: io.FileIO, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]


def _sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fsync_folder(folder: Path) -> None:
    """Make a rename survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
