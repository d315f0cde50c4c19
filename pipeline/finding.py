"""What one of ``doctor``'s checks came to."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Finding:
    """What one check came to: ``ok``, ``warn`` (may be meant so) or ``fail`` (cannot work)."""

    check: str
    status: Literal["ok", "warn", "fail"]
    found: str
    advice: str = ""
