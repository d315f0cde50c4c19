"""A split's manifest: the JSON object that lists its shards; its digest is the split's version."""

import hashlib
import json
from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from cluster.s3_transfer import patiently
from cluster.storage import ObjectRef, ObjectStore
from stages.artifacts import ShardSplit

FORMAT: Literal["depth-shards/2"] = "depth-shards/2"


class ShardEntry(ObjectRef):
    """A shard: its tar, the index of the tar, and how many samples are in both."""

    index: ObjectRef = Field(description="where each sample lies in the tar")
    num_samples: int = Field(ge=1, description="samples in the tar")


class Manifest(BaseModel):
    """What a split consists of, see docs/shard_format.md."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["depth-shards/2"] = FORMAT
    split: str = Field(description="train, val or test")
    min_depth_m: float = Field(description="nearest depth a network is asked for, metres")
    max_depth_m: float = Field(description="farthest depth a network is asked for, metres")
    num_samples: int = Field(description="samples in all shards")
    shards: tuple[ShardEntry, ...] = Field(description="the shards, in order")

    def to_bytes(self) -> bytes:
        """Return it as JSON; equal manifests give equal bytes."""
        return json.dumps(self.model_dump(mode="json"), indent=1, sort_keys=True).encode()


def make_manifest(
    split: str, depth_range_m: tuple[float, float], shards: Sequence[ShardEntry]
) -> Manifest:
    """Make the manifest of a split.

    Args:
        split: its name.
        depth_range_m: nearest and farthest depth that a network is asked for.
        shards: its shards, in order.
    """
    return Manifest(
        split=split,
        min_depth_m=depth_range_m[0],
        max_depth_m=depth_range_m[1],
        num_samples=sum(shard.num_samples for shard in shards),
        shards=tuple(shards),
    )


def publish_manifest(store: ObjectStore, manifest: Manifest) -> ShardSplit:
    """Write a split's manifest, after all its shards; one that is there, whole, is left alone."""
    data = manifest.to_bytes()
    digest = hashlib.sha256(data).hexdigest()
    ref = ObjectRef(
        key=f"manifests/{manifest.split}-{digest[:16]}.json", size_bytes=len(data), sha256=digest
    )
    if not patiently(lambda: store.has(ref)) and not store.put_bytes_if_absent(ref.key, data):
        store.put_bytes(ref.key, data)  # in the place of a damaged one
    return ShardSplit(
        manifest=ref,
        shards=tuple(
            ObjectRef(key=s.key, size_bytes=s.size_bytes, sha256=s.sha256) for s in manifest.shards
        ),
        indexes=tuple(s.index for s in manifest.shards),
        num_samples_per_shard=tuple(s.num_samples for s in manifest.shards),
    )


def entries_of(split: ShardSplit) -> tuple[ShardEntry, ...]:
    """Return the manifest's shards as a ShardSet knows them."""
    columns = zip(split.shards, split.indexes, split.num_samples_per_shard, strict=True)
    return tuple(
        ShardEntry(**tar.model_dump(), index=index, num_samples=count)
        for tar, index, count in columns
    )
