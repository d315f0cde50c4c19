"""The errors of the outside world, as a tree.

::

    ClusterError
    ├── StorageError           the object store did not do what was asked
    │   ├── ObjectMissing      no object has this key
    │   ├── ObjectCorrupt      the bytes are not those of the reference
    │   ├── StoreRefused       credentials, permissions, bucket or endpoint are wrong
    │   │   └── StoreUnwritable    reading may work, writing does not
    │   │       └── NoSpaceLeft    the disk or the quota is full
    │   └── StoreUnavailable   the store does not answer or is overloaded; retryable
    ├── TrackingError          the MLflow server or database cannot be used
    ├── RayUnavailable         no Ray cluster can be reached, or one that was is gone
    └── NoRoom                 the Ray cluster has no room for what was waited for

Every message is made of three parts: where (a URL), what was wrong, what to do. Passwords inside
URLs are struck out. ``retryable`` says whether the same call can succeed later without anyone
changing anything. None of these is an ``OSError``: code that skips unreadable frames by catching
``OSError`` must not skip an unreachable store.
"""

import errno
import re

_PASSWORD_IN_URL = re.compile(r"(?<=://)[^/@\s]+@")
_OUT_OF_SPACE = {errno.ENOSPC, errno.EDQUOT}
_NOT_ALLOWED = {errno.EACCES, errno.EPERM, errno.EROFS}
_IN_THE_WAY = {errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.ENOTEMPTY}
_S3_MAY_PASS = (
    "NETWORK_CONNECTION",
    "SLOW_DOWN",
    "SERVICE_UNAVAILABLE",
    "INTERNAL_FAILURE",
    "UNKNOWN",
)
"""Of pyarrow's S3 errors, which have no number: those that Ray itself would try again."""
_NETWORK_DISK = {errno.ESTALE, errno.ETIMEDOUT, errno.ENOTCONN, errno.EHOSTDOWN, errno.EBUSY}


def without_credentials(text: str) -> str:
    """Strike out user names and passwords of all URLs in a text.

    Args:
        text: Any text, such as ``postgresql://me:secret@host/db``.

    Returns:
        The text with ``***@`` in their place.
    """
    return _PASSWORD_IN_URL.sub("***@", text)


class ClusterError(Exception):
    """Base of everything that cluster raises on purpose.

    Args:
        url: Where it happened: the URL of a store, an object, a folder or a server.
        reason: What was wrong, a phrase without a full stop.
        advice: What to do about it; the class's own advice where None.
    """

    retryable = False
    advice = "See the cause above this error"

    def __init__(self, url: str, reason: str, advice: str | None = None) -> None:
        self.url = without_credentials(url)
        self.reason = without_credentials(reason)
        self.advice = advice or type(self).advice
        super().__init__(self.url, self.reason, self.advice)

    def __str__(self) -> str:
        return f"{self.url}: {self.reason}. {self.advice}."


class StorageError(ClusterError):
    """The object store did not do what was asked."""


class ObjectMissing(StorageError):
    """No object has this key."""

    advice = "Run the stage that writes it, or check the store's URL"


class ObjectCorrupt(StorageError):
    """The bytes of an object are not those that its reference promises."""

    advice = "Delete the object and run the stage that writes it again"


class StoreRefused(StorageError):
    """The store turns the call down: credentials, permissions, bucket or endpoint are wrong."""

    advice = (
        "Check the bucket, this user's rights on it, and the variables AWS_ENDPOINT_URL, "
        "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_DEFAULT_REGION of this process"
    )


class StoreUnwritable(StoreRefused):
    """The store cannot be written."""

    advice = "Give this user the right to write there, or choose another store URL"


class NoSpaceLeft(StoreUnwritable):
    """The disk or the quota behind a store or a folder is full."""

    advice = "Free some space or choose another place, then run the same command again"


class StoreUnavailable(StorageError):
    """The store does not answer or is overloaded; the same call may succeed later."""

    retryable = True
    advice = "Check that the store runs and that AWS_ENDPOINT_URL is right, then try again"


class TrackingError(ClusterError):
    """The MLflow server or database cannot be used."""

    advice = "Check the tracking URI and that its server runs"


class RayUnavailable(ClusterError):
    """The Ray cluster cannot be reached or started, or what ran on it is gone."""

    advice = (
        "Check session.address, RAY_ADDRESS and RAY_AUTH_MODE (docs/operations.md), and that the "
        "cluster runs"
    )


class NoRoom(ClusterError):
    """The Ray cluster had no room for a training's workers as long as it was to wait."""

    advice = (
        "End what holds the rest, add nodes, lower num_workers, min_workers or cpus_per_worker, or "
        "raise max_wait_min"
    )


def from_os_error(error: OSError, url: str, *, writing: bool) -> StorageError:
    """Say in this tree what the operating system said about a file.

    Args:
        error: What a file operation raised.
        url: The object or folder that was worked on.
        writing: Whether it was being written.

    Returns:
        The error to raise, with ``error`` as its cause.
    """
    reason = error.strerror or str(error)
    if error.errno in _OUT_OF_SPACE:
        return NoSpaceLeft(url, reason)
    if error.errno in _NETWORK_DISK:
        return StoreUnavailable(url, reason, "Check the disk or its mount, then try again")
    if not writing and error.errno in _IN_THE_WAY | {errno.ENOENT}:
        return ObjectMissing(url, "there is no such object")
    if error.errno == errno.ENOENT:
        return StoreUnwritable(url, f"no folder can be made there ({reason})")
    if error.errno in _IN_THE_WAY:
        where = error.filename2 or error.filename or url
        return StoreUnwritable(url, f"a file or folder is in the way at {where} ({reason})")
    if error.errno in _NOT_ALLOWED:
        advice = "Give this user the right to read it"
        return StoreUnwritable(url, reason) if writing else StoreRefused(url, reason, advice)
    if error.errno is None:
        may_pass = any(f"AWS Error {name}" in reason for name in _S3_MAY_PASS)
        return StoreUnavailable(url, reason) if may_pass else StorageError(url, reason)
    return StorageError(url, f"{reason} (errno {error.errno})")
