"""Tests of cluster/cache.py: objects brought ahead of their use."""

import multiprocessing
import os
import pickle
import time
from pathlib import Path

import pytest

from cluster.cache import NodeCache, _fetcher
from cluster.errors import ObjectMissing
from tests.cluster.cached import RemoteStore, content, kept, put, wait_until
from tests.cluster.objects import ref_to

fork = multiprocessing.get_context("fork")


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
