"""Tests of cluster/cache.py and cluster/cache_space.py."""

import multiprocessing
import os
import pickle
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cluster.cache import NodeCache, _fetcher
from cluster.cache_space import CacheSpace, limit_from_environment
from cluster.errors import NoSpaceLeft, ObjectCorrupt, ObjectMissing, StoreUnwritable
from cluster.local_store import LocalStore
from cluster.storage import ObjectRef, ObjectStore
from tests.cluster.objects import at_once, files_below, ref_to, rot, sha256

fork = multiprocessing.get_context("fork")


class RemoteStore(LocalStore):
    """A store as if on another machine: its objects must be brought; every download is noted."""

    def own_file(self, key: str) -> None:
        return None

    def download(self, ref: ObjectRef, file) -> None:
        with (self.root.parent / "downloads.txt").open("a") as log:
            log.write(f"{ref.key}\n")
        super().download(ref, file)

    @property
    def downloads(self) -> list[str]:
        log = self.root.parent / "downloads.txt"
        return log.read_text().split() if log.exists() else []


@pytest.fixture
def remote(tmp_path: Path) -> RemoteStore:
    return RemoteStore(tmp_path / "remote")


def put(store: ObjectStore, *names: str, size_bytes: int = 1000) -> list[ObjectRef]:
    return [store.put_bytes(name, (name * size_bytes)[:size_bytes].encode()) for name in names]


def content(cache: NodeCache, ref: ObjectRef) -> bytes:
    with cache.open(ref) as file:
        return file.read()


def kept(folder: Path) -> set[str]:
    return {name for name in files_below(folder) if len(name) == 64}


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


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


def test_what_was_used_longest_ago_goes_first(remote: RemoteStore, tmp_path: Path):
    first, second, third, fourth = put(remote, "a", "b", "c", "d")
    cache = NodeCache(remote, tmp_path / "cache", 3000)
    for ref in (first, second, third, first):
        content(cache, ref)
        time.sleep(0.02)
    content(cache, fourth)
    assert kept(tmp_path / "cache") == {r.sha256 for r in (first, third, fourth)}
    content(cache, second)
    assert kept(tmp_path / "cache") == {r.sha256 for r in (first, second, fourth)}
    assert remote.downloads == ["a", "b", "c", "d", "b"]


def test_an_open_file_outlives_its_eviction(remote: RemoteStore, tmp_path: Path):
    first, second = put(remote, "a", "b")
    cache = NodeCache(remote, tmp_path / "cache", 1000)
    with cache.open(first) as file:
        assert content(cache, second) == b"b" * 1000
        assert kept(tmp_path / "cache") == {second.sha256}
        assert file.read() == b"a" * 1000


def test_readers_of_a_cache_too_small_for_them_all_get_their_bytes_within_the_bound(
    remote: RemoteStore, tmp_path: Path
):
    refs = put(remote, *"abcdefgh", size_bytes=100_000)
    cache = NodeCache(remote, tmp_path / "cache", 250_000)
    largest, stop = [0], threading.Event()

    def watch() -> None:
        while not stop.is_set():
            total = 0
            for name in files_below(tmp_path / "cache"):
                try:
                    total += (tmp_path / "cache" / name).stat().st_size
                except FileNotFoundError:
                    continue
            largest[0] = max(largest[0], total)

    (tmp_path / "cache").mkdir()
    watching = threading.Thread(target=watch)
    watching.start()

    def read(number: int) -> bool:
        chosen = [refs[(number + i) % len(refs)] for i in range(16)]
        return all(sha256(content(cache, ref)) == ref.sha256 for ref in chosen)

    try:
        assert all(at_once(read, 6))
    finally:
        stop.set()
        watching.join()
    # Marks are counted too; one scan may see a name before and another after an eviction.
    assert largest[0] < 250_000 + 100_000 + 20_000
    assert sum((tmp_path / "cache" / n).stat().st_size for n in kept(tmp_path / "cache")) <= 250_000


def test_prefetching_brings_an_object_in_the_background(remote: RemoteStore, tmp_path: Path):
    refs = put(remote, "a", "b", "c")
    cache = pickle.loads(pickle.dumps(NodeCache(remote, tmp_path / "cache")))
    for number in (0, 1, 2, 0):
        cache.prefetch(refs[number])
    wait_until(lambda: len(kept(tmp_path / "cache")) == 3)
    assert content(cache, refs[1]) == b"b" * 1000
    cache.prefetch(refs[1])
    assert sorted(remote.downloads) == ["a", "b", "c"]


def test_what_went_after_it_was_prefetched_is_prefetched_again(remote: RemoteStore, tmp_path: Path):
    first, second = put(remote, "a", "b")
    cache = NodeCache(remote, tmp_path / "cache", 1000)
    cache.prefetch(first)
    wait_until(lambda: kept(tmp_path / "cache") == {first.sha256})
    content(cache, second)
    wait_until(lambda: not _fetcher(os.getpid()).known)
    cache.prefetch(first)
    wait_until(lambda: kept(tmp_path / "cache") == {first.sha256})
    assert remote.downloads == ["a", "b", "a"]


def test_finding_an_object_ahead_of_use_does_not_count_as_its_use(
    remote: RemoteStore, tmp_path: Path
):
    first, second, third = put(remote, "a", "b", "c")
    cache = NodeCache(remote, tmp_path / "cache", 2000)
    for ref in (first, second):
        content(cache, ref)
        time.sleep(0.02)
    cache.bring(first)
    content(cache, third)
    assert kept(tmp_path / "cache") == {second.sha256, third.sha256}


def test_prefetching_takes_the_place_of_what_was_used_and_not_of_what_is_awaited(
    remote: RemoteStore, tmp_path: Path
):
    used, awaited, next_one, far = put(remote, "a", "b", "c", "d")
    cache = NodeCache(remote, tmp_path / "cache", 2000)
    content(cache, used)
    cache.bring(awaited)
    assert kept(tmp_path / "cache") == {used.sha256, awaited.sha256}
    cache.bring(next_one)
    assert kept(tmp_path / "cache") == {awaited.sha256, next_one.sha256}
    cache.bring(far)
    assert kept(tmp_path / "cache") == {awaited.sha256, next_one.sha256}
    assert content(cache, far) == b"d" * 1000, "who opens an object always gets it"


def test_prefetching_says_nothing_of_errors_which_opening_finds(
    remote: RemoteStore, tmp_path: Path
):
    cache = NodeCache(remote, tmp_path / "cache")
    missing, (good,) = ref_to("k", b"x"), put(remote, "a")
    cache.prefetch(missing)
    cache.prefetch(good)
    wait_until(lambda: kept(tmp_path / "cache") == {good.sha256})
    with pytest.raises(ObjectMissing):
        cache.open(missing)


def test_a_forked_process_prefetches_by_threads_of_its_own(remote: RemoteStore, tmp_path: Path):
    first, second = put(remote, "a", "b")
    cache = NodeCache(remote, tmp_path / "cache")
    cache.prefetch(first)
    wait_until(lambda: kept(tmp_path / "cache") == {first.sha256})

    def prefetch_and_wait() -> None:
        cache.prefetch(second)
        wait_until(lambda: len(kept(tmp_path / "cache")) == 2)

    child = fork.Process(target=prefetch_and_wait)
    child.start()
    child.join(30)
    assert child.exitcode == 0


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


def test_an_object_above_the_limit_is_refused_with_the_variable(
    remote: RemoteStore, tmp_path: Path
):
    (ref,) = put(remote, "a")
    with pytest.raises(NoSpaceLeft, match=r"1000 bytes is above the limit of 999. Raise DEPTH_CA"):
        NodeCache(remote, tmp_path / "cache", 999).open(ref)


def test_on_a_full_disk_the_cache_shrinks_and_then_names_the_folder(
    remote: RemoteStore, mounted: Callable[[str], Path]
):
    folder = mounted("size=400k") / "cache"
    cache = NodeCache(remote, folder, 10_000_000)
    refs = put(remote, *"abcdef", size_bytes=100_000)
    for ref in refs:
        assert sha256(content(cache, ref)) == ref.sha256
    assert 1 <= len(kept(folder)) <= 3
    (large,) = put(remote, "g", size_bytes=500_000)
    with pytest.raises(NoSpaceLeft, match=f"^{folder}: No space left on device. Free some space"):
        cache.open(large)
    assert content(cache, refs[0]) == b"a" * 100_000


def test_without_a_limit_half_of_the_disk_is_left_free(
    remote: RemoteStore, mounted: Callable[[str], Path]
):
    folder = mounted("size=1m") / "cache"
    cache = NodeCache(remote, folder)
    for ref in put(remote, *"abcdefgh", size_bytes=100_000):
        content(cache, ref)
    assert 3 <= len(kept(folder)) <= 5
    (large,) = put(remote, "i", size_bytes=700_000)
    assert content(cache, large) == b"i" * 700_000, "it has to come, whatever the share"
    assert kept(folder) == {large.sha256}


def test_a_folder_that_cannot_be_made_is_named(remote: RemoteStore, tmp_path: Path):
    (ref,) = put(remote, "a")
    (tmp_path / "file").touch()
    with pytest.raises(StoreUnwritable, match=r"is in the way at .*file"):
        NodeCache(remote, tmp_path / "file" / "below").open(ref)


def test_freeing_says_whether_something_went(remote: RemoteStore, tmp_path: Path):
    (ref,) = put(remote, "a")
    content(NodeCache(remote, tmp_path / "cache"), ref)
    space = CacheSpace(tmp_path / "cache", None)
    assert space.free(10)
    assert not space.free(10)


@pytest.mark.parametrize(
    ("text", "expected"), [("", None), ("2", 2_000_000_000), ("0.5", 500_000_000)]
)
def test_the_limit_is_read_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, text: str, expected: int | None
):
    monkeypatch.setenv("DEPTH_CACHE_GB", text)
    assert limit_from_environment() == expected


@pytest.mark.parametrize("text", ["much", "0", "-1", "nan", "inf"])
def test_a_wrong_limit_is_named(monkeypatch: pytest.MonkeyPatch, text: str):
    monkeypatch.setenv("DEPTH_CACHE_GB", text)
    with pytest.raises(ValueError, match=f"DEPTH_CACHE_GB = '{text}': give gigabytes"):
        limit_from_environment()
