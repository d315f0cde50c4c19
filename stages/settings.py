"""What every table of settings is, and how a name or a path in one is checked."""

import difflib
import os
from collections.abc import Sequence
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict


class Settings(BaseModel):
    """Base of every table of settings: frozen, unknown keys refused."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False
    )
    OPERATIONAL: ClassVar[frozenset[str]] = frozenset()
    """Settings that do not decide the result: changing one makes nothing stale."""

    def deciding(self) -> dict[str, Any]:
        """Return all settings that decide the result, JSON-ready."""
        return self.model_dump(mode="json", exclude=set(self.OPERATIONAL))


def one_of(name: str, known: Sequence[str], what: str) -> str:
    """Return a name that is known.

    Raises:
        ValueError: it is not; the message has the nearest and all names.
    """
    if name in known:
        return name
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]}? " if close else ""
    raise ValueError(f"no such {what}; {hint}There are {', '.join(known)}")


def anchored(path: str) -> str:
    """Return a path that means the same from every working directory.

    Workers have other ones than the driver, and a fingerprint must not change with the place that
    the driver was called from. URLs stay, and ``~``, which is each node's own.
    """
    is_elsewhere = not path or path.startswith("~") or "://" in path
    return path if is_elsewhere else os.path.abspath(path)
