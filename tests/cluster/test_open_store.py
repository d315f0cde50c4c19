"""Tests of cluster/storage.py: which store a URL opens."""

import pickle
from pathlib import Path

import pytest

from cluster.local_store import LocalStore
from cluster.s3_store import S3Store
from cluster.storage import ObjectStore, open_store
from tests.cluster.seaweedfs import SECRET_KEY


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


def test_a_store_is_a_value_that_opens_again_by_its_url(store: ObjectStore):
    store.put_bytes("a/k", b"x")
    for same in (open_store(store.url), pickle.loads(pickle.dumps(store))):
        assert same == store
        assert hash(same) == hash(store)
        assert same.get_bytes("a/k") == b"x"
    assert store.url_of("a/k") == f"{store.url}/a/k"
    assert SECRET_KEY.encode() not in pickle.dumps(store)
