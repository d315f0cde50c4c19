"""What botocore raises, said in the tree of :mod:`cluster.errors`.

Imports botocore when called, as :mod:`cluster.s3_store` does.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from cluster.errors import (
    NoSpaceLeft,
    ObjectCorrupt,
    ObjectMissing,
    StorageError,
    StoreRefused,
    StoreUnavailable,
    StoreUnwritable,
)

_MISSING = {"NoSuchKey", "NoSuchVersion", "404", "NotFound"}
_FULL = {"QuotaExceeded", "InsufficientStorage", "XMinioStorageFull", "InsufficientCapacity"}
_DAMAGED_ON_THE_WAY = {"BadDigest", "XAmzContentSHA256Mismatch", "IncompleteBody", "InvalidDigest"}
_COME_AGAIN = {
    "SlowDown",
    "RequestTimeout",
    "InternalError",
    "ServiceUnavailable",
    "OperationAborted",
    "ConditionalRequestConflict",
    "NoSuchUpload",
}


@contextmanager
def s3_errors(url: str, *, writing: bool) -> Iterator[None]:
    """Turn every error of botocore inside the block into a StorageError.

    Args:
        url: The object or store that is worked on.
        writing: Whether it is being written.
    """
    from botocore import exceptions as boto
    from botocore.parsers import ResponseParserError

    refused = StoreUnwritable if writing else StoreRefused
    try:
        yield
    except boto.ClientError as error:
        raise _from_reply(error.response, url, refused) from error
    except boto.FlexibleChecksumError as error:
        raise ObjectCorrupt(url, "the bytes that came do not have the server's checksum") from error
    except (boto.NoCredentialsError, boto.PartialCredentialsError, boto.ProfileNotFound) as error:
        advice = "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or give a role"
        raise refused(url, _sentence(error), advice) from error
    except (boto.SSLError, ResponseParserError) as error:
        advice = "Check AWS_ENDPOINT_URL and AWS_CA_BUNDLE: the address may not be an S3 server's"
        raise refused(url, _sentence(error), advice) from error
    except (boto.HTTPClientError, boto.ConnectionError, boto.IncompleteReadError) as error:
        raise StoreUnavailable(url, _sentence(error)) from error
    except boto.BotoCoreError as error:
        reason = f"{type(error).__name__}: {_sentence(error)}"
        raise refused(url, reason, StoreRefused.advice) from error
    except ValueError as error:
        # botocore's only word on an address without a scheme.
        if not str(error).startswith("Invalid endpoint"):
            raise
        raise refused(url, _sentence(error), "Set AWS_ENDPOINT_URL to http(s)://HOST") from error


def status_of(response: dict[str, Any]) -> int:
    """HTTP status of a reply; 0 where there was none."""
    return int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _from_reply(response: dict[str, Any], url: str, refused: type[StoreRefused]) -> StorageError:
    code = str(response.get("Error", {}).get("Code", ""))
    message = str(response.get("Error", {}).get("Message", "")).rstrip(".")
    status = status_of(response)
    reason = f"the server answers {status} {code}: {message}"
    if code in _FULL or status == 507:
        return NoSpaceLeft(url, reason)
    if code in _COME_AGAIN | _DAMAGED_ON_THE_WAY or status in (429, 500, 502, 503, 504):
        return StoreUnavailable(url, reason)
    if code == "NoSuchBucket":
        return refused(url, reason, "Make the bucket, or correct the store's URL")
    if code in _MISSING:
        return ObjectMissing(url, "there is no such object")
    return refused(url, reason, StoreRefused.advice)


def _sentence(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".")
