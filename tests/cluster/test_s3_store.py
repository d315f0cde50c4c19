"""Tests of cluster/s3_store.py against a real S3 server: what is special there."""

import hashlib
import os
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from cluster import s3_store as s3_store_module
from cluster.errors import NoSpaceLeft, ObjectCorrupt, StorageError, StoreUnavailable
from cluster.s3_store import S3Store
from cluster.storage import ObjectInfo, ObjectStore, open_store
from tests.cluster.faulty_proxy import READ_FAULTS, Fault, FaultyProxy
from tests.cluster.objects import DATA, at_once, files_below, ref_to, sha256
from tests.cluster.seaweedfs import seaweedfs_server

pytestmark = pytest.mark.s3


def test_a_large_file_goes_in_parts(s3_store: S3Store, tmp_path: Path, small_parts: int):
    data = os.urandom(2 * small_parts + 1)
    (tmp_path / "file").write_bytes(data)
    ref = s3_store.put_file("k", tmp_path / "file")
    assert ref == ref_to("k", data)
    assert s3_store.stat("k") == ObjectInfo(key="k", size_bytes=len(data), sha256=ref.sha256)
    s3_store.verify(ref)
    assert s3_store.fetch(ref, tmp_path / "downloads").read_bytes() == data


@pytest.mark.parametrize("num_parts", [1, 2])
def test_a_file_that_changes_while_it_is_uploaded_is_not_stored(
    s3_store: S3Store,
    tmp_path: Path,
    small_parts: int,
    monkeypatch: pytest.MonkeyPatch,
    num_parts: int,
):
    path = tmp_path / "file"
    path.write_bytes(bytes(num_parts * small_parts))
    digest = hashlib.file_digest

    def digest_and_change(file, name):
        result = digest(file, name)
        with path.open("r+b") as other:
            other.write(b"changed")
        return result

    monkeypatch.setattr(s3_store_module.hashlib, "file_digest", digest_and_change)
    with pytest.raises(StorageError, match=r"changed while it was uploaded|BadDigest"):
        s3_store.put_file("k", path)
    assert s3_store.stat("k") is None
    uploads = s3_store._client.list_multipart_uploads(Bucket=s3_store.bucket)
    assert not uploads.get("Uploads")


def test_an_object_without_a_checksum_is_verified_by_reading(
    s3_store: S3Store, s3_environment, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("AWS_REQUEST_CHECKSUM_CALCULATION", "when_required")
    s3_store._client.put_object(Bucket=s3_store.bucket, Key=s3_store._name("k"), Body=DATA)
    assert s3_store.stat("k").sha256 is None
    s3_store.verify(ref_to("k", DATA))
    with pytest.raises(ObjectCorrupt, match="its sha256 is"):
        s3_store.verify(ref_to("k", DATA[::-1]))


def test_a_download_is_used_again(s3_store: S3Store, proxy: FaultyProxy, tmp_path: Path):
    ref = s3_store.put_bytes("k", DATA)
    path = s3_store.fetch(ref, tmp_path / "downloads")
    assert path == tmp_path / "downloads" / ref.sha256
    at_once(lambda _: s3_store.fetch(ref, tmp_path / "downloads") == path, 4)
    assert proxy.num_requests["GET"] == 1
    path.write_bytes(DATA[::-1])
    assert s3_store.fetch(ref, tmp_path / "downloads").read_bytes() == DATA
    assert proxy.num_requests["GET"] == 2


def test_an_object_that_is_spoiled_in_the_store_is_asked_for_just_once(
    s3_store: S3Store, proxy: FaultyProxy, tmp_path: Path
):
    ref = s3_store.put_bytes("k", DATA)
    s3_store.put_bytes("k", DATA[::-1])
    with pytest.raises(ObjectCorrupt, match="its sha256 is"):
        s3_store.fetch(ref, tmp_path / "downloads")
    assert proxy.num_requests["GET"] == 1


@pytest.mark.parametrize("fault", [Fault.LOSE_REPLY, Fault.SLOW_DOWN, Fault.CONFLICT])
def test_a_conditional_put_knows_its_own_object_after_a_lost_reply(
    s3_store: S3Store, proxy: FaultyProxy, fault: Fault
):
    proxy.spoil("PUT", fault)
    assert s3_store.put_bytes_if_absent("k", b"mine")
    proxy.spoil("PUT", fault)
    assert s3_store.replace_bytes("k", b"mine again", sha256(b"mine"))
    proxy.spoil("PUT", fault)
    assert not s3_store.put_bytes_if_absent("k", b"another's")
    assert s3_store.get_bytes("k") == b"mine again"


@pytest.mark.parametrize("fault", READ_FAULTS)
def test_a_replacement_reads_what_is_there_again_when_the_reply_was_spoiled(
    s3_store: S3Store, proxy: FaultyProxy, fault: Fault
):
    s3_store.put_bytes("k", DATA)
    proxy.spoil("GET", fault)
    assert s3_store.replace_bytes("k", b"mine", sha256(DATA))
    assert s3_store.get_bytes("k") == b"mine"


def test_what_stands_for_a_folder_is_not_listed(s3_store: S3Store):
    s3_store.put_bytes("a/k", b"x")
    for name in (f"{s3_store.prefix}/", f"{s3_store.prefix}/a/", f"{s3_store.prefix}/empty/"):
        s3_store._client.put_object(Bucket=s3_store.bucket, Key=name, Body=b"")
    assert list(s3_store.list_keys()) == ["a/k"]
    assert list(s3_store.list_keys("a/")) == ["a/k"]


def test_stored_objects_survive_the_servers_death(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with seaweedfs_server(tmp_path / "seaweedfs") as server:
        for name, value in server.environment().items():
            monkeypatch.setenv(name, value)
        store = open_store(f"s3://{server.make_bucket('tests')}/{uuid.uuid4().hex}")
        ref = store.put_bytes("k", DATA)
        server.kill()
        with pytest.raises(StoreUnavailable):
            store.get_bytes("k")
        server.start()
        store.verify(ref)
        assert store.get_bytes("k") == DATA
        process = server.process
    assert process.poll() is not None


def test_a_full_disk_for_downloads_is_named(mounted: Callable[[str], Path], s3_store: ObjectStore):
    folder = mounted("size=1m")
    ref = s3_store.put_bytes("k", DATA)
    with pytest.raises(NoSpaceLeft, match=f"^{folder}/{ref.sha256}: No space left"):
        s3_store.fetch(ref, folder)
    assert files_below(folder) == set()
