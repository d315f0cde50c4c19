"""What earlier runs left in the store: a record per stage and fingerprint, written last.

A stage's bytes are in the store before its record is, so a record that is there is whole; it is
trusted only after the objects it names have been verified.
"""

import hashlib
import json
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from cluster.errors import ObjectCorrupt, ObjectMissing
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
    """

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")

    node: str
    fingerprint: Fingerprint
    artifact: AnyArtifact
    seconds: float
    finished_at: str
    run_id: str
    mlflow_run_id: str


def artifact_digest(artifact: Any) -> str:
    """Return the digest by which the stages that follow know an artifact."""
    data = json.dumps(artifact.model_dump(mode="json"), sort_keys=True)
    return hashlib.sha256(data.encode()).hexdigest()


def find_record(store: ObjectStore, node: str, digest: str) -> StageRecord | None:
    """Return the record of a node with this fingerprint, if an earlier run left one."""
    return _load(store, f"records/{node}/{digest}.json")


def latest_record(store: ObjectStore, node: str) -> StageRecord | None:
    """Return the record that was written last for a node, to say what has changed since."""
    return _load(store, f"records/{node}/latest.json")


def publish_record(store: ObjectStore, record: StageRecord) -> None:
    """Make a stage's result known; of two drivers at once the first one's stands."""
    data = record.model_dump_json(indent=1).encode()
    key = f"records/{record.node}/{record.fingerprint.digest()}.json"
    if not store.put_bytes_if_absent(key, data) and _load(store, key) is None:
        store.put_bytes(key, data)  # what is there cannot be read
    store.put_bytes(f"records/{record.node}/latest.json", data)


def drop_record(store: ObjectStore, record: StageRecord) -> None:
    """Forget a record whose objects are damaged, so that its stage can publish anew."""
    store.delete(f"records/{record.node}/{record.fingerprint.digest()}.json")


def damage(store: ObjectStore, record: StageRecord) -> str | None:
    """Verify every object that a record's artifact names; say what is wrong, or None."""
    for ref in record.artifact.objects():
        try:
            store.verify(ref)
        except (ObjectMissing, ObjectCorrupt) as error:
            return str(error)
    return None


def _load(store: ObjectStore, key: str) -> StageRecord | None:
    try:
        return StageRecord.model_validate_json(store.get_bytes(key))
    except ObjectMissing:
        return None
    except ValidationError:  # written by another version of the project: as good as none
        return None
