"""What earlier runs left in the store: a record per stage and fingerprint, written last.

Beside the records of a stage lie two hints for plans: ``latest.json``, the record that was written
last, and ``failed.json``, how an execution last failed.

A stage's bytes are in the store before its record is, so a record that is there is whole; it is
trusted only after the objects it names have been verified.
"""

import contextlib
import hashlib
import json
import re
from collections.abc import Iterator
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
    """Return the record that was written last for a node, to say what has changed since."""
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


def unreadable_records(store: ObjectStore) -> list[str]:
    """Return the keys of records that cannot be read: of another version, or damaged."""
    return [key for key in _record_keys(store) if _load(store, key) is None]


def publish_record(
    store: ObjectStore, record: StageRecord, *, replace: bool = False
) -> StageRecord:
    """Make a stage's result known, after all its bytes.

    Args:
        store: where it goes.
        record: the result.
        replace: put it in the place of the one that is there, which is damaged or outdated by
            force.

    Returns:
        The record that stands: of two drivers at once the first one's.
    """
    data = record.model_dump_json(indent=1).encode()
    key = record_key(record.node, record.fingerprint.digest())
    # The hint for later plans first: the record itself is what makes the stage done.
    store.put_bytes(f"records/{record.node}/latest.json", data)
    if not replace and not store.put_bytes_if_absent(key, data):
        there = _load(store, key)
        if there is not None:
            return there
        replace = True  # what is there cannot be read
    if replace:
        store.put_bytes(key, data)
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
            return str(error)
    return None


def _record_keys(store: ObjectStore) -> Iterator[str]:
    hints = re.compile(r"records/[^/]+/(latest|failed)\.json")
    return (key for key in store.list_keys("records/") if not hints.fullmatch(key))


def _load(store: ObjectStore, key: str) -> StageRecord | None:
    try:
        return StageRecord.model_validate_json(store.get_bytes(key))
    except ObjectMissing:
        return None
    except ValidationError:  # written by another version of the project: as good as none
        return None
