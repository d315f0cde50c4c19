"""What earlier runs left in the store: a record per stage and fingerprint, written last.

Beside the records of a stage lie two hints: ``latest.json``, the record that was written last, and
``failed.json``, how an execution last failed.

A stage's bytes are in the store before its record is, so a record that is there is whole; it is
trusted only after the objects it names have been verified.
"""

import contextlib
import hashlib
import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from cluster.errors import ClusterError, ObjectCorrupt, ObjectMissing
from cluster.storage import ObjectStore
from pipeline.fingerprint import Fingerprint
from stages.artifacts import AnyArtifact


class StageRecord(BaseModel):
    """One finished execution of a stage.

    Attributes:
        node: the node's name.
        fingerprint: what decided the result.
        artifact: the result.
        seconds: wall time of the execution.
        finished_at: ISO time, UTC.
        run_id: the pipeline run that executed it.
        mlflow_run_id: the stage's MLflow run.
        mark: tells an execution that was forced from the one that it repeats; else empty.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")

    node: str
    fingerprint: Fingerprint
    artifact: AnyArtifact
    seconds: float
    finished_at: str
    run_id: str
    mlflow_run_id: str
    mark: str = ""


class Failure(BaseModel):
    """How an execution of a stage ended that left no result.

    Attributes:
        node: the node's name.
        fingerprint: digest of what would have decided the result.
        at: ISO time, UTC.
        run_id: the pipeline run.
        reason: the error.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    node: str
    fingerprint: str
    at: str
    run_id: str
    reason: str


def artifact_digest(artifact: Any) -> str:
    """Return the digest by which the stages that follow know an artifact."""
    data = json.dumps(artifact.model_dump(mode="json"), sort_keys=True)
    return hashlib.sha256(data.encode()).hexdigest()


def find_record(store: ObjectStore, node: str, digest: str) -> StageRecord | None:
    """Return the record of a node with this fingerprint, if an earlier run left one."""
    return _load(store, record_key(node, digest))


def latest_record(store: ObjectStore, node: str) -> StageRecord | None:
    """Return the record that was written last for a node, whatever it was of."""
    return _load(store, f"records/{node}/latest.json")


def note_failure(store: ObjectStore, failure: Failure) -> None:
    """Leave a failure for later plans; a store that cannot be written now goes without."""
    with contextlib.suppress(ClusterError):
        store.put_bytes(failure_key(failure.node), failure.model_dump_json(indent=1).encode())


def last_failure(store: ObjectStore, node: str) -> Failure | None:
    """Return how a node failed last, even if it has succeeded since."""
    with contextlib.suppress(ObjectMissing, ValidationError):
        return Failure.model_validate_json(store.get_bytes(failure_key(node)))
    return None


def all_records(store: ObjectStore) -> Iterator[StageRecord]:
    """Yield every record that can be read."""
    for key in _record_keys(store):
        if (record := _load(store, key)) is not None:
            yield record


def node_records(store: ObjectStore, node: str) -> list[StageRecord]:
    """Return every record of a node that can be read, several at a time."""
    keys = list(_record_keys(store, f"records/{node}/"))
    with ThreadPoolExecutor(min(16, len(keys) or 1)) as pool:  # a store elsewhere takes its time
        found = list(pool.map(partial(_load, store), keys))
    return [record for record in found if record is not None]


def unreadable_records(store: ObjectStore) -> list[str]:
    """Return the keys of records that cannot be read: of another version, or damaged."""
    return [key for key in _record_keys(store) if _load(store, key) is None]


def publish_record(
    store: ObjectStore, record: StageRecord, *, instead_of: StageRecord | None = None
) -> StageRecord:
    """Make a stage's result known, after all its bytes.

    Args:
        store: where it goes.
        record: the result.
        instead_of: the record that it replaces, which is damaged or outdated by force. One that
            came there in the meantime is not replaced.

    Returns:
        The record that stands: of two drivers at once the first one's.
    """
    data = record.model_dump_json(indent=1).encode()
    key = record_key(record.node, record.fingerprint.digest())
    # The hint first: the record itself is what makes the stage done.
    store.put_bytes(f"records/{record.node}/latest.json", data)
    while True:
        there = _bytes(store, key)
        known = None if there is None else _parse(there)
        if known is not None and (instead_of is None or not _same(known, instead_of)):
            return known
        if there is None:
            is_written = store.put_bytes_if_absent(key, data)
        else:  # what was looked at, and nothing that came after it
            is_written = store.replace_bytes(key, data, hashlib.sha256(there).hexdigest())
        if is_written:
            return record


def record_key(node: str, digest: str) -> str:
    """Return where a node's record of a fingerprint lies."""
    return f"records/{node}/{digest}.json"


def failure_key(node: str) -> str:
    """Return where a node's last failure lies."""
    return f"records/{node}/failed.json"


def damage(store: ObjectStore, record: StageRecord) -> str | None:
    """Verify every object that a record's artifact names; say what is wrong, or None."""
    for ref in record.artifact.objects():
        try:
            store.verify(ref)
        except (ObjectMissing, ObjectCorrupt) as error:
            return f"{error.url}: {error.reason}"  # no advice: its stage is what makes it anew
    return None


def _record_keys(store: ObjectStore, prefix: str = "records/") -> Iterator[str]:
    # Whatever is no hint may be a record, also one that another version of the project named.
    hints = re.compile(r"records/[^/]+/(latest|failed)\.json")
    return (key for key in store.list_keys(prefix) if not hints.fullmatch(key))


def _load(store: ObjectStore, key: str) -> StageRecord | None:
    data = _bytes(store, key)
    return None if data is None else _parse(data)


def _bytes(store: ObjectStore, key: str) -> bytes | None:
    try:
        return store.get_bytes(key)
    except ObjectMissing:
        return None


def _parse(data: bytes) -> StageRecord | None:
    try:
        return StageRecord.model_validate_json(data)
    except ValidationError:  # written by another version of the project: as good as none
        return None


def _same(one: StageRecord, other: StageRecord) -> bool:
    return one.model_dump_json() == other.model_dump_json()  # a figure may be no number
