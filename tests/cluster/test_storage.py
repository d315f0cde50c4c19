"""Tests of cluster/storage.py: what both back ends promise."""

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from pydantic import ValidationError

from cluster.errors import ObjectCorrupt, ObjectMissing, StoreUnwritable
from cluster.storage import ObjectInfo, ObjectRef, ObjectStore
from tests.cluster.objects import DATA, at_once, ref_to, sha256


@pytest.mark.parametrize("data", [b"", b"x", DATA], ids=["empty", "one byte", "3 MB"])
def test_what_is_put_comes_back(store: ObjectStore, tmp_path: Path, data: bytes):
    source = tmp_path / "source"
    source.write_bytes(data)
    assert store.put_bytes("a/from-bytes", data) == ref_to("a/from-bytes", data)
    assert store.put_file("a/from-file", source) == ref_to("a/from-file", data)
    for key in ("a/from-bytes", "a/from-file"):
        assert store.get_bytes(key) == data
        info = store.stat(key)
        assert info == ObjectInfo(key=key, size_bytes=len(data), sha256=info.sha256)
        assert info.sha256 in (None, sha256(data))
        store.verify(ref_to(key, data))
        assert store.fetch(ref_to(key, data), tmp_path / "downloads").read_bytes() == data
    assert source.read_bytes() == data


def test_a_second_put_takes_the_place_of_the_first(store: ObjectStore):
    store.put_bytes("k", b"first")
    store.put_bytes("k", b"second, longer")
    assert store.get_bytes("k") == b"second, longer"
    assert list(store.list_keys()) == ["k"]


def test_a_missing_object_is_named(store: ObjectStore, tmp_path: Path):
    store.put_bytes("other", b"x")
    ref = ref_to("not/there", b"x")
    calls = (
        lambda: store.get_bytes(ref.key),
        lambda: store.verify(ref),
        lambda: store.fetch(ref, tmp_path / "downloads"),
    )
    for call in calls:
        with pytest.raises(ObjectMissing, match=r"not/there: there is no such object. Run the"):
            call()
    assert store.stat("not/there") is None
    store.delete("not/there")


@pytest.mark.parametrize("spoiled", [DATA[:-1], DATA[:-1] + b"?", b""], ids=["cut", "bit", "empty"])
def test_other_bytes_are_found_by_verify_and_fetch(
    store: ObjectStore, tmp_path: Path, spoiled: bytes
):
    ref = store.put_bytes("k", DATA)
    store.put_bytes("k", spoiled)
    what = "its sha256 is .* instead of" if len(spoiled) == len(DATA) else "bytes instead of"
    with pytest.raises(ObjectCorrupt, match=what):
        store.verify(ref)
    with pytest.raises(ObjectCorrupt, match=what):
        store.fetch(ref, tmp_path / "downloads")
    assert not list((tmp_path / "downloads").glob("*"))
    assert not store.has(ref)


def test_a_put_if_absent_leaves_what_is_there(store: ObjectStore):
    assert store.put_bytes_if_absent("locks/a", b"first")
    assert not store.put_bytes_if_absent("locks/a", b"second")
    assert not store.put_bytes_if_absent("locks/a", b"first")
    assert store.get_bytes("locks/a") == b"first"
    store.delete("locks/a")
    assert store.put_bytes_if_absent("locks/a", b"third")


def test_one_of_sixteen_puts_if_absent_wins(store: ObjectStore):
    wins = at_once(lambda number: store.put_bytes_if_absent("locks/run", b"driver %d" % number))
    assert wins.count(True) == 1
    assert store.get_bytes("locks/run") == b"driver %d" % wins.index(True)


def test_a_replacement_needs_the_expected_bytes(store: ObjectStore):
    assert not store.replace_bytes("k", b"new", sha256(b"old"))
    assert store.stat("k") is None
    store.put_bytes("k", b"old")
    assert not store.replace_bytes("k", b"new", sha256(b"older"))
    assert store.get_bytes("k") == b"old"
    assert store.replace_bytes("k", b"new", sha256(b"old"))
    assert store.get_bytes("k") == b"new"
    assert not store.replace_bytes("k", b"newer", sha256(b"old"))


def test_one_of_sixteen_replacements_wins(store: ObjectStore):
    store.put_bytes("locks/run", b"dead driver")
    expected = sha256(b"dead driver")
    wins = at_once(lambda number: store.replace_bytes("locks/run", b"driver %d" % number, expected))
    assert wins.count(True) == 1
    assert store.get_bytes("locks/run") == b"driver %d" % wins.index(True)


def test_a_reader_never_sees_half_an_object(store: ObjectStore):
    first, second = bytes([1]) * 400_000, bytes([2]) * 500_000
    store.put_bytes("k", first)
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            store.put_bytes("k", second)
            store.put_bytes("k", first)

    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(write)
        seen = {store.get_bytes("k") for _ in range(40)}
        stop.set()
        writing.result()
    assert seen <= {first, second}


def test_keys_are_listed_by_how_they_begin(store: ObjectStore):
    keys = {"a/b", "a/bc", "a/b-d/e", "ab", "b/a/b"}
    for key in keys:
        store.put_bytes(key, b"x")
    for prefix in ("", "a", "a/", "a/b", "a/b-d/", "b/a/b", "none", "none/", "a/bcd"):
        listed = list(store.list_keys(prefix))
        assert len(listed) == len(set(listed))
        assert set(listed) == {key for key in keys if key.startswith(prefix)}
    store.delete("a/b")
    assert set(store.list_keys("a/b")) == {"a/bc", "a/b-d/e"}


def test_an_empty_store_lists_nothing(store: ObjectStore):
    assert list(store.list_keys()) == []
    assert list(store.list_keys("a/b")) == []


def test_a_writable_store_passes_the_check_and_keeps_nothing_of_it(store: ObjectStore):
    store.check_writable()
    assert list(store.list_keys()) == []


def test_a_store_that_forgets_what_it_is_told_fails_the_check(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
):
    def put_anyway(self: ObjectStore, key: str, data: bytes) -> bool:
        self.put_bytes(key, data)
        return True

    monkeypatch.setattr(type(store), "put_bytes_if_absent", put_anyway)
    with pytest.raises(StoreUnwritable, match="ignores If-None-Match, so locks would not exclude"):
        store.check_writable()


@pytest.mark.parametrize(
    "key",
    [
        "a" * 201,
        "a/" * 450 + "a",
        ".objectstore/lock",
        "a/.objectstore",
        "",
        "/a",
        "a/",
        "a//b",
        "../a",
        "a/../b",
        ".",
        "a/./b",
        "a\\b",
        "a b",
        "ä",
        "a\nb",
        "a?b",
    ],
)
def test_an_unsafe_key_is_refused_everywhere(store: ObjectStore, tmp_path: Path, key: str):
    calls = (
        lambda: store.put_bytes(key, b""),
        lambda: store.put_bytes_if_absent(key, b""),
        lambda: store.replace_bytes(key, b"", sha256(b"")),
        lambda: store.put_file(key, Path(__file__)),
        lambda: store.get_bytes(key),
        lambda: store.stat(key),
        lambda: store.delete(key),
        lambda: store.url_of(key),
        lambda: store.ray_location(key),
        lambda: ref_to(key, b""),
    )
    for call in calls:
        with pytest.raises(ValueError, match="is no key"):
            call()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("prefix", ["/etc/", "../", "a/../", "a//"])
def test_an_unsafe_prefix_is_refused(store: ObjectStore, prefix: str):
    with pytest.raises(ValueError, match="is no key"):
        store.list_keys(prefix)


def test_a_forked_process_uses_the_store(store: ObjectStore):
    store.put_bytes("k", b"from the parent")
    child = os.fork()
    if child == 0:
        try:
            store.put_bytes("reply", store.get_bytes("k") + b" and back")
        finally:
            os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert store.get_bytes("reply") == b"from the parent and back"


def test_what_ray_writes_there_is_in_the_store(store: ObjectStore):
    import pyarrow.fs

    path, filesystem = store.ray_location("runs/train")
    assert filesystem is None
    filesystem, path = pyarrow.fs.FileSystem.from_uri(path)  # as Ray does
    filesystem.create_dir(f"{path}/checkpoint 1")
    with filesystem.open_output_stream(f"{path}/checkpoint 1/model.pt") as stream:
        stream.write(DATA)
    assert "runs/train/checkpoint 1/model.pt" in list(store.list_keys("runs/train/"))
    with filesystem.open_output_stream(f"{path}/rank_0.pt") as stream:
        stream.write(DATA)
    store.verify(ref_to("runs/train/rank_0.pt", DATA))
    assert store.get_bytes("runs/train/rank_0.pt") == DATA


def test_a_reference_is_checked():
    good = {"key": "a", "size_bytes": 0, "sha256": "0" * 64}
    ObjectRef(**good)
    for name, value in (("key", "../a"), ("size_bytes", -1), ("sha256", "0" * 63), ("more", 1)):
        with pytest.raises(ValidationError, match=name):
            ObjectRef(**good | {name: value})
    with pytest.raises(ValidationError, match="frozen"):
        ObjectRef(**good).key = "b"


def test_importing_storage_imports_nothing_heavy():
    code = (
        "import sys, cluster.storage, cluster.local_store, cluster.s3_store\n"
        "print([m for m in ('boto3', 'botocore', 'ray', 'torch', 'mlflow', 'pyarrow', 'numpy')"
        " if m in sys.modules])"
    )
    root = Path(__file__).parents[2]
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root)
    assert shown.stdout.strip() == "[]", shown.stderr
