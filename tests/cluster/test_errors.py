"""Tests of cluster/errors.py and cluster/s3_errors.py."""

import errno
import pickle

import pytest
from botocore import exceptions as boto

from cluster import errors
from cluster.errors import (
    ClusterError,
    NoSpaceLeft,
    ObjectCorrupt,
    ObjectMissing,
    StorageError,
    StoreRefused,
    StoreUnavailable,
    StoreUnwritable,
    TrackingError,
    from_os_error,
    without_credentials,
)
from cluster.s3_errors import s3_errors


def whole_tree(base: type[ClusterError]) -> list[type[ClusterError]]:
    return [base] + [leaf for child in base.__subclasses__() for leaf in whole_tree(child)]


@pytest.mark.parametrize("kind", whole_tree(ClusterError))
def test_every_error_survives_pickling(kind):
    error = kind("s3://bucket/key", "it is not there", "Put it there")
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is kind
    assert str(copy) == str(error) == "s3://bucket/key: it is not there. Put it there."
    assert (copy.url, copy.reason, copy.advice) == (error.url, error.reason, error.advice)
    assert copy.retryable is (kind is StoreUnavailable)


def test_every_error_stands_in_the_drawn_tree():
    for kind in whole_tree(ClusterError):
        assert f"{kind.__name__} " in errors.__doc__ or f"{kind.__name__}\n" in errors.__doc__


@pytest.mark.parametrize("kind", whole_tree(ClusterError))
def test_every_error_says_what_to_do(kind):
    assert str(kind("file:///x", "why")) == f"file:///x: why. {kind.advice}."
    assert not issubclass(kind, OSError)


def test_passwords_in_urls_do_not_reach_the_message():
    url = "postgresql://me:s3cr3t@host/db"
    error = TrackingError(url, f"cannot connect to {url} or http://tok3n@proxy:80")
    shown = str(error) + repr(error) + str(pickle.dumps(error))
    assert "s3cr3t" not in shown
    assert "tok3n" not in shown
    assert "postgresql://***@host/db" in str(error)


@pytest.mark.parametrize(
    "text", ["s3://bucket/a@b", "http://host:9000/x", "me@host", "file:///a@b"]
)
def test_texts_without_credentials_stay_as_they_are(text):
    assert without_credentials(text) == text


@pytest.mark.parametrize(
    ("number", "writing", "kind"),
    [
        (errno.ENOSPC, True, NoSpaceLeft),
        (errno.EDQUOT, True, NoSpaceLeft),
        (errno.EACCES, True, StoreUnwritable),
        (errno.EROFS, True, StoreUnwritable),
        (errno.ENOTDIR, True, StoreUnwritable),
        (errno.EISDIR, True, StoreUnwritable),
        (errno.EACCES, False, StoreRefused),
        (errno.ENOENT, False, ObjectMissing),
        (errno.ENOTDIR, False, ObjectMissing),
        (errno.EISDIR, False, ObjectMissing),
        (errno.ESTALE, False, StoreUnavailable),
        (errno.ETIMEDOUT, True, StoreUnavailable),
        (errno.EIO, True, StorageError),
        (errno.ENOENT, True, StoreUnwritable),
    ],
)
def test_what_the_operating_system_says_is_mapped(number, writing, kind):
    error = from_os_error(OSError(number, "the reason", "/a/b"), "file:///a/b", writing=writing)
    assert type(error) is kind
    assert "file:///a/b" in str(error)
    assert "the reason" in str(error) or kind is ObjectMissing


def reply(status: int, code: str) -> boto.ClientError:
    content = {"Error": {"Code": code, "Message": "words."}}
    content["ResponseMetadata"] = {"HTTPStatusCode": status}
    return boto.ClientError(content, "PutObject")


@pytest.mark.parametrize(
    ("raised", "kind"),
    [
        (reply(404, "NoSuchKey"), ObjectMissing),
        (reply(404, "NoSuchBucket"), StoreUnwritable),
        (reply(404, "NoSuchUpload"), StoreUnavailable),
        (reply(403, "AccessDenied"), StoreUnwritable),
        (reply(403, "SignatureDoesNotMatch"), StoreUnwritable),
        (reply(301, "PermanentRedirect"), StoreUnwritable),
        (reply(400, "BadDigest"), StoreUnavailable),
        (reply(409, "ConditionalRequestConflict"), StoreUnavailable),
        (reply(429, "TooManyRequests"), StoreUnavailable),
        (reply(500, "InternalError"), StoreUnavailable),
        (reply(503, "SlowDown"), StoreUnavailable),
        (reply(507, "XMinioStorageFull"), NoSpaceLeft),
        (reply(400, "QuotaExceeded"), NoSpaceLeft),
        (boto.EndpointConnectionError(endpoint_url="http://x"), StoreUnavailable),
        (boto.ConnectTimeoutError(endpoint_url="http://x"), StoreUnavailable),
        (boto.ReadTimeoutError(endpoint_url="http://x"), StoreUnavailable),
        (boto.ConnectionClosedError(endpoint_url="http://x"), StoreUnavailable),
        (boto.IncompleteReadError(actual_bytes=1, expected_bytes=2), StoreUnavailable),
        (boto.FlexibleChecksumError(error_msg="x"), ObjectCorrupt),
        (boto.NoCredentialsError(), StoreUnwritable),
        (boto.ProfileNotFound(profile="x"), StoreUnwritable),
        (boto.SSLError(endpoint_url="https://x", error="y"), StoreUnwritable),
        (ValueError("Invalid endpoint: x"), StoreUnwritable),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else str(value)[:60],
)
def test_what_botocore_raises_is_mapped(raised, kind):
    with pytest.raises(kind) as caught, s3_errors("s3://b/k", writing=True):
        raise raised
    assert type(caught.value) is kind
    assert caught.value.__cause__ is raised
    assert str(caught.value).startswith("s3://b/k: ")
    assert ".." not in str(caught.value)


def test_a_refusal_while_reading_is_not_about_writing():
    with pytest.raises(StoreRefused) as caught, s3_errors("s3://b/k", writing=False):
        raise reply(403, "AccessDenied")
    assert type(caught.value) is StoreRefused


def test_mistakes_of_the_program_are_not_dressed_up():
    with pytest.raises(ValueError, match="a mistake"), s3_errors("s3://b/k", writing=True):
        raise ValueError("a mistake")
