"""Tests of cluster/download.py."""

import hashlib
import multiprocessing
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from cluster.download import download_once
from cluster.errors import ObjectCorrupt, StoreUnwritable
from cluster.storage import ObjectRef

DATA = bytes(range(256)) * 1000
REF = ObjectRef(key="k", size_bytes=len(DATA), sha256=hashlib.sha256(DATA).hexdigest())
fork = multiprocessing.get_context("fork")


def write_data(file):
    file.write(DATA)


def must_not_run(file):
    raise AssertionError("it is there already")


def test_a_download_happens_once_and_leaves_one_file(tmp_path):
    path = download_once(REF, tmp_path / "made" / "here", write_data)
    assert path.read_bytes() == DATA
    assert download_once(REF, path.parent, must_not_run) == path
    assert [entry.name for entry in path.parent.iterdir()] == [REF.sha256]


@pytest.mark.parametrize("spoiled", [DATA[:-1], b"\0" + DATA[1:]], ids=["cut", "flipped bit"])
def test_a_spoiled_file_is_downloaded_again(tmp_path, spoiled):
    (tmp_path / REF.sha256).write_bytes(spoiled)
    assert download_once(REF, tmp_path, write_data).read_bytes() == DATA


def test_a_failed_download_leaves_nothing(tmp_path):
    def write_others(file):
        file.write(DATA[:100])
        raise ObjectCorrupt("s3://b/k", "other bytes")

    with pytest.raises(ObjectCorrupt, match="other bytes"):
        download_once(REF, tmp_path, write_others)
    assert list(tmp_path.iterdir()) == []
    assert download_once(REF, tmp_path, write_data).read_bytes() == DATA


def test_many_at_once_download_once(tmp_path):
    calls, barrier = [], threading.Barrier(8)

    def write_slowly(file):
        calls.append(threading.get_ident())
        file.write(DATA[:1000])
        file.flush()
        time.sleep(0.2)
        file.write(DATA[1000:])

    def fetch(_):
        barrier.wait()
        return download_once(REF, tmp_path, write_slowly).read_bytes()

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(fetch, range(8))) == [DATA] * 8
    assert len(calls) == 1
    assert [entry.name for entry in tmp_path.iterdir()] == [REF.sha256]


def test_the_download_of_a_killed_process_is_done_again(tmp_path):
    began = fork.Event()

    def write_half_and_hang(file):
        file.write(DATA[: len(DATA) // 2])
        file.flush()
        began.set()
        time.sleep(60)

    process = fork.Process(target=download_once, args=(REF, tmp_path, write_half_and_hang))
    process.start()
    assert began.wait(30)
    waiting = ThreadPoolExecutor(1).submit(download_once, REF, tmp_path, write_data)
    time.sleep(0.2)
    assert not waiting.done(), "the lock of the living process was ignored"
    process.kill()
    process.join()
    assert waiting.result(30).read_bytes() == DATA
    assert [entry.name for entry in tmp_path.iterdir()] == [REF.sha256]


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StoreUnwritable, match=r"is in the way at .*file"):
        download_once(REF, tmp_path / "file" / "below", write_data)


def test_a_relative_folder_works(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = download_once(REF, tmp_path.relative_to(os.getcwd()) / "x", write_data)
    assert path.read_bytes() == DATA
