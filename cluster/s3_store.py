"""The object store in S3 or anything that speaks its protocol.

Every byte is checked on both ways: the client sends the sha256 of each request's body, and the
server refuses others; what comes back is compared with the server's checksum and the reference.
Objects above 64 MiB go in parts, which become visible as a whole or not at all. botocore retries
requests with backoff; a body that breaks off is asked for again here.

boto3 is imported at the first call. A process has one client, made after a fork anew.
"""

import base64
import functools
import hashlib
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from cluster.download import download_once
from cluster.errors import (
    ObjectCorrupt,
    ObjectMissing,
    StorageError,
    StoreUnavailable,
    StoreUnwritable,
)
from cluster.s3_errors import s3_errors, status_of
from cluster.storage import ObjectInfo, ObjectRef, ObjectStore, checked_key

_PART_BYTES = 64 << 20
_MAX_PARTS = 10_000
_CHUNK_BYTES = 1 << 20
_PAUSES_S = (0.3, 1.0, 3.0)  # before a broken body is asked for again; one attempt more than pauses
_CLIENT_LOCKS: dict[int, threading.Lock] = {}

T = TypeVar("T")


@dataclass(frozen=True)
class S3Store(ObjectStore):
    """A store below a prefix of a bucket.

    Attributes:
        bucket: Name of the bucket, which exists.
        prefix: What all keys are below; "" for the whole bucket, otherwise without '/' at the ends.
    """

    bucket: str
    prefix: str = ""

    @property
    def url(self) -> str:
        """``s3://bucket/prefix``."""
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")

    def put_bytes(self, key: str, data: bytes) -> ObjectRef:
        """Write an object, in the place of the one that may be there."""
        ref = _ref_of(key, data)
        with s3_errors(self.url_of(key), writing=True):
            self._put(ref, data)
        return ref

    def put_file(self, key: str, path: Path) -> ObjectRef:
        """Write a file's bytes as an object; above 64 MiB in parts."""
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            ref = ObjectRef(key=key, size_bytes=file.tell(), sha256=sha256)
            file.seek(0)
            with s3_errors(self.url_of(key), writing=True):
                if ref.size_bytes <= _PART_BYTES:
                    self._put(ref, file)
                else:
                    self._put_in_parts(ref, file)
        return ref

    def put_bytes_if_absent(self, key: str, data: bytes) -> bool:
        """Write an object if none has this key, by ``If-None-Match: *``."""
        return self._put_on_condition(key, data, IfNoneMatch="*")

    def replace_bytes(self, key: str, data: bytes, expected_sha256: str) -> bool:
        """Write an object if the one there now has this digest, by ``If-Match``."""
        with s3_errors(self.url_of(key), writing=True):
            try:
                found = self._client.get_object(Bucket=self.bucket, Key=self._name(key))
                # The ETag is that of these very bytes: both come in one reply.
                if hashlib.sha256(found["Body"].read()).hexdigest() != expected_sha256:
                    return False
            except self._client.exceptions.NoSuchKey:
                return False
        return self._put_on_condition(key, data, IfMatch=found["ETag"])

    def get_bytes(self, key: str) -> bytes:
        """Read a whole object into memory."""
        return self._read(key, lambda body: bytes(body.read()))

    def fetch(self, ref: ObjectRef, folder: Path) -> Path:
        """Download an object once to ``folder/<sha256>``."""

        def write_to(file: BinaryIO) -> None:
            def write(body: Any) -> tuple[int, str]:
                file.truncate(0)  # what an earlier attempt has left
                return _copy(body, file.write)

            self._compare(ref, *self._read(ref.key, write))

        return download_once(ref, folder, write_to)

    def stat(self, key: str) -> ObjectInfo | None:
        """Ask for length and checksum of an object."""
        with s3_errors(self.url_of(key), writing=False):
            try:
                head = self._client.head_object(
                    Bucket=self.bucket, Key=self._name(key), ChecksumMode="ENABLED"
                )
            except self._client.exceptions.ClientError as error:
                if status_of(error.response) == 404:
                    return None
                raise
        return ObjectInfo(key=key, size_bytes=head["ContentLength"], sha256=_sha256_of(head))

    def _read_sha256(self, key: str) -> str:
        return self._read(key, lambda body: _copy(body, len))[1]

    def _list_keys(self, prefix: str) -> Iterator[str]:
        above = f"{self.prefix}/" if self.prefix else ""
        with s3_errors(self.url, writing=False):
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self.bucket, Prefix=above + prefix
            )
            names = (entry["Key"] for page in pages for entry in page.get("Contents", []))
            yield from (name.removeprefix(above) for name in names)

    def delete(self, key: str) -> None:
        """Remove an object; nothing happens if it is not there."""
        with s3_errors(self.url_of(key), writing=True):
            self._client.delete_object(Bucket=self.bucket, Key=self._name(key))

    def ray_location(self, key: str) -> tuple[str, None]:
        """Give the URL; pyarrow takes AWS_ENDPOINT_URL and the credentials as boto3 does."""
        return self.url_of(key), None

    @property
    def _client(self) -> Any:
        # A process-wide client and not an attribute: stores are pickled into every Ray task.
        environment = sorted(pair for pair in os.environ.items() if pair[0].startswith("AWS_"))
        process_id = os.getpid()
        # A lock per process: a child does not inherit one that another thread holds.
        with _CLIENT_LOCKS.setdefault(process_id, threading.Lock()):
            return _client(process_id, hash(tuple(environment)))

    def _name(self, key: str) -> str:
        return f"{self.prefix}/{checked_key(key)}" if self.prefix else checked_key(key)

    def _put(self, ref: ObjectRef, body: bytes | BinaryIO, **condition: str) -> None:
        self._client.put_object(
            Bucket=self.bucket,
            Key=self._name(ref.key),
            Body=body,
            ContentLength=ref.size_bytes,
            ChecksumSHA256=_base64_of(ref.sha256),
            **condition,
        )

    def _put_on_condition(self, key: str, data: bytes, **condition: str) -> bool:
        ref, pauses_s = _ref_of(key, data), iter(_PAUSES_S)
        while True:
            with s3_errors(self.url_of(key), writing=True):
                try:
                    self._put(ref, data, **condition)
                    return True
                except self._client.exceptions.ClientError as error:
                    status = status_of(error.response)
                    if status == 412:
                        # After a retry the object in the way can be this call's own, whose
                        # reply got lost.
                        retried = error.response["ResponseMetadata"].get("RetryAttempts", 0) > 0
                        return retried and self._holds(key, data)
                    if status == 404 and "IfMatch" in condition:
                        return False  # deleted since it was read
                    if status == 501:
                        reason = "the server has no conditional puts, so no locks"
                        advice = "Use AWS S3, MinIO, Ceph or SeaweedFS of today"
                        raise StoreUnwritable(self.url, reason, advice) from error
                    pause_s = next(pauses_s, None) if status == 409 else None
                    if pause_s is None:
                        raise
            _sleep_about(pause_s)  # two conditional puts met: AWS asks to come again

    def _holds(self, key: str, data: bytes) -> bool:
        try:
            return self.get_bytes(key) == data
        except ObjectMissing:
            return False

    def _put_in_parts(self, ref: ObjectRef, file: BinaryIO) -> None:
        part_bytes = max(_PART_BYTES, -(-ref.size_bytes // _MAX_PARTS))
        target = {"Bucket": self.bucket, "Key": self._name(ref.key)}
        # S3 keeps no sha256 of an object in parts, only one per part: ours goes along.
        upload = self._client.create_multipart_upload(
            **target, ChecksumAlgorithm="SHA256", Metadata={"sha256": ref.sha256}
        )
        target["UploadId"] = upload["UploadId"]
        digest = hashlib.sha256()
        parts: list[dict[str, Any]] = []
        try:
            while data := file.read(part_bytes):
                digest.update(data)
                checksum = _base64_of(hashlib.sha256(data).hexdigest())
                number = len(parts) + 1
                reply = self._client.upload_part(
                    **target, PartNumber=number, Body=data, ChecksumSHA256=checksum
                )
                part = {"PartNumber": number, "ETag": reply["ETag"], "ChecksumSHA256": checksum}
                parts.append(part)
            if digest.hexdigest() != ref.sha256:
                reason = "the file changed while it was uploaded"
                raise StorageError(self.url_of(ref.key), reason, "Write the file, then upload it")
            self._client.complete_multipart_upload(**target, MultipartUpload={"Parts": parts})
        except BaseException:
            with suppress(Exception):
                self._client.abort_multipart_upload(**target)
            raise

    def _read(self, key: str, consume: Callable[[Any], T]) -> T:
        """Ask for an object and consume its body, again if the body breaks off or is damaged."""
        url, pauses_s = self.url_of(key), iter(_PAUSES_S)
        while True:
            with s3_errors(url, writing=False):
                body = self._client.get_object(Bucket=self.bucket, Key=self._name(key))["Body"]
            try:
                with s3_errors(url, writing=False), closing(body):
                    return consume(body)
            except (StoreUnavailable, ObjectCorrupt):
                pause_s = next(pauses_s, None)
                if pause_s is None:
                    raise
            _sleep_about(pause_s)


@functools.lru_cache(maxsize=8)
def _client(process_id: int, environment_hash: int) -> Any:
    """Make this process's client for this environment."""
    import boto3
    from botocore.config import Config

    own_endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    config = Config(
        retries={"mode": "standard"},
        connect_timeout=5,
        read_timeout=60,
        max_pool_connections=32,
        tcp_keepalive=True,
        # Servers of one's own seldom have a host name per bucket; pyarrow does the same.
        s3={"addressing_style": "path"} if own_endpoint else None,
    )
    return boto3.session.Session().client("s3", config=config)


def _ref_of(key: str, data: bytes) -> ObjectRef:
    return ObjectRef(key=key, size_bytes=len(data), sha256=hashlib.sha256(data).hexdigest())


def _base64_of(sha256: str) -> str:
    return base64.b64encode(bytes.fromhex(sha256)).decode()


def _sha256_of(head: dict[str, Any]) -> str | None:
    """Digest of the whole object in hex, where the reply to HEAD tells it."""
    checksum = head.get("ChecksumSHA256", "")
    if "-" in checksum:  # of the parts' checksums: see _put_in_parts
        sha256 = head.get("Metadata", {}).get("sha256")
    else:
        sha256 = base64.b64decode(checksum).hex()
    return sha256 or None


def _copy(body: Any, write: Callable[[bytes], object]) -> tuple[int, str]:
    """Hand a reply's body on, piece by piece; return its size in bytes and its sha256 in hex."""
    digest, size_bytes = hashlib.sha256(), 0
    for chunk in body.iter_chunks(_CHUNK_BYTES):
        write(chunk)
        digest.update(chunk)
        size_bytes += len(chunk)
    return size_bytes, digest.hexdigest()


def _sleep_about(pause_s: float) -> None:
    time.sleep(pause_s * random.uniform(0.5, 1.0))
