"""What decides a stage's result: its code, settings, inputs, raw files and libraries.

Two executions with equal fingerprints give the same artifact, so the second need not run.
"""

import hashlib
import importlib.metadata
import json
from collections.abc import Collection, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from cluster.tracking import flat
from pipeline import source_code
from pipeline.dag import Node

ONLY_WITH = {"timm": '"timm:', "h5py": '"nyu_labeled"'}
"""Distribution -> what a stage's settings say where it is used, of the code that reaches it."""
NOTHING = "nothing"
"""Stands for the value of what is not there."""
_MAX_VALUE = 60  # characters of a setting's value that a difference shows


class Fingerprint(BaseModel):
    """The parts, each as name -> digest or value, so that a difference can be named."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    code: dict[str, str]
    config: dict[str, Any]
    inputs: dict[str, str]
    sources: dict[str, str]
    libraries: dict[str, str]

    def digest(self) -> str:
        """Return one digest of all parts."""
        return hashlib.sha256(_canonical(self.model_dump()).encode()).hexdigest()

    def differences(self, old: "Fingerprint", unknown: Collection[str] = ()) -> list[str]:
        """Say what changed since another fingerprint, the likeliest cause first.

        Args:
            old: the other one.
            unknown: inputs that this one lacks since they are still to be made: not compared.
        """
        found = [
            f"{key} {_difference(before, now)}"
            for key, (before, now) in _changed(flat(old.config), flat(self.config)).items()
        ]
        found += [
            f"code {path}{_presence(pair)}" for path, pair in _changed(old.code, self.code).items()
        ]
        found += [
            f"input {name}{_presence(pair)}"
            for name, pair in _changed(old.inputs, self.inputs).items()
            if name not in unknown
        ]
        found += _source_changes(old.sources, self.sources)
        found += [
            f"library {name} {before} -> {now}"
            for name, (before, now) in _changed(old.libraries, self.libraries).items()
        ]
        return found


def fingerprint(node: Node, inputs: Mapping[str, str]) -> Fingerprint:
    """Take a node's fingerprint.

    Args:
        node: the node.
        inputs: needed node -> digest of its artifact.
    """
    files = {
        path: file
        for module in code_modules(node)
        for path, file in source_code.reached(module).items()
    }
    libraries = {library for file in files.values() for library in file.libraries}
    settings = node.config.model_dump_json()
    libraries -= {library for library, sign in ONLY_WITH.items() if sign not in settings}
    return Fingerprint(
        code={path: file.digest for path, file in files.items()},
        config=node.config.deciding(),
        inputs=dict(inputs),
        sources=raw_sources(node),
        libraries={library: _version(library) for library in sorted(libraries)},
    )


def code_modules(node: Node) -> tuple[str, ...]:
    """Return the modules whose code decides a node's result: its own, and what it loads by name."""
    loads = getattr(node.stage, "loads", lambda config: ())
    return (str(node.stage.__name__), *loads(node.config))


_sources: dict[tuple[str, str], dict[str, str]] = {}


def raw_sources(node: Node) -> dict[str, str]:
    """Return what a node reads outside the store, looked up once in this process.

    Raises:
        DepthError: something that the settings name is not there.
    """
    look_up = getattr(node.stage, "sources", None)
    if look_up is None:
        return {}
    key = (node.name, node.config.model_dump_json())
    if key not in _sources:
        _sources[key] = look_up(node.config)
    return _sources[key]


@cache
def _version(library: str) -> str:
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def _changed(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return key -> (old value, new value) where they differ; ``NOTHING`` where there is none."""
    pairs = {k: (old.get(k, NOTHING), new.get(k, NOTHING)) for k in dict.fromkeys([*old, *new])}
    return {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}


def _presence(pair: tuple[Any, Any]) -> str:
    return (
        " (now used)" if pair[0] == NOTHING else " (no longer used)" if pair[1] == NOTHING else ""
    )


def _source_changes(old: Mapping[str, str], new: Mapping[str, str]) -> list[str]:
    """Say which raw files, or folders of many, are new, changed or not there."""
    found: dict[tuple[str, str], list[str]] = {}
    for path, (before, now) in _changed(old, new).items():
        how = "new" if before == NOTHING else "no longer read" if now == NOTHING else "changed"
        how = "missing" if now == "missing" else how
        what = "folder" if path.endswith(")") else "file"
        found.setdefault((what, how), []).append(path)
    causes = []
    for (what, how), paths in found.items():
        names = ["/".join(Path(path).parts[-2:]) for path in paths[:2]]
        more = ", ..." if len(paths) > 2 else ""
        plural = "s" if len(paths) > 1 else ""
        causes.append(f"{len(paths)} source {what}{plural} {how}: {', '.join(names)}{more}")
    return causes


def _difference(before: Any, now: Any) -> str:
    """Write ``OLD -> NEW``; of long values what stands around the first place where they differ."""
    old, new = str(before), str(now)
    if max(len(old), len(new)) <= _MAX_VALUE:
        return f"{old} -> {new}"
    pairs = enumerate(zip(old, new, strict=False))
    same = next((i for i, (a, b) in pairs if a != b), min(len(old), len(new)))
    start = max(0, same - _MAX_VALUE // 3)
    return f"{_part(old, start)} -> {_part(new, start)}"


def _part(text: str, start: int) -> str:
    end = start + _MAX_VALUE
    return f"{'...' * (start > 0)}{text[start:end]}{'...' * (len(text) > end)}"
