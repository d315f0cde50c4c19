"""Tests of cluster/cache_space.py: what goes when a cache is full, and its limit."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cluster import cache_space
from cluster.cache import NodeCache
from cluster.cache_space import CacheSpace, limit_from_environment
from cluster.errors import NoSpaceLeft
from tests.cluster.cached import RemoteStore, content, kept, put
from tests.cluster.objects import at_once, files_below, sha256


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


def test_an_object_that_arrives_while_another_measures_is_counted(
    remote: RemoteStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    old, arriving, new = put(remote, *"abc", size_bytes=100)
    cache = NodeCache(remote, tmp_path / "cache", 250)
    content(cache, old)
    is_there, may_arrive = threading.Event(), threading.Event()
    download, clear_if_dead = RemoteStore.download, cache_space._clear_if_dead

    def slowly(store: RemoteStore, ref, file) -> None:
        download(store, ref, file)
        if ref == arriving:
            is_there.set()
            assert may_arrive.wait(20)

    def measured(part: Path) -> bool:
        if part.stem == arriving.sha256:  # its name has been listed: now it gets another
            may_arrive.set()
            time.sleep(0.3)
        return clear_if_dead(part)

    monkeypatch.setattr(RemoteStore, "download", slowly)
    with ThreadPoolExecutor(1) as thread:
        reading = thread.submit(content, cache, arriving)
        assert is_there.wait(20)
        monkeypatch.setattr(cache_space, "_clear_if_dead", measured)
        content(cache, new)
        reading.result()
    assert kept(tmp_path / "cache") == {arriving.sha256, new.sha256}


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
