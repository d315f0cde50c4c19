"""What can be wrong with a configuration, each with the nearest valid name."""

from __future__ import annotations

import difflib
import fnmatch
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError

from pipeline.errors import Mistake
from stages.shard import problems

if TYPE_CHECKING:
    from pipeline.config import PipelineConfig


def wrong_values(error: ValidationError, model: type[BaseModel]) -> list[Mistake]:
    """Return what pydantic found, one mistake a value.

    Args:
        error: pydantic's.
        model: what was to be built.
    """
    joined: dict[tuple[str, str], Mistake] = {}
    for mistake in (_mistake(e, model) for e in error.errors(include_url=False)):
        place = (mistake.key, mistake.value)
        known = joined.get(place)
        if known is None:
            joined[place] = mistake
        elif mistake.reason not in known.reason:  # of another branch of a union
            joined[place] = replace(known, reason=f"{known.reason}; or: {mistake.reason}")
    return list(joined.values())


def wrong_branches(data: dict[str, Any]) -> list[Mistake]:
    """Find what only shows between tables: branches without data, results without a network."""
    tables = {s: data.get(s, {}) for s in ("shard", "train", "ablate", "evaluate")}
    if not all(isinstance(t, dict) for t in tables.values()):
        return []
    found = [
        Mistake(f"shard.{branch}", "", problem)
        for branch, table in tables["shard"].items()
        if isinstance(table, dict)
        for problem in problems(table)
    ]
    for branch in tables["shard"]:
        if not re.fullmatch(r"[A-Za-z0-9_-]+", branch):
            reason = "a data set's name is made of letters, digits, _ and -"
            found.append(Mistake(f"shard.{branch}", "", reason))
    for stage, needed in (("train", "shard"), ("ablate", "shard"), ("evaluate", "train")):
        for branch in tables[stage]:
            if branch not in tables[needed]:
                known = list(tables[needed])
                reason = f"there is no [{needed}.{branch}] that it could use"
                found.append(Mistake(f"{stage}.{branch}", "", reason, nearest(branch, known)))
    return found


def idle_limits(config: PipelineConfig) -> list[Mistake]:
    """Find time limits that hold for no stage: a name that is misspelt would limit nothing."""
    kinds = ("shard", "train", "ablate", "evaluate")
    once = ("report", "register")
    nodes = [f"{kind}.{branch}" for kind in kinds for branch in getattr(config, kind)]
    names = [*nodes, *kinds, *once]
    return [
        Mistake(
            f"execution.time_limits_s.{name}", f"{limit_s:g}", f"no stage is called {name!r}",
            nearest(name, names) or f"valid: {', '.join(names)}, or a pattern such as '*.nyu'",
        )
        for name, limit_s in config.execution.time_limits_s.items()
        if name not in names and not fnmatch.filter([*nodes, *once], name)
    ]  # fmt: skip


def nearest(name: str, known: Sequence[str]) -> str:
    """Return ``did you mean X?`` for the most similar name, or nothing."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean {close[0]}?" if close else ""


def _mistake(error: Any, model: type[BaseModel]) -> Mistake:
    """Turn one of pydantic's errors into a mistake with the nearest valid name."""
    parts = [str(part) for part in error["loc"]]  # branches of a union are no keys
    location = [p for p in parts if p != "bool" and not p.startswith("literal[")]
    key, value = ".".join(location), error.get("input")
    shown = "" if isinstance(value, dict) else repr(value)
    if error["type"] == "extra_forbidden":
        known = _fields_at(model, location[:-1])
        hint = nearest(location[-1], known)
        return Mistake(key, shown, "no such key", hint or f"valid: {', '.join(sorted(known))}")
    if error["type"] == "missing":
        return Mistake(key, "", "must be set")
    message = str(error["msg"]).removeprefix("Value error, ")
    return Mistake(key, shown, message)


def _fields_at(top: type[BaseModel], location: Sequence[str]) -> list[str]:
    """Return the names that are valid below a location of the configuration."""
    model: Any = top
    for part in location:
        if not (isinstance(model, type) and issubclass(model, BaseModel)):
            return []
        fields = {f.alias or name: f for name, f in model.model_fields.items()}
        if part not in fields:
            continue  # a data set's name in a dictionary of tables
        annotation = fields[part].annotation
        inner = getattr(annotation, "__args__", ())
        models = [a for a in (annotation, *inner) if isinstance(a, type)]
        model = next((a for a in models if issubclass(a, BaseModel)), None)
    if not (isinstance(model, type) and issubclass(model, BaseModel)):
        return []
    return [f.alias or name for name, f in model.model_fields.items()]
