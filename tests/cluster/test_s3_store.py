"""Tests of cluster/s3_store.py against a real S3 server: what is special there."""

import hashlib
import os
import pickle
import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cluster import s3_store as s3_store_module
from cluster import s3_transfer
from cluster.errors import (
    NoSpaceLeft,
    ObjectCorrupt,
    StorageError,
    StoreRefused,
    StoreUnavailable,
    StoreUnwritable,
)
from cluster.s3_store import S3Store
from cluster.storage import ObjectInfo, ObjectStore, open_store
from tests.cluster.faulty_proxy import READ_FAULTS, WRITE_FAULTS, Fault, FaultyProxy
from tests.cluster.objects import DATA, at_once, files_below, ref_to, sha256
from tests.cluster.seaweedfs import seaweedfs_server

pytestmark = pytest.mark.s3


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> int:
    """Objects above this many bytes go in parts; S3's own minimum for a part."""
    monkeypatch.setattr(s3_store_module, "_PART_BYTES", 5 << 20)
    return 5 << 20


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


@pytest.mark.parametrize("fault", READ_FAULTS)
def test_a_spoiled_reply_is_asked_for_again(
    s3_store: S3Store, proxy: FaultyProxy, tmp_path: Path, fault: Fault
):
    ref = s3_store.put_bytes("k", DATA)
    proxy.spoil("GET", fault)
    assert s3_store.get_bytes("k") == DATA
    proxy.spoil("GET", fault)
    assert s3_store.fetch(ref, tmp_path / "downloads").read_bytes() == DATA
    assert proxy.num_requests["GET"] == (2 if fault is Fault.SLOW_BODY else 4)


@pytest.mark.parametrize("fault", [Fault.CUT_BODY, Fault.RESET_BODY])
def test_a_body_that_breaks_off_is_asked_for_from_there(
    s3_store: S3Store,
    proxy: FaultyProxy,
    tmp_path: Path,
    fault: Fault,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(s3_transfer, "PAUSES_S", (0.01,))  # fewer than faults: what moves goes on
    ref = s3_store.put_bytes("k", DATA)
    proxy.spoil("GET", *3 * [fault])
    assert s3_store.fetch(ref, tmp_path / "downloads").read_bytes() == DATA
    starts = [int(text.removeprefix("bytes=").partition("-")[0]) for text in proxy.ranges]
    assert len(starts) == len(set(starts)) == 3
    assert starts == sorted(starts)
    assert starts[0] > 0


@pytest.mark.parametrize("fault", READ_FAULTS)
def test_a_large_object_comes_in_parts_each_of_them_again_when_spoiled(
    s3_store: S3Store,
    proxy: FaultyProxy,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    fault: Fault,
):
    monkeypatch.setattr(s3_transfer, "READ_PART_BYTES", 700_000)
    ref = s3_store.put_bytes("k", DATA)
    proxy.spoil("GET", fault, fault)
    assert s3_store.fetch(ref, tmp_path / "downloads").read_bytes() == DATA
    starts = {text.removeprefix("bytes=").partition("-")[0] for text in proxy.ranges}
    assert {"0", "700000", "1400000", "2100000", "2800000"} <= starts


@pytest.mark.parametrize(
    ("fault", "kind"), [(Fault.LOSE_REPLY, StoreUnavailable), (Fault.FLIP_BIT, ObjectCorrupt)]
)
def test_replies_spoiled_for_ever_are_an_error(
    s3_store: S3Store,
    proxy: FaultyProxy,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    fault: Fault,
    kind: type[StorageError],
):
    monkeypatch.setattr(s3_store_module, "_PAUSES_S", (0.01,))
    monkeypatch.setattr(s3_transfer, "PAUSES_S", (0.01,))
    ref = s3_store.put_bytes("k", DATA)
    requests_each = 3 if fault is Fault.LOSE_REPLY else 1  # botocore tries again by itself
    proxy.spoil("GET", *2 * requests_each * [fault])
    with pytest.raises(kind, match=ref.key):
        s3_store.fetch(ref, tmp_path / "downloads")
    assert list((tmp_path / "downloads").iterdir()) == []


def test_empty_bodies_for_ever_are_an_error_and_no_endless_loop(
    s3_store: S3Store, proxy: FaultyProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(s3_transfer, "PAUSES_S", (0.01,))
    monkeypatch.setattr(s3_transfer, "READ_PART_BYTES", 2_000_000)
    monkeypatch.setattr(s3_transfer, "NUM_PARTS_AT_ONCE", 1)
    ref = s3_store.put_bytes("k", DATA)
    proxy.spoil("GET", *2 * [Fault.EMPTY_BODY])
    with pytest.raises(StoreUnavailable, match="k: an empty body came for bytes=0-1999999"):
        s3_store.fetch(ref, tmp_path / "downloads")


def test_an_object_that_is_spoiled_in_the_store_is_asked_for_just_once(
    s3_store: S3Store, proxy: FaultyProxy, tmp_path: Path
):
    ref = s3_store.put_bytes("k", DATA)
    s3_store.put_bytes("k", DATA[::-1])
    with pytest.raises(ObjectCorrupt, match="its sha256 is"):
        s3_store.fetch(ref, tmp_path / "downloads")
    assert proxy.num_requests["GET"] == 1


@pytest.mark.parametrize("fault", WRITE_FAULTS)
@pytest.mark.parametrize("num_parts", [1, 2])
def test_a_spoiled_upload_is_made_again(
    s3_store: S3Store,
    proxy: FaultyProxy,
    tmp_path: Path,
    small_parts: int,
    fault: Fault,
    num_parts: int,
):
    data = os.urandom(num_parts * small_parts)
    (tmp_path / "file").write_bytes(data)
    proxy.spoil("PUT", fault)
    ref = s3_store.put_file("k", tmp_path / "file")
    s3_store.verify(ref)
    assert s3_store.get_bytes("k") == data
    proxy.spoil("PUT", fault)
    assert s3_store.put_bytes("small", b"abc") == ref_to("small", b"abc")
    assert s3_store.get_bytes("small") == b"abc"


@pytest.mark.parametrize("num_before", [0, 1], ids=["begin", "complete"])
@pytest.mark.parametrize("fault", [Fault.SLOW_DOWN, Fault.RESET_UPLOAD, Fault.LOSE_REPLY])
def test_an_upload_in_parts_is_begun_and_completed_again_when_that_is_spoiled(
    s3_store: S3Store,
    proxy: FaultyProxy,
    tmp_path: Path,
    small_parts: int,
    fault: Fault,
    num_before: int,
):
    data = os.urandom(small_parts + 1)
    (tmp_path / "file").write_bytes(data)
    proxy.spoil("POST", *num_before * [lambda: None], fault)
    s3_store.verify(s3_store.put_file("k", tmp_path / "file"))
    assert s3_store.get_bytes("k") == data
    assert proxy.num_requests["PUT"] == 2, "no part is sent again"


@pytest.mark.parametrize("was_completed", [True, False])
def test_an_upload_that_the_server_knows_no_more_is_done_if_its_object_is_there(
    s3_store: S3Store,
    proxy: FaultyProxy,
    tmp_path: Path,
    small_parts: int,
    monkeypatch: pytest.MonkeyPatch,
    was_completed: bool,
):
    """AWS answers so to what was completed and whose reply got lost; SeaweedFS says yes again."""
    monkeypatch.setattr(s3_transfer, "PAUSES_S", ())
    (tmp_path / "file").write_bytes(bytes(small_parts + 1))
    lost = [Fault.LOSE_REPLY] if was_completed else []
    proxy.spoil("POST", lambda: None, *lost, Fault.NO_SUCH_UPLOAD)
    if was_completed:
        s3_store.verify(s3_store.put_file("k", tmp_path / "file"))
        return
    with pytest.raises(StoreUnavailable, match="404 NoSuchUpload"):
        s3_store.put_file("k", tmp_path / "file")
    assert s3_store.stat("k") is None


def test_a_server_killed_in_the_middle_of_a_download_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Of a body that comes slowly half is there when the server dies; it starts again later."""
    with seaweedfs_server(tmp_path / "seaweedfs") as server:
        for name, value in server.environment().items():
            monkeypatch.setenv(name, value)
        store = open_store(f"s3://{server.make_bucket('tests')}/{uuid.uuid4().hex}")
        monkeypatch.setattr(s3_transfer, "READ_PART_BYTES", 500_000)
        monkeypatch.setattr(s3_transfer, "NUM_PARTS_AT_ONCE", 1)
        ref = store.put_bytes("k", DATA)
        check, asked, killed = s3_transfer._check_size, [], threading.Event()

        def kill_at_the_third(*arguments):
            asked.append(arguments)
            if len(asked) == 3:
                server.kill()
                killed.set()
            check(*arguments)

        monkeypatch.setattr(s3_transfer, "_check_size", kill_at_the_third)
        with ThreadPoolExecutor(1) as pool:
            fetching = pool.submit(store.fetch, ref, tmp_path / "downloads")
            assert killed.wait(30)
            time.sleep(3)
            assert not fetching.done()
            server.start()
            assert fetching.result().read_bytes() == DATA
        assert len(asked) >= 6


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


def test_pauses_are_cut_by_chance_so_that_not_all_come_at_once(monkeypatch: pytest.MonkeyPatch):
    slept_s: list[float] = []
    monkeypatch.setattr(time, "sleep", slept_s.append)
    for _ in range(200):
        s3_transfer.sleep_about(8.0)
    assert 4.0 <= min(slept_s) < 4.5
    assert 7.5 < max(slept_s) <= 8.0


def test_what_stands_for_a_folder_is_not_listed(s3_store: S3Store):
    s3_store.put_bytes("a/k", b"x")
    for name in (f"{s3_store.prefix}/", f"{s3_store.prefix}/a/", f"{s3_store.prefix}/empty/"):
        s3_store._client.put_object(Bucket=s3_store.bucket, Key=name, Body=b"")
    assert list(s3_store.list_keys()) == ["a/k"]
    assert list(s3_store.list_keys("a/")) == ["a/k"]


def test_a_server_without_conditional_puts_fails_the_check(s3_store: S3Store, proxy: FaultyProxy):
    proxy.spoil("PUT", Fault.NOT_IMPLEMENTED)
    with pytest.raises(StoreUnwritable, match="no conditional puts, so no locks"):
        s3_store.check_writable()


def test_a_wrong_secret_is_refused_and_not_shown(
    s3_store: S3Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    ref = s3_store.put_bytes("k", b"x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-wrong-secret")
    with pytest.raises(StoreUnwritable, match=r"403 SignatureDoesNotMatch.*AWS_SECRET"):
        s3_store.check_writable()
    for call in (
        lambda: s3_store.get_bytes("k"),
        lambda: s3_store.fetch(ref, tmp_path / "downloads"),
        lambda: s3_store.verify(ref),
        lambda: list(s3_store.list_keys()),
    ):
        with pytest.raises(StoreRefused, match=" 403 ") as caught:
            call()
        assert type(caught.value) is StoreRefused
        assert b"a-wrong-secret" not in pickle.dumps(caught.value)
        assert not caught.value.retryable


def test_missing_credentials_are_named(s3_store: S3Store, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(
        StoreUnwritable, match=r"Unable to locate credentials. Set AWS_ACCESS_KEY_ID"
    ):
        s3_store.check_writable()


def test_a_missing_bucket_is_named(s3_environment):
    with pytest.raises(StoreRefused, match=r"NoSuchBucket.* Make the bucket"):
        open_store("s3://no-such-bucket/x").get_bytes("k")


def test_a_closed_port_is_an_error_after_a_few_seconds(
    s3_store: S3Store, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    start = time.monotonic()
    with pytest.raises(
        StoreUnavailable, match=r"Could not connect.*Check that the store"
    ) as caught:
        s3_store.check_writable()
    assert time.monotonic() - start < 8
    assert caught.value.retryable


def test_an_endpoint_without_a_scheme_is_named(s3_store: S3Store, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "storage.example:9000")
    with pytest.raises(StoreUnwritable, match=r"Invalid endpoint.*Set AWS_ENDPOINT_URL to http"):
        s3_store.check_writable()


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
