"""Tests of cluster/local_store.py: what is special in a folder."""

import errno
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cluster import local_store as local_store_module
from cluster.errors import (
    NoSpaceLeft,
    ObjectMissing,
    StorageError,
    StoreUnwritable,
)
from cluster.local_store import LocalStore
from cluster.storage import open_store
from tests.cluster.objects import DATA, at_once, files_below, sha256


def test_reading_makes_no_folder(local_store: LocalStore):
    assert local_store.stat("k") is None
    local_store.delete("k")
    assert not local_store.replace_bytes("k", b"", sha256(b""))
    assert list(local_store.list_keys()) == []
    assert not local_store.root.exists()
    local_store.put_bytes("k", b"x")
    assert local_store.root.is_dir()


def test_a_local_fetch_gives_the_stores_own_file(local_store: LocalStore, tmp_path: Path):
    ref = local_store.put_bytes("a/k", b"x")
    assert local_store.fetch(ref, tmp_path / "downloads") == local_store.root / "a/k"
    assert not (tmp_path / "downloads").exists()


def test_nothing_comes_between_the_comparison_and_the_swap(
    local_store: LocalStore, monkeypatch: pytest.MonkeyPatch
):
    digest = local_store_module._sha256_of

    def digest_slowly(path: Path) -> str:
        result = digest(path)
        time.sleep(0.05)
        return result

    monkeypatch.setattr(local_store_module, "_sha256_of", digest_slowly)
    local_store.put_bytes("k", b"old")
    wins = at_once(lambda n: local_store.replace_bytes("k", b"%d" % n, sha256(b"old")), 4)
    assert wins.count(True) == 1
    assert local_store.get_bytes("k") == b"%d" % wins.index(True)
    for change in (lambda: local_store.put_bytes("k", b"last"), lambda: local_store.delete("k")):
        local_store.put_bytes("k", b"old")
        with ThreadPoolExecutor(1) as pool:
            swap = pool.submit(local_store.replace_bytes, "k", b"new", sha256(b"old"))
            time.sleep(0.02)
            change()
            swap.result()
        assert local_store.stat("k") is None or local_store.get_bytes("k") == b"last"


def test_files_get_the_rights_of_the_umask(local_store: LocalStore):
    before = os.umask(0o022)
    try:
        local_store.put_bytes("k", b"x")
    finally:
        os.umask(before)
    assert (local_store.root / "k").stat().st_mode & 0o777 == 0o644


def test_what_a_killed_writer_leaves_is_not_listed(local_store: LocalStore):
    local_store.put_bytes("k", b"x")
    child = os.fork()
    if child == 0:
        with local_store._incoming("k", open(__file__, "rb")):
            os._exit(9)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert len(files_below(local_store.root / ".objectstore" / "incoming")) == 1
    assert list(local_store.list_keys()) == ["k"]
    assert local_store.get_bytes("k") == b"x"


def test_a_store_below_a_file_cannot_be_written(tmp_path: Path):
    (tmp_path / "file").write_text("no folder")
    for url in (tmp_path / "file", tmp_path / "file" / "below"):
        store = open_store(str(url))
        for call in (
            store.check_writable,
            lambda store=store: store.put_bytes("a/k", b"x"),
            lambda store=store: store.put_file("a/k", Path(__file__)),
        ):
            with pytest.raises(StoreUnwritable, match=f"in the way at {tmp_path}/file.*Give this"):
                call()
        with pytest.raises(ObjectMissing):
            store.get_bytes("a/k")
        assert store.stat("a/k") is None
        assert list(store.list_keys()) == []


def test_a_key_cannot_be_a_file_and_a_folder(local_store: LocalStore):
    local_store.put_bytes("a", b"x")
    with pytest.raises(StoreUnwritable, match="in the way"):
        local_store.put_bytes("a/b", b"x")
    local_store.put_bytes("c/d", b"x")
    with pytest.raises(StoreUnwritable, match="in the way"):
        local_store.put_bytes("c", b"x")
    with pytest.raises(StoreUnwritable, match="in the way"):
        local_store.put_bytes_if_absent("c", b"x")
    with pytest.raises(ObjectMissing):
        local_store.get_bytes("c")


def test_a_full_disk_leaves_the_old_object(mounted: Callable[[str], Path]):
    store = open_store(str(mounted("size=1m")))
    store.put_bytes("k", b"old")
    with pytest.raises(NoSpaceLeft, match=r"k: No space left on device. Free some space"):
        store.put_bytes("k", DATA)
    with pytest.raises(NoSpaceLeft):
        store.put_bytes_if_absent("new", DATA)
    assert store.get_bytes("k") == b"old"
    assert list(store.list_keys()) == ["k"]
    assert files_below(Path(store.root)) == {"k", ".objectstore/lock"}
    store.put_bytes("k", b"the space is free again")


def test_a_read_only_disk_cannot_be_written(mounted: Callable[[str], Path]):
    store = open_store(str(mounted("ro")))
    with pytest.raises(StoreUnwritable, match=r"Read-only file system. Give this user"):
        store.check_writable()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_a_disk_that_fails_at_the_last_moment_leaves_the_old_object(
    local_store: LocalStore, monkeypatch: pytest.MonkeyPatch, number: int
):
    local_store.put_bytes("k", b"old")

    def fail(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(local_store_module.os, "fsync", fail)
    with pytest.raises(NoSpaceLeft if number == errno.ENOSPC else StorageError):
        local_store.put_bytes("k", b"new")
    assert local_store.get_bytes("k") == b"old"
    assert files_below(local_store.root) == {"k", ".objectstore/lock"}


def test_a_disk_without_hard_links_fails_the_check(
    local_store: LocalStore, monkeypatch: pytest.MonkeyPatch
):
    def refuse(source: Path, target: Path) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(local_store_module.os, "link", refuse)
    with pytest.raises(StoreUnwritable, match=r"no hard links .* Choose another folder"):
        local_store.check_writable()
