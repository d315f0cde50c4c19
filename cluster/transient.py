"""Which errors a retry can cure: a process or node that died, a store that did not answer."""

_RAY = {
    "ActorDiedError",
    "ActorUnavailableError",
    "LocalRayletDiedError",
    "NodeDiedError",
    "ObjectLostError",
    "ObjectReconstructionFailedError",
    "OwnerDiedError",
    "ReferenceCountingAssertionError",
    "WorkerCrashedError",
}
"""Names of Ray's errors, compared without importing Ray."""


def is_transient(error: BaseException) -> bool:
    """Say whether the same call can succeed later without anyone changing anything.

    An error's ``retryable`` decides where it has one. Ray's errors count when a process or a node
    died; what a stage itself raised does not, however it was carried. Of the system's own errors
    lost connections and exceeded waits count.
    """
    retryable = getattr(error, "retryable", None)
    if isinstance(retryable, bool):
        return retryable
    if isinstance(error, ConnectionError | TimeoutError):
        return True
    names = {kind.__name__ for kind in type(error).__mro__ if kind.__module__.startswith("ray.")}
    return bool(names & _RAY)
