"""Many bytes from and to S3: in parts side by side, again where a server or a line was lost.

botocore tries each request three times within a few seconds. That is right for a lock or a small
file, too little for data: a server that starts again takes half a minute, and hours of reading and
writing depend on it. What is here goes on for about a minute, with growing pauses.
"""

import base64
import hashlib
import os
import random
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from io import BufferedReader
from typing import Any, TypeVar

from cluster.errors import ObjectCorrupt, StorageError, StoreUnavailable
from cluster.s3_errors import s3_errors

READ_PART_BYTES = 16 << 20
NUM_PARTS_AT_ONCE = 4
PAUSES_S = (0.3, 1.0, 3.0, 8.0, 15.0, 30.0)
"""Before an attempt more; the seconds are cut by chance, so that not all come at once."""
_CHUNK_BYTES = 128 << 10  # what a reset connection loses of a body that came

T = TypeVar("T")


def patiently(call: Callable[[], T]) -> T:
    """Call, and call again while the error is one that passes by itself.

    Raises:
        StorageError: The last attempt's, or one that another attempt would not cure.
    """
    for pause_s in PAUSES_S:
        try:
            return call()
        except StorageError as error:
            if not error.retryable:
                raise
        sleep_about(pause_s)
    return call()


def sleep_about(pause_s: float) -> None:
    """Sleep for half of the time to all of it."""
    time.sleep(pause_s * random.uniform(0.5, 1.0))


def read_into(
    descriptor: int, size_bytes: int, url: str, ask: Callable[[str | None], dict[str, Any]]
) -> None:
    """Write an object's bytes to a file, large ones by several requests at once.

    A body that breaks off is asked for again from where it broke. The bytes are not checked.

    Args:
        descriptor: Of the file; they go to its beginning.
        size_bytes: How many there must be.
        url: The object, for errors.
        ask: Gives the reply to GET with this ``Range``, None for the whole object.

    Raises:
        StorageError: The bytes did not come; ObjectCorrupt if they are not so many.
    """
    starts = range(0, size_bytes, READ_PART_BYTES)
    ranges = [(start, min(start + READ_PART_BYTES, size_bytes)) for start in starts]

    def read(part: tuple[int, int]) -> None:
        _read_range(descriptor, *part, size_bytes, url, ask)

    if len(ranges) < 2:
        read((0, size_bytes))
        return
    with ThreadPoolExecutor(min(NUM_PARTS_AT_ONCE, len(ranges))) as pool:
        running = [pool.submit(read, part) for part in ranges]
        try:
            for future in running:
                future.result()
        except BaseException:
            for future in running:
                future.cancel()
            raise


def _read_range(
    descriptor: int,
    start: int,
    end: int,
    size_bytes: int,
    url: str,
    ask: Callable[[str | None], dict[str, Any]],
) -> None:
    pauses_s = iter(PAUSES_S)
    at, is_first = start, True
    while is_first or at < end:
        is_first, before = False, at
        wanted = None if (at, end) == (0, size_bytes) else f"bytes={at}-{end - 1}"
        try:
            with s3_errors(url, writing=False):
                reply = ask(wanted)
                _check_size(reply, size_bytes, url)
                for chunk in _chunks(reply["Body"]):
                    _write_all(descriptor, chunk, at)
                    at += len(chunk)
                if at == before < end:  # nothing moves, so the pauses count
                    raise StoreUnavailable(url, f"an empty body came for {wanted}")
        except StoreUnavailable:
            if at > before:  # it moves, if slowly
                pauses_s = iter(PAUSES_S)
            pause_s = next(pauses_s, None)
            if pause_s is None:
                raise
            sleep_about(pause_s)


def _chunks(body: Any) -> Iterator[bytes]:
    with closing(body):
        yield from body.iter_chunks(_CHUNK_BYTES)


def _write_all(descriptor: int, data: bytes, at: int) -> None:
    view = memoryview(data)
    while view:
        count = os.pwrite(descriptor, view, at)
        view, at = view[count:], at + count


def _check_size(reply: dict[str, Any], size_bytes: int, url: str) -> None:
    total = reply.get("ContentRange", "").rpartition("/")[2] or reply["ContentLength"]
    if int(total) != size_bytes:
        raise ObjectCorrupt(url, f"it has {total} bytes instead of {size_bytes}")


def send_parts(
    file: BufferedReader, part_bytes: int, send: Callable[..., dict[str, Any]]
) -> tuple[list[dict[str, Any]], str]:
    """Send a file in parts, each with its sha256, one after another.

    Args:
        file: the file; it is read from its beginning.
        part_bytes: how long a part is, and how much is in memory.
        send: uploads one part, patiently.

    Returns:
        What completes the upload; the sha256 in hex of all that was sent.
    """
    digest = hashlib.sha256()
    parts: list[dict[str, Any]] = []
    file.seek(0)
    while data := file.read(part_bytes):
        digest.update(data)
        checksum, number = base64_of(hashlib.sha256(data).hexdigest()), len(parts) + 1
        reply = send(PartNumber=number, Body=data, ChecksumSHA256=checksum)
        parts.append({"PartNumber": number, "ETag": reply["ETag"], "ChecksumSHA256": checksum})
    return parts, digest.hexdigest()


def base64_of(sha256: str) -> str:
    """Write a digest as S3's headers have it."""
    return base64.b64encode(bytes.fromhex(sha256)).decode()


def sha256_of_head(head: dict[str, Any]) -> str | None:
    """Digest of the whole object in hex, where the reply to HEAD tells it."""
    checksum: str = head.get("ChecksumSHA256", "")
    if "-" in checksum:  # of the parts' checksums: ours went along
        known: str | None = head.get("Metadata", {}).get("sha256")
        return known
    return base64.b64decode(checksum).hex() or None
