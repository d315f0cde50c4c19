"""What interrupted writes left in a store, outside its keys: no reader ever sees it.

In a folder these are files below ``.objectstore/incoming``; in S3 uploads in parts that were begun
and never completed, which cost as much as objects and which no listing shows. In both, the small
objects by which ``check_writable`` tries a store.
"""

import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from cluster.local_store import LocalStore
from cluster.s3_client import s3_client
from cluster.s3_errors import s3_errors
from cluster.s3_store import S3Store
from cluster.storage import PROBE_PREFIX, RESERVED_NAME, ObjectStore

SAFE_AGE_S = 24 * 3600.0
"""Seconds after which no write is taken to be still going on."""


@dataclass(frozen=True)
class Leftover:
    """A write that was begun.

    Attributes:
        name: the file below the store's folder, or the key.
        size_bytes: what it takes.
        age_s: seconds since it was begun, or last written to.
        upload_id: S3's name of an upload in parts; else empty.
    """

    name: str
    size_bytes: int
    age_s: float
    upload_id: str = ""


def find_leftovers(store: ObjectStore) -> list[Leftover]:
    """List what interrupted writes left in a store; those still going on are among it.

    Raises:
        StorageError: the store cannot be listed.
    """
    if isinstance(store, LocalStore):
        return sorted(_in_folder(store), key=lambda found: found.name)
    assert isinstance(store, S3Store)
    return sorted(_in_bucket(store), key=lambda found: found.name)


def delete_leftover(store: ObjectStore, leftover: Leftover) -> None:
    """Delete one; nothing happens if it is gone."""
    if isinstance(store, LocalStore):
        with suppress(FileNotFoundError):
            (store.root / leftover.name).unlink()
    elif leftover.upload_id:
        assert isinstance(store, S3Store)
        target = _target(store, leftover.name, leftover.upload_id)
        with s3_errors(store.url, writing=True), suppress(s3_client().exceptions.NoSuchUpload):
            s3_client().abort_multipart_upload(**target)
    else:
        store.delete(leftover.name)


def _in_folder(store: LocalStore) -> Iterator[Leftover]:
    incoming = store.root / RESERVED_NAME / "incoming"
    for path in (*incoming.glob("*"), *store.root.glob(f"{PROBE_PREFIX}*")):
        with suppress(FileNotFoundError):  # it was completed just now
            found = path.stat()
            name = path.relative_to(store.root).as_posix()
            yield Leftover(name, found.st_size, time.time() - found.st_mtime)


def _in_bucket(store: S3Store) -> Iterator[Leftover]:
    above = f"{store.prefix}/" if store.prefix else ""
    with s3_errors(store.url, writing=False):
        pages = (
            s3_client()
            .get_paginator("list_objects_v2")
            .paginate(Bucket=store.bucket, Prefix=above + PROBE_PREFIX)
        )
        for entry in (entry for page in pages for entry in page.get("Contents", [])):
            name = entry["Key"].removeprefix(above)
            yield Leftover(name, entry["Size"], time.time() - entry["LastModified"].timestamp())
        pages = (
            s3_client()
            .get_paginator("list_multipart_uploads")
            .paginate(Bucket=store.bucket, Prefix=above)
        )
        for upload in (upload for page in pages for upload in page.get("Uploads", [])):
            name, upload_id = upload["Key"].removeprefix(above), upload["UploadId"]
            size_bytes = _size_of_parts(store, name, upload_id)
            age_s = time.time() - upload["Initiated"].timestamp()
            yield Leftover(name, size_bytes, age_s, upload_id)


def _size_of_parts(store: S3Store, name: str, upload_id: str) -> int:
    with suppress(s3_client().exceptions.NoSuchUpload):  # it was completed just now
        pages = s3_client().get_paginator("list_parts").paginate(**_target(store, name, upload_id))
        return sum(part["Size"] for page in pages for part in page.get("Parts", []))
    return 0


def _target(store: S3Store, name: str, upload_id: str) -> dict[str, Any]:
    above = f"{store.prefix}/" if store.prefix else ""
    return {"Bucket": store.bucket, "Key": above + name, "UploadId": upload_id}
