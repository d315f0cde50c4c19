"""Tests of cluster/storage.py, for both of its back ends, and of what is special in each."""

import errno
import hashlib
import os
import pickle
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from pydantic import ValidationError

from cluster import local_store as local_store_module
from cluster import s3_store as s3_store_module
from cluster.errors import (
    NoSpaceLeft,
    ObjectCorrupt,
    ObjectMissing,
    StorageError,
    StoreRefused,
    StoreUnavailable,
    StoreUnwritable,
)
from cluster.local_store import LocalStore
from cluster.s3_store import S3Store
from cluster.storage import ObjectInfo, ObjectRef, ObjectStore, open_store
from tests.cluster.faulty_proxy import Fault, FaultyProxy
from tests.cluster.seaweedfs import SECRET_KEY

DATA = os.urandom(3_000_000)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def ref_to(key: str, data: bytes) -> ObjectRef:
    return ObjectRef(key=key, size_bytes=len(data), sha256=sha256(data))


def at_once(call: Callable[[int], bool], count: int = 16) -> list[bool]:
    """Call with 0, 1, ... from as many threads, all let go at the same moment."""
    barrier = threading.Barrier(count)

    def wait_and_call(number: int) -> bool:
        barrier.wait()
        return call(number)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(wait_and_call, range(count)))


# ------------------------------------------------------------------ both back ends


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


def test_a_store_is_a_value_that_opens_again_by_its_url(store: ObjectStore):
    store.put_bytes("a/k", b"x")
    for same in (open_store(store.url), pickle.loads(pickle.dumps(store))):
        assert same == store
        assert hash(same) == hash(store)
        assert same.get_bytes("a/k") == b"x"
    assert store.url_of("a/k") == f"{store.url}/a/k"
    assert SECRET_KEY.encode() not in pickle.dumps(store)


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


# ------------------------------------------------------------------ a folder


def files_below(folder: Path) -> set[str]:
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}


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


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mount a tmpfs with options; skips where that is not allowed (it takes root)."""
    folders: list[Path] = []

    def mount(options: str) -> Path:
        folder = tmp_path / f"mount-{len(folders)}"
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        try:
            subprocess.run(command, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            pytest.skip("mounting a tmpfs is not allowed here")
        folders.append(folder)
        return folder

    yield mount
    for folder in folders:
        subprocess.run(["umount", str(folder)], check=True)


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


@pytest.mark.s3
def test_a_full_disk_for_downloads_is_named(mounted: Callable[[str], Path], s3_store: ObjectStore):
    folder = mounted("size=1m")
    ref = s3_store.put_bytes("k", DATA)
    with pytest.raises(NoSpaceLeft, match=f"^{folder}/{ref.sha256}: No space left"):
        s3_store.fetch(ref, folder)
    assert files_below(folder) == set()


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


# ------------------------------------------------------------------ S3


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> int:
    """Objects above this many bytes go in parts; S3's own minimum for a part."""
    monkeypatch.setattr(s3_store_module, "_PART_BYTES", 5 << 20)
    return 5 << 20


@pytest.mark.s3
def test_a_large_file_goes_in_parts(s3_store: S3Store, tmp_path: Path, small_parts: int):
    data = os.urandom(2 * small_parts + 1)
    (tmp_path / "file").write_bytes(data)
    ref = s3_store.put_file("k", tmp_path / "file")
    assert ref == ref_to("k", data)
    assert s3_store.stat("k") == ObjectInfo(key="k", size_bytes=len(data), sha256=ref.sha256)
    s3_store.verify(ref)
    assert s3_store.fetch(ref, tmp_path / "downloads").read_bytes() == data


@pytest.mark.s3
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


@pytest.mark.s3
def test_an_object_without_a_checksum_is_verified_by_reading(
    s3_store: S3Store, s3_environment, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("AWS_REQUEST_CHECKSUM_CALCULATION", "when_required")
    s3_store._client.put_object(Bucket=s3_store.bucket, Key=s3_store._name("k"), Body=DATA)
    assert s3_store.stat("k").sha256 is None
    s3_store.verify(ref_to("k", DATA))
    with pytest.raises(ObjectCorrupt, match="its sha256 is"):
        s3_store.verify(ref_to("k", DATA[::-1]))


@pytest.mark.s3
def test_a_download_is_used_again(s3_store: S3Store, proxy: FaultyProxy, tmp_path: Path):
    ref = s3_store.put_bytes("k", DATA)
    path = s3_store.fetch(ref, tmp_path / "downloads")
    assert path == tmp_path / "downloads" / ref.sha256
    at_once(lambda _: s3_store.fetch(ref, tmp_path / "downloads") == path, 4)
    assert proxy.num_requests["GET"] == 1
    path.write_bytes(DATA[::-1])
    assert s3_store.fetch(ref, tmp_path / "downloads").read_bytes() == DATA
    assert proxy.num_requests["GET"] == 2


@pytest.mark.s3
@pytest.mark.parametrize(
    "fault", [Fault.CUT_BODY, Fault.FLIP_BIT, Fault.LOSE_REPLY, Fault.SLOW_DOWN]
)
def test_a_spoiled_reply_is_asked_for_again(
    s3_store: S3Store, proxy: FaultyProxy, tmp_path: Path, fault: Fault
):
    ref = s3_store.put_bytes("k", DATA)
    proxy.spoil("GET", fault)
    assert s3_store.get_bytes("k") == DATA
    proxy.spoil("GET", fault)
    assert s3_store.fetch(ref, tmp_path / "downloads").read_bytes() == DATA
    assert proxy.num_requests["GET"] == 4


@pytest.mark.s3
@pytest.mark.parametrize(
    ("fault", "kind"), [(Fault.CUT_BODY, StoreUnavailable), (Fault.FLIP_BIT, ObjectCorrupt)]
)
def test_replies_spoiled_for_ever_are_an_error(
    s3_store: S3Store,
    proxy: FaultyProxy,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    fault: Fault,
    kind: type[StorageError],
):
    monkeypatch.setattr(s3_store_module, "_PAUSES_S", (0.01, 0.01))
    ref = s3_store.put_bytes("k", DATA)
    proxy.spoil("GET", *3 * [fault])
    with pytest.raises(kind, match=ref.key):
        s3_store.fetch(ref, tmp_path / "downloads")
    assert list((tmp_path / "downloads").iterdir()) == []


@pytest.mark.s3
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


@pytest.mark.s3
def test_an_upload_survives_lost_replies(
    s3_store: S3Store, proxy: FaultyProxy, tmp_path: Path, small_parts: int
):
    (tmp_path / "file").write_bytes(bytes(small_parts + 1))
    for fault in (Fault.LOSE_REPLY, Fault.SLOW_DOWN):
        proxy.spoil("PUT", fault)
        s3_store.verify(s3_store.put_file("k", tmp_path / "file"))


@pytest.mark.s3
def test_a_server_without_conditional_puts_fails_the_check(s3_store: S3Store, proxy: FaultyProxy):
    proxy.spoil("PUT", Fault.NOT_IMPLEMENTED)
    with pytest.raises(StoreUnwritable, match="no conditional puts, so no locks"):
        s3_store.check_writable()


@pytest.mark.s3
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


@pytest.mark.s3
def test_missing_credentials_are_named(s3_store: S3Store, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(
        StoreUnwritable, match=r"Unable to locate credentials. Set AWS_ACCESS_KEY_ID"
    ):
        s3_store.check_writable()


@pytest.mark.s3
def test_a_missing_bucket_is_named(s3_environment):
    with pytest.raises(StoreRefused, match=r"NoSuchBucket.* Make the bucket"):
        open_store("s3://no-such-bucket/x").get_bytes("k")


@pytest.mark.s3
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


@pytest.mark.s3
def test_an_endpoint_without_a_scheme_is_named(s3_store: S3Store, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "storage.example:9000")
    with pytest.raises(StoreUnwritable, match=r"Invalid endpoint.*Set AWS_ENDPOINT_URL to http"):
        s3_store.check_writable()


@pytest.mark.s3
def test_stored_objects_survive_the_servers_death(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from tests.cluster.seaweedfs import seaweedfs_server

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


# ------------------------------------------------------------------ opening


def test_a_path_opens_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert open_store("runs/x") == LocalStore(tmp_path / "runs" / "x")
    assert open_store("./runs/../x/") == LocalStore(tmp_path / "x")
    assert open_store("~/x") == LocalStore(tmp_path / "home" / "x")
    assert open_store(f"file://{tmp_path}/a%20b") == LocalStore(tmp_path / "a b")
    assert open_store(f"file://localhost{tmp_path}") == LocalStore(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_s3_url_opens_a_bucket():
    assert open_store("s3://bucket") == open_store("s3://bucket/") == S3Store("bucket")
    assert open_store("s3://my.bucket-1/a/b/") == S3Store("my.bucket-1", "a/b")
    assert open_store("s3://bucket").url == "s3://bucket"
    assert open_store("s3://bucket/a/b/").url == "s3://bucket/a/b"


@pytest.mark.parametrize(
    ("url", "what"),
    [
        ("", "is no store URL: valid is a path, file:///path or s3://bucket/prefix"),
        ("gs://bucket/x", "'gs://bucket/x' is no store URL: valid is a path, file:///path or s3:"),
        ("s3:/bucket/x", "names no bucket"),
        ("s3:///x", "names no bucket"),
        ("s3://Bucket/x", "names no bucket"),
        ("s3://bucket/a/../b", "is no key"),
        ("file://host/x", "is no store URL"),
        ("s3://key:hidden@bucket/x", "holds no credentials"),
        ("s3://bucket/x?secret=hidden", "holds no credentials and no options"),
    ],
)
def test_a_wrong_url_is_refused(url: str, what: str):
    with pytest.raises(ValueError, match=what) as caught:
        open_store(url)
    assert "hidden" not in str(caught.value)


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
