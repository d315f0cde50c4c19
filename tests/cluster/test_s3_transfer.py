"""Tests of cluster/s3_transfer.py: a real S3 server whose replies are lost, cut or spoiled."""

import os
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cluster import s3_store as s3_store_module
from cluster import s3_transfer
from cluster.errors import ObjectCorrupt, StorageError, StoreUnavailable
from cluster.s3_store import S3Store
from cluster.storage import open_store
from tests.cluster.faulty_proxy import READ_FAULTS, WRITE_FAULTS, Fault, FaultyProxy
from tests.cluster.objects import DATA, ref_to
from tests.cluster.seaweedfs import seaweedfs_server

pytestmark = pytest.mark.s3


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


def test_pauses_are_cut_by_chance_so_that_not_all_come_at_once(monkeypatch: pytest.MonkeyPatch):
    slept_s: list[float] = []
    monkeypatch.setattr(time, "sleep", slept_s.append)
    for _ in range(200):
        s3_transfer.sleep_about(8.0)
    assert 4.0 <= min(slept_s) < 4.5
    assert 7.5 < max(slept_s) <= 8.0
