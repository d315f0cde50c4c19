"""Tests of stages/manifest.py."""

import hashlib
import json
import os
from pathlib import Path

import pytest
from pydantic import ValidationError

from cluster.local_store import LocalStore
from cluster.storage import ObjectRef
from stages.manifest import Manifest, ShardEntry, entries_of, make_manifest, publish_manifest


def entry(digit: str, num_samples: int) -> ShardEntry:
    index = ObjectRef(key=f"shards/{digit}.json", size_bytes=2, sha256="f" * 64)
    return ShardEntry(
        key=f"shards/{digit}.tar",
        size_bytes=3,
        sha256=digit * 64,
        index=index,
        num_samples=num_samples,
    )


SHARDS = [entry("a", 4), entry("b", 3)]


def test_a_published_manifest_is_named_by_its_digest_and_says_all(tmp_path: Path):
    store = LocalStore(tmp_path)
    split = publish_manifest(store, make_manifest("val", (0.5, 10.0), SHARDS))
    data = store.get_bytes(split.manifest.key)
    digest = hashlib.sha256(data).hexdigest()
    assert split.manifest.sha256 == digest
    assert split.manifest.key == f"manifests/val-{digest[:16]}.json"
    content = json.loads(data)
    assert content["format"] == "depth-shards/2"
    assert (content["min_depth_m"], content["max_depth_m"]) == (0.5, 10.0)
    assert content["num_samples"] == split.num_samples == 7
    assert [s["num_samples"] for s in content["shards"]] == [4, 3]
    assert content["shards"][0]["index"]["key"] == "shards/a.json"
    assert entries_of(split) == tuple(SHARDS)
    assert Manifest.model_validate_json(data).to_bytes() == data


def test_a_manifest_that_is_there_is_not_written_again(tmp_path: Path):
    store, manifest = LocalStore(tmp_path), make_manifest("val", (0.5, 10.0), SHARDS)
    split = publish_manifest(store, manifest)
    before = (tmp_path / split.manifest.key).stat()
    assert publish_manifest(store, manifest) == split
    assert os.path.samestat((tmp_path / split.manifest.key).stat(), before)


def test_a_damaged_manifest_is_written_again(tmp_path: Path):
    store, manifest = LocalStore(tmp_path), make_manifest("val", (0.5, 10.0), SHARDS)
    split = publish_manifest(store, manifest)
    store.put_bytes(split.manifest.key, b"{}")
    assert publish_manifest(store, manifest) == split
    assert store.has(split.manifest)


def test_a_manifest_of_another_version_is_refused():
    content = make_manifest("val", (0.5, 10.0), SHARDS).model_dump(mode="json")
    with pytest.raises(ValidationError, match="depth-shards/2"):
        Manifest.model_validate({**content, "format": "depth-shards/1"})
