"""What a real S3 server, or none, answers to wrong settings, and what is said of it."""

import pickle
from pathlib import Path

import pytest

from cluster.errors import StoreRefused, StoreUnavailable, StoreUnwritable
from cluster.s3_store import S3Store
from cluster.storage import open_store
from tests.cluster.faulty_proxy import Fault, FaultyProxy

pytestmark = pytest.mark.s3


def test_a_server_without_conditional_puts_fails_the_check(s3_store: S3Store, proxy: FaultyProxy):
    proxy.spoil("PUT", Fault.NOT_IMPLEMENTED)
    with pytest.raises(StoreUnwritable, match="no conditional puts, so no locks"):
        s3_store.check_writable()


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


def test_missing_credentials_are_named(s3_store: S3Store, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(
        StoreUnwritable, match=r"Unable to locate credentials. Set AWS_ACCESS_KEY_ID"
    ):
        s3_store.check_writable()


def test_a_missing_bucket_is_named(s3_environment):
    with pytest.raises(StoreRefused, match=r"NoSuchBucket.* Make the bucket"):
        open_store("s3://no-such-bucket/x").get_bytes("k")


def test_a_closed_port_is_an_error_that_may_pass(
    s3_store: S3Store, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    with pytest.raises(
        StoreUnavailable, match=r"Could not connect.*Check that the store"
    ) as caught:
        s3_store.check_writable()
    assert caught.value.retryable


def test_an_endpoint_without_a_scheme_is_named(s3_store: S3Store, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "storage.example:9000")
    with pytest.raises(StoreUnwritable, match=r"Invalid endpoint.*Set AWS_ENDPOINT_URL to http"):
        s3_store.check_writable()
