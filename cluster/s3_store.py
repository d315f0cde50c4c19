"""The object store in S3 or anything that speaks its protocol.

Every byte is checked on both ways: the client sends the sha256 of each request's body, and the
server refuses others; what comes back is compared with the server's checksum and the reference.
Objects above 64 MiB go in parts, which become visible as a whole or not at all. botocore retries
requests with backoff; :mod:`cluster.s3_transfer` goes on where data is at stake.

boto3 is imported at the first call.
"""

import functools
import hashlib
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from io import BufferedReader, FileIO
from pathlib import Path
from typing import Any, TypeVar

from cluster.download import download_once
from cluster.errors import (
    ObjectCorrupt,
    ObjectMissing,
    StorageError,
    StoreUnavailable,
    StoreUnwritable,
)
from cluster.s3_client import s3_client
from cluster.s3_errors import s3_errors, status_of
from cluster.s3_transfer import (
    base64_of,
    patiently,
    read_into,
    send_parts,
    sha256_of_head,
    sleep_about,
)
from cluster.storage import ObjectInfo, ObjectRef, ObjectStore, checked_key

_PART_BYTES = 64 << 20
_MAX_PARTS = 10_000
_CHUNK_BYTES = 1 << 20
_PAUSES_S = (0.3, 1.0, 3.0)  # before a broken body is asked for again; one attempt more than pauses

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
        ref = ObjectRef.of(key, data)
        patiently(lambda: self._put_whole(ref, data))
        return ref

    def put_file(self, key: str, path: Path) -> ObjectRef:
        """Write a file's bytes as an object; above 64 MiB in parts."""
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            ref = ObjectRef(key=key, size_bytes=file.tell(), sha256=sha256)
            if ref.size_bytes <= _PART_BYTES:
                patiently(lambda: self._put_file_whole(ref, file))
            else:
                self._put_in_parts(ref, file)
        return ref

    def put_bytes_if_absent(self, key: str, data: bytes) -> bool:
        """Write an object if none has this key, by ``If-None-Match: *``."""
        return self._put_on_condition(key, data, IfNoneMatch="*")

    def replace_bytes(self, key: str, data: bytes, expected_sha256: str) -> bool:
        """Write an object if the one there now has this digest, by ``If-Match``."""
        try:
            # The ETag is that of these very bytes: both come in one reply.
            found, etag = self._read(key, lambda reply: (reply["Body"].read(), reply["ETag"]))
        except ObjectMissing:
            return False
        if hashlib.sha256(found).hexdigest() != expected_sha256:
            return False
        return self._put_on_condition(key, data, IfMatch=etag)

    def get_bytes(self, key: str) -> bytes:
        """Read a whole object into memory."""
        return self._read(key, lambda reply: bytes(reply["Body"].read()))

    def fetch(self, ref: ObjectRef, folder: Path) -> Path:
        """Download an object once to ``folder/<sha256>``."""
        return download_once(ref, folder, lambda file: self.download(ref, file))

    def own_file(self, key: str) -> None:
        """There is none: the store is on other machines."""
        checked_key(key)

    def download(self, ref: ObjectRef, file: FileIO) -> None:
        """Write an object's bytes to a file; large ones by several requests at once."""

        def ask(wanted: str | None) -> dict[str, Any]:
            more = {} if wanted is None else {"Range": wanted}
            reply: dict[str, Any] = self._client.get_object(
                Bucket=self.bucket, Key=self._name(ref.key), **more
            )
            return reply

        pauses_s = iter(_PAUSES_S)
        while True:
            try:
                read_into(file.fileno(), ref.size_bytes, self.url_of(ref.key), ask)
                file.truncate(ref.size_bytes)
                file.seek(0)
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
                self.compare(ref, ref.size_bytes, sha256)
                return
            except ObjectCorrupt:
                # Raises where the object is so, not just what came of it.
                patiently(lambda: self.verify(ref))
                pause_s = next(pauses_s, None)
                if pause_s is None:
                    raise
            sleep_about(pause_s)

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
        return ObjectInfo(key=key, size_bytes=head["ContentLength"], sha256=sha256_of_head(head))

    def _read_sha256(self, key: str) -> str:
        return self._read(key, lambda reply: _copy(reply["Body"], len))[1]

    def _list_keys(self, prefix: str) -> Iterator[str]:
        above = f"{self.prefix}/" if self.prefix else ""
        with s3_errors(self.url, writing=False):
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self.bucket, Prefix=above + prefix
            )
            names = (entry["Key"] for page in pages for entry in page.get("Contents", []))
            # A name with '/' at its end stands for a folder: pyarrow leaves such for Ray.
            yield from (name.removeprefix(above) for name in names if not name.endswith("/"))

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
        return s3_client()

    def _name(self, key: str) -> str:
        return f"{self.prefix}/{checked_key(key)}" if self.prefix else checked_key(key)

    def _put_whole(self, ref: ObjectRef, body: bytes | BufferedReader) -> None:
        with s3_errors(self.url_of(ref.key), writing=True):
            self._put(ref, body)

    def _put_file_whole(self, ref: ObjectRef, file: BufferedReader) -> None:
        file.seek(0)
        try:
            self._put_whole(ref, file)
        except StoreUnavailable:
            file.seek(0)
            if hashlib.file_digest(file, "sha256").hexdigest() != ref.sha256:
                raise self._changed(ref) from None
            raise

    def _changed(self, ref: ObjectRef) -> StorageError:
        reason = "the file changed while it was uploaded"
        return StorageError(self.url_of(ref.key), reason, "Write the file, then upload it")

    def _put(self, ref: ObjectRef, body: bytes | BufferedReader, **condition: str) -> None:
        self._client.put_object(
            Bucket=self.bucket,
            Key=self._name(ref.key),
            Body=body,
            ContentLength=ref.size_bytes,
            ChecksumSHA256=base64_of(ref.sha256),
            **condition,
        )

    def _put_on_condition(self, key: str, data: bytes, **condition: str) -> bool:
        ref, pauses_s = ObjectRef.of(key, data), iter(_PAUSES_S)
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
            sleep_about(pause_s)  # two conditional puts met: AWS asks to come again

    def _holds(self, key: str, data: bytes) -> bool:
        try:
            return self.get_bytes(key) == data
        except ObjectMissing:
            return False

    def _put_in_parts(self, ref: ObjectRef, file: BufferedReader) -> None:
        part_bytes = max(_PART_BYTES, -(-ref.size_bytes // _MAX_PARTS))
        target = {"Bucket": self.bucket, "Key": self._name(ref.key)}

        def ask(method: str, **arguments: Any) -> dict[str, Any]:
            def call() -> dict[str, Any]:
                with s3_errors(self.url_of(ref.key), writing=True):
                    try:
                        reply: dict[str, Any] = getattr(self._client, method)(**target, **arguments)
                        return reply
                    except self._client.exceptions.NoSuchUpload:
                        # Done, and the reply to it got lost.
                        if method == "complete_multipart_upload" and self.has(ref):
                            return {}
                        raise

            return patiently(call)

        # S3 keeps no sha256 of an object in parts, only one per part: ours goes along.
        begun = ask(
            "create_multipart_upload", ChecksumAlgorithm="SHA256", Metadata={"sha256": ref.sha256}
        )
        target["UploadId"] = begun["UploadId"]
        try:
            parts, sha256 = send_parts(file, part_bytes, functools.partial(ask, "upload_part"))
            if sha256 != ref.sha256:
                raise self._changed(ref)
            ask("complete_multipart_upload", MultipartUpload={"Parts": parts})
        except BaseException:
            with suppress(Exception):
                self._client.abort_multipart_upload(**target)
            raise

    def _read(self, key: str, consume: Callable[[Any], T]) -> T:
        """Ask for an object and consume the reply, again if its body breaks off or is damaged."""
        url, pauses_s = self.url_of(key), iter(_PAUSES_S)
        while True:
            try:
                with s3_errors(url, writing=False):
                    reply = self._client.get_object(Bucket=self.bucket, Key=self._name(key))
                    with closing(reply["Body"]):
                        return consume(reply)
            except (StoreUnavailable, ObjectCorrupt):
                pause_s = next(pauses_s, None)
                if pause_s is None:
                    raise
            sleep_about(pause_s)


def _copy(body: Any, write: Callable[[bytes], object]) -> tuple[int, str]:
    """Hand a reply's body on, piece by piece; return its size in bytes and its sha256 in hex."""
    digest, size_bytes = hashlib.sha256(), 0
    for chunk in body.iter_chunks(_CHUNK_BYTES):
        write(chunk)
        digest.update(chunk)
        size_bytes += len(chunk)
    return size_bytes, digest.hexdigest()
