"""Whether a stage that failed is tried again, and how long one may take."""

import fnmatch
import random
import time
from collections.abc import Callable
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, field_validator

from cluster.transient import is_transient

MAX_WAIT_S = 300.0
PATIENCE_S = 300.0
"""Seconds for which a driver asks again that cannot reach the store."""

T = TypeVar("T")


class ExecutionConfig(BaseModel):
    """How stages are executed; no part of a run's identity."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    max_retries: int = Field(
        2, ge=0, description="further tries of a stage after an error that a retry can cure"
    )
    retry_wait_s: float = Field(
        5.0, ge=0, description="seconds before the first retry, doubled before each further one"
    )
    time_limits_s: dict[str, float] = Field(
        default_factory=dict,
        description="seconds that one try of a stage may take, by name: train.nyu, train, or *",
    )

    @field_validator("time_limits_s")
    @classmethod
    def _check_limits(cls, limits: dict[str, float]) -> dict[str, float]:
        for name, limit_s in limits.items():
            if limit_s <= 0:
                raise ValueError(f"the limit of {name} is {limit_s:g} s: give a positive number")
        return limits

    def time_limit_s(self, node: str) -> float | None:
        """Return a stage's limit: that of its name, of its kind, or of the longest pattern."""
        for name in (node, node.partition(".")[0]):
            if name in self.time_limits_s:
                return self.time_limits_s[name]
        fitting = [name for name in self.time_limits_s if fnmatch.fnmatchcase(node, name)]
        return self.time_limits_s[max(fitting, key=len)] if fitting else None


def wait_before_retry_s(
    error: BaseException, tries: int, config: ExecutionConfig, jitter: float | None = None
) -> float | None:
    """Decide whether to try again.

    Args:
        error: what the stage failed with.
        tries: tries so far, this one included.
        config: the settings.
        jitter: 0..1, drawn at random by default: drivers that failed together come back apart.

    Returns:
        Seconds to wait, or None: no retry can cure this, or there were enough.
    """
    if tries > config.max_retries or not is_transient(error):
        return None
    share = random.random() if jitter is None else jitter
    return min(MAX_WAIT_S, config.retry_wait_s * 2 ** (tries - 1) * (0.75 + 0.5 * share))


def patiently(call: Callable[..., T], *arguments: Any, **options: Any) -> T:
    """Call what may fail for a while, such as a store that restarts, again and again.

    Raises:
        Exception: the call's own, after ``PATIENCE_S``, or at once where time cannot cure it.
    """
    until, wait_s = time.monotonic() + PATIENCE_S, 0.5
    while True:
        try:
            return call(*arguments, **options)
        except Exception as error:
            if not is_transient(error) or time.monotonic() + wait_s > until:
                raise
        time.sleep(wait_s)
        wait_s = min(2 * wait_s, 15.0)
