"""The object store: bytes under keys, in a local folder or in S3, with the same behaviour.

``open_store(url)`` gives an :class:`ObjectStore`. Stores are small values: equal by URL, safe to
pickle, to fork and to share between threads. Opening one neither connects nor makes a folder.
"""

import hashlib
import os
import re
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterator
from io import FileIO
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import unquote, urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from cluster.errors import ObjectCorrupt, ObjectMissing, StoreUnwritable

RESERVED_NAME = ".objectstore"
PROBE_PREFIX = "write-probe-"
_SEGMENT = re.compile(r"[A-Za-z0-9_.=+@,!-]{1,200}")
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/")
_SCHEMES = "a path, file:///path or s3://bucket/prefix"


def checked_key(key: str) -> str:
    """Return a key that is safe as a path below a folder and in a URL.

    A key is relative and '/'-separated; its segments are letters, digits and ``_.=+@,!-``. A key
    that is the beginning of another up to a '/' cannot be stored beside it: ``a`` excludes ``a/b``.

    Raises:
        ValueError: Empty, absolute, with ``.`` or ``..``, with other characters, or too long.
    """
    segments = key.split("/")
    if len(key) > 900 or not all(_SEGMENT.fullmatch(segment) for segment in segments):
        raise ValueError(
            f"{key!r} is no key: use 'a/b/c', no '/' at either end, segments of 1 to 200 letters, "
            "digits or _.=+@,!- and at most 900 characters"
        )
    if {".", "..", RESERVED_NAME} & set(segments):
        raise ValueError(
            f"{key!r} is no key: '.', '..' and '{RESERVED_NAME}' are not allowed in it"
        )
    return key


class ObjectRef(BaseModel):
    """What an object is: enough to find it and to prove that the bytes are the same."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    key: Annotated[str, AfterValidator(checked_key)] = Field(description="key in the store")
    size_bytes: int = Field(ge=0, description="length of the object")
    sha256: str = Field(pattern="^[0-9a-f]{64}$", description="digest of the bytes, in hex")

    @staticmethod
    def of(key: str, data: bytes) -> "ObjectRef":
        """Return what names these bytes under this key."""
        digest = hashlib.sha256(data).hexdigest()
        return ObjectRef(key=key, size_bytes=len(data), sha256=digest)


class ObjectInfo(BaseModel):
    """What a store can say about an object without reading it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    key: str = Field(description="key in the store")
    size_bytes: int = Field(ge=0, description="length of the object")
    sha256: str | None = Field(description="digest in hex; None where the store does not keep it")


class ObjectStore(ABC):
    """Bytes under keys.

    Every write is atomic: a reader sees the object before it or after it, never a part. Errors
    are those of :mod:`cluster.errors`; a key that breaks the rules is a ValueError.
    """

    @property
    @abstractmethod
    def url(self) -> str:
        """What ``open_store`` takes to open the same store; free of credentials."""

    @abstractmethod
    def put_bytes(self, key: str, data: bytes) -> ObjectRef:
        """Write an object, in the place of the one that may be there."""

    @abstractmethod
    def put_file(self, key: str, path: Path) -> ObjectRef:
        """Write a file's bytes as an object, as a stream; the file stays as it is."""

    @abstractmethod
    def put_bytes_if_absent(self, key: str, data: bytes) -> bool:
        """Write an object if none has this key; of several callers at once one gets True.

        After a reply that got lost, the store is asked again and an object with the same bytes
        counts as this call's own. Callers that compete must therefore write different bytes.
        """

    @abstractmethod
    def replace_bytes(self, key: str, data: bytes, expected_sha256: str) -> bool:
        """Write an object if the one there now has this digest; False if not or if none is there.

        Of several callers at once with the same expectation one gets True. About lost replies
        the same holds as for :meth:`put_bytes_if_absent`.
        """

    @abstractmethod
    def get_bytes(self, key: str) -> bytes:
        """Read a whole object into memory.

        Raises:
            ObjectMissing: No object has this key.
        """

    @abstractmethod
    def fetch(self, ref: ObjectRef, folder: Path) -> Path:
        """Give a local file with an object's bytes, its size and sha256 checked at every call.

        Args:
            ref: The object.
            folder: Where a download goes, as ``folder/<sha256>``; made if need be. What is there
                already is used again. Processes that fetch the same object at once download it
                once. A local store gives its own file, which must not be changed.

        Raises:
            ObjectMissing: No object has this key.
            ObjectCorrupt: The bytes are others.
        """

    @abstractmethod
    def own_file(self, key: str) -> Path | None:
        """Say which file of this machine is the object; None where the store is elsewhere.

        The file may not be there, is not checked, and must not be changed.
        """

    @abstractmethod
    def download(self, ref: ObjectRef, file: FileIO) -> None:
        """Write an object's bytes to a file, from its beginning, and check size and sha256.

        Patient where the store is elsewhere: what breaks off is asked for again for a minute.

        Args:
            ref: The object.
            file: Open for reading and writing, unbuffered, not for appending. After an error it
                holds anything.

        Raises:
            ObjectMissing: No object has this key.
            ObjectCorrupt: The bytes are others; if they are as many as they should be, the file
                holds them.
            OSError: The file cannot be written.
        """

    @abstractmethod
    def stat(self, key: str) -> ObjectInfo | None:
        """Say what the store knows about an object without reading it; None if it is not there."""

    @abstractmethod
    def delete(self, key: str) -> None:
        """Remove an object; nothing happens if it is not there."""

    @abstractmethod
    def ray_location(self, key: str) -> tuple[str, Any | None]:
        """Give Ray's (storage_path, storage_filesystem) for what lies below a key."""

    @abstractmethod
    def _read_sha256(self, key: str) -> str:
        """Digest of an object in hex, by reading it."""

    @abstractmethod
    def _list_keys(self, prefix: str) -> Iterator[str]:
        """As list_keys; the prefix is checked."""

    def list_keys(self, prefix: str = "") -> Iterator[str]:
        """List every key that begins with these characters, once each, in no order."""
        if prefix:
            checked_key(prefix + "x")
        return self._list_keys(prefix)

    def verify(self, ref: ObjectRef) -> None:
        """Check size and sha256, reading the object only where the store keeps no digest.

        Raises:
            ObjectMissing: No object has this key.
            ObjectCorrupt: Size or digest are others.
        """
        info = self.stat(ref.key)
        if info is None:
            raise ObjectMissing(self.url_of(ref.key), "there is no such object")
        # The size first: it finds an object that was cut short without reading it.
        sha256 = None
        if info.size_bytes == ref.size_bytes:
            sha256 = info.sha256 or self._read_sha256(ref.key)
        self.compare(ref, info.size_bytes, sha256)

    def has(self, ref: ObjectRef) -> bool:
        """Say whether an object is there with these very bytes, as ``verify`` finds out."""
        try:
            self.verify(ref)
        except (ObjectMissing, ObjectCorrupt):
            return False
        return True

    def compare(self, ref: ObjectRef, size_bytes: int, sha256: str | None) -> None:
        """Compare what was found with a reference; the size first, it says more.

        Raises:
            ObjectCorrupt: Size or digest are others.
        """
        if size_bytes != ref.size_bytes:
            reason = f"it has {size_bytes} bytes instead of {ref.size_bytes}"
            raise ObjectCorrupt(self.url_of(ref.key), reason)
        if sha256 != ref.sha256:
            reason = f"its sha256 is {sha256} instead of {ref.sha256}"
            raise ObjectCorrupt(self.url_of(ref.key), reason)

    def url_of(self, key: str) -> str:
        """Give the address of one object, for people and messages."""
        return f"{self.url}/{checked_key(key)}"

    def check_writable(self) -> None:
        """Write, read and delete a small object, so that a mistake shows before the work.

        Raises:
            StoreUnwritable: The store cannot be written, or ignores the condition of a
                conditional put, on which locks rest.
            StoreUnavailable: It does not answer.
        """
        key, data = f"{PROBE_PREFIX}{uuid.uuid4().hex}", uuid.uuid4().bytes
        wrote = self.put_bytes_if_absent(key, data)
        try:
            came_back = wrote and self.get_bytes(key) == data
            if not came_back:
                raise StoreUnwritable(self.url, "a small object did not come back as written")
            if self.put_bytes_if_absent(key, data[::-1]):
                raise StoreUnwritable(
                    self.url,
                    "the server ignores If-None-Match, so locks would not exclude",
                    "Use a server with conditional puts (AWS S3, MinIO, Ceph, SeaweedFS)",
                )
        finally:
            self.delete(key)


def open_store(url: str) -> ObjectStore:
    """Open a store by its URL.

    Args:
        url: A path or ``file:///path`` for a folder; ``s3://bucket/prefix`` for S3, whose
            endpoint and credentials boto3 takes from the environment (``AWS_ENDPOINT_URL``).

    Raises:
        ValueError: An unknown scheme, or a URL that is not complete.
    """
    from cluster.local_store import LocalStore
    from cluster.s3_store import S3Store

    scheme = match[1] if (match := _SCHEME.match(url)) else None
    if scheme is None and url:
        return LocalStore(Path(os.path.abspath(os.path.expanduser(url))))
    parts = urlsplit(url)
    if "@" in parts.netloc or parts.query:
        raise ValueError(f"a store URL holds no credentials and no options: valid is {_SCHEMES}")
    if scheme == "file" and parts.netloc in ("", "localhost") and parts.path:
        return LocalStore(Path(os.path.abspath(unquote(parts.path))))
    if scheme == "s3":
        if not _BUCKET.fullmatch(parts.netloc):
            raise ValueError(f"{url!r} names no bucket: valid is s3://bucket/prefix")
        prefix = parts.path.strip("/")
        return S3Store(parts.netloc, checked_key(prefix) if prefix else "")
    raise ValueError(f"{url!r} is no store URL: valid is {_SCHEMES}")
