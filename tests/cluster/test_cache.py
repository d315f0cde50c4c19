"""Tests of cluster/cache.py: opening objects, and what is checked when."""

import multiprocessing
import os
import pickle
import signal
import time
from pathlib import Path

import pytest

from cluster.cache import NodeCache
from cluster.errors import ObjectCorrupt, ObjectMissing, StoreUnwritable
from cluster.local_store import LocalStore
from cluster.storage import ObjectStore
from tests.cluster.cached import RemoteStore, content, kept, put, wait_until
from tests.cluster.objects import at_once, ref_to, rot, sha256

fork = multiprocessing.get_context("fork")


def test_both_kinds_of_store_give_the_bytes(store: ObjectStore, tmp_path: Path):
    cache = NodeCache(store, tmp_path / "cache")
    for data in (b"", b"x", os.urandom(3_000_000)):
        ref = store.put_bytes("a/k", data)
        assert content(cache, ref) == data
        assert content(cache, ref) == data


def test_a_missing_object_is_named(store: ObjectStore, tmp_path: Path):
    with pytest.raises(ObjectMissing, match="not/there: there is no such object"):
        NodeCache(store, tmp_path / "cache").open(ref_to("not/there", b"x"))
    assert kept(tmp_path / "cache") == set()


@pytest.mark.parametrize("spoiled", [b"ab", b"abX", b""], ids=["cut", "bit", "empty"])
def test_other_bytes_are_named_and_not_kept(store: ObjectStore, tmp_path: Path, spoiled: bytes):
    ref = store.put_bytes("k", b"abc")
    store.put_bytes("k", spoiled)
    cache = NodeCache(store, tmp_path / "cache")
    for _ in range(2):
        with pytest.raises(ObjectCorrupt, match="instead of"):
            cache.open(ref)
    assert kept(tmp_path / "cache") == set()
    store.put_bytes("k", b"abc")
    assert content(cache, ref) == b"abc"


def test_a_folders_own_file_is_opened_and_read_whole_just_once(
    local_store: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    ref = local_store.put_bytes("k", b"abc")
    cache = NodeCache(local_store, tmp_path / "cache")
    assert content(cache, ref) == b"abc"
    assert kept(tmp_path / "cache") == set(), "a copy was made"
    monkeypatch.setattr("hashlib.file_digest", lambda *_: pytest.fail("it was checked before"))
    again = pickle.loads(pickle.dumps(cache))
    with again.open(ref) as file:
        assert os.path.samestat(os.fstat(file.fileno()), (local_store.root / "k").stat())


def test_a_file_that_changed_since_it_was_checked_is_checked_again(
    local_store: LocalStore, tmp_path: Path
):
    ref = local_store.put_bytes("k", b"abc")
    cache = NodeCache(local_store, tmp_path / "cache")
    assert content(cache, ref) == b"abc"
    path = local_store.root / "k"
    path.write_bytes(b"abX")
    os.utime(path, ns=(1, 1))
    with pytest.raises(ObjectCorrupt, match="its sha256 is"):
        cache.open(ref)


def test_what_was_checked_before_the_machine_started_anew_is_checked_again(
    remote: RemoteStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (ref,) = put(remote, "a")
    cache = NodeCache(remote, tmp_path / "cache")
    content(cache, ref)
    monkeypatch.setattr("cluster.cache._boot", lambda: "another")
    content(cache, ref)
    content(cache, ref)
    assert remote.downloads == ["a", "a"]


def test_what_is_distrusted_is_checked_or_brought_again(
    remote: RemoteStore, local_store: LocalStore, tmp_path: Path
):
    """Bytes that change on the disk without a write leave the file's time stamps as they were."""
    (ref,) = put(remote, "a")
    brought = NodeCache(remote, tmp_path / "cache")
    content(brought, ref)
    rot(tmp_path / "cache" / ref.sha256)
    assert content(brought, ref) != b"a" * 1000, "it was checked once"
    brought.distrust(ref)
    assert content(brought, ref) == b"a" * 1000
    assert remote.downloads == ["a", "a"]
    own = NodeCache(local_store, tmp_path / "cache")
    put(local_store, "a")
    content(own, ref)
    rot(local_store.root / "a")
    own.distrust(ref)
    with pytest.raises(ObjectCorrupt, match="its sha256 is"):
        own.open(ref)


def test_many_at_once_download_once(remote: RemoteStore, tmp_path: Path):
    (ref,) = put(remote, "a", size_bytes=2_000_000)
    cache = NodeCache(remote, tmp_path / "cache")
    assert all(at_once(lambda _: sha256(content(cache, ref)) == ref.sha256))
    processes = [fork.Process(target=content, args=(cache, ref)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert remote.downloads == ["a"]
    assert kept(tmp_path / "cache") == {ref.sha256}


def test_a_process_killed_while_it_downloads_leaves_nothing_that_is_trusted_or_counted(
    remote: RemoteStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (ref,) = put(remote, "a", size_bytes=1_000_000)
    cache = NodeCache(remote, tmp_path / "cache", 1_000_000)

    def write_half_and_hang(self, ref, file) -> None:
        file.write(b"a" * 500_000)
        time.sleep(60)

    with monkeypatch.context() as patch:
        patch.setattr(RemoteStore, "download", write_half_and_hang)
        child = fork.Process(target=cache.open, args=(ref,))
        child.start()
    part = tmp_path / "cache" / f"{ref.sha256}.part"
    wait_until(lambda: part.exists() and part.stat().st_blocks > 0)
    assert part.stat().st_size == 1_000_000, "its room is not reserved"
    os.kill(child.pid, signal.SIGKILL)
    child.join()
    (other,) = put(remote, "b", size_bytes=1_000_000)
    assert content(cache, other) == b"b" * 1_000_000
    assert not part.exists()
    assert content(cache, ref) == b"a" * 1_000_000


def test_a_folder_that_cannot_be_made_is_named(remote: RemoteStore, tmp_path: Path):
    (ref,) = put(remote, "a")
    (tmp_path / "file").touch()
    with pytest.raises(StoreUnwritable, match=r"is in the way at .*file"):
        NodeCache(remote, tmp_path / "file" / "below").open(ref)
