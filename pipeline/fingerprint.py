"""What decides a stage's result: its code, settings, inputs, raw files and libraries.

Two executions with equal fingerprints give the same artifact, so the second need not run.
"""

import ast
import contextlib
import hashlib
import importlib.metadata
import json
import os
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from cluster.tracking import flat
from pipeline.config import outputs_root
from pipeline.dag import Node

PROJECT_ROOT = Path(__file__).resolve().parent.parent
CODE = ("stages", "densedepth")
"""Packages whose code decides results; cluster/ only carries bytes."""
DECIDES = ("cluster.registry",)
"""Modules elsewhere that do: who becomes champion."""
_PYTHON = f"1-{sys.version_info.major}.{sys.version_info.minor}"  # of this format, of ast.dump
LIBRARIES = {
    "torch": "torch",
    "torchvision": "torchvision",
    "numpy": "numpy",
    "scipy": "scipy",
    "PIL": "pillow",
    "simplejpeg": "simplejpeg",
    "pcodec": "pcodec",
    "h5py": "h5py",
    "safetensors": "safetensors",
    "matplotlib": "matplotlib",
    "jinja2": "jinja2",
    "timm": "timm",
}
"""Import name -> distribution of the libraries that decide results."""
ONLY_WITH = {"timm": '"timm:', "h5py": '"nyu_labeled"'}
"""Distribution -> what a stage's settings say where it is used, of the code that reaches it."""
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

    def differences(self, old: "Fingerprint") -> list[str]:
        """Say what changed since another fingerprint, the likeliest cause first."""
        found = [
            f"{key} {_difference(before, now)}"
            for key, (before, now) in _changed(flat(old.config), flat(self.config)).items()
        ]
        found += [f"code {path}" for path in _changed(old.code, self.code)]
        found += [f"input {name}" for name in _changed(old.inputs, self.inputs)]
        if files := _changed(old.sources, self.sources):
            names = ", ".join(Path(path).name for path in list(files)[:2])
            more = ", ..." if len(files) > 2 else ""
            plural = "s" if len(files) > 1 else ""
            found.append(f"{len(files)} source file{plural} changed: {names}{more}")
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
    files = _reached(str(node.stage.__name__))
    libraries = {x for _, used in files.values() for x in used}
    settings = node.config.model_dump_json()
    libraries -= {library for library, sign in ONLY_WITH.items() if sign not in settings}
    return Fingerprint(
        code={name: digest for name, (digest, _) in files.items()},
        config=node.config.deciding(),
        inputs=dict(inputs),
        sources=raw_sources(node),
        libraries={library: _version(library) for library in sorted(libraries)},
    )


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
def _reached(module: str) -> dict[str, tuple[str, tuple[str, ...]]]:
    """Return path -> (digest, libraries) of a module and all project code that it imports."""
    found: dict[str, tuple[str, tuple[str, ...]]] = {}
    waiting = [module]
    while waiting:
        path = _source_file(waiting.pop())
        if path is None or (name := path.relative_to(PROJECT_ROOT).as_posix()) in found:
            continue
        digest, imported = _read(path)
        libraries = {LIBRARIES[t] for i in imported if (t := i.partition(".")[0]) in LIBRARIES}
        found[name] = (digest, tuple(sorted(libraries)))
        waiting += [i for i in imported if i.partition(".")[0] in CODE or i in DECIDES]
        for resource in path.parent.glob(f"{path.stem}.*.j2"):
            digest = hashlib.sha256(resource.read_bytes()).hexdigest()[:16]
            found[resource.relative_to(PROJECT_ROOT).as_posix()] = (digest, ())
    return found


def _source_file(module: str) -> Path | None:
    """Return a module's file; ``from package import name`` may mean a module or a value."""
    base = PROJECT_ROOT.joinpath(*module.split("."))
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if path.is_file():
            return path
    return None


_MEANING = 2
"""Counts the ways in which meanings were taken: what was kept of another way is void."""


@cache
def _read(path: Path) -> tuple[str, tuple[str, ...]]:
    """Return the digest of a file's meaning (no comments, docstrings, layout) and its imports."""
    source = path.read_bytes()
    known = outputs_root() / "scratch" / "meanings"  # parsing takes most of a plan
    place = known / f"{_PYTHON}-{_MEANING}-{hashlib.sha256(source).hexdigest()}.json"
    with contextlib.suppress(OSError, ValueError):
        digest, imported = json.loads(place.read_text())
        return digest, tuple(imported)
    digest, imported = _meaning(source)
    if not outputs_root().is_dir():  # a plan leaves nothing where no run was
        return digest, imported
    with contextlib.suppress(OSError):  # what is kept there only saves time
        known.mkdir(parents=True, exist_ok=True)
        new = place.with_suffix(f".{os.getpid()}")
        new.write_text(json.dumps([digest, imported]))
        new.replace(place)
    return digest, imported


def _meaning(source: bytes) -> tuple[str, tuple[str, ...]]:
    tree = ast.parse(source)
    imported: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            imported |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        body = getattr(node, "body", None)
        if isinstance(body, list):  # docstrings of attributes too
            node.body = [part for part in body if not _is_text(part)] or [ast.Pass()]  # type: ignore[attr-defined]
    digest = hashlib.sha256(ast.dump(tree).encode()).hexdigest()[:16]
    return digest, tuple(sorted(imported))


def _is_text(statement: Any) -> bool:
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )


@cache
def _version(library: str) -> str:
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def _changed(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    keys = dict.fromkeys([*old, *new])
    return {
        k: (old.get(k, "nothing"), new.get(k, "nothing")) for k in keys if old.get(k) != new.get(k)
    }


def _difference(before: Any, now: Any) -> str:
    """Write ``OLD -> NEW``; of long values what stands around the first place where they differ."""
    old, new = str(before), str(now)
    if max(len(old), len(new)) <= _MAX_VALUE:
        return f"{old} -> {new}"
    same = next((i for i, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), 0)
    same = same or min(len(old), len(new))
    start = max(0, same - _MAX_VALUE // 3)
    return f"{_part(old, start)} -> {_part(new, start)}"


def _part(text: str, start: int) -> str:
    end = start + _MAX_VALUE
    return f"{'...' * (start > 0)}{text[start:end]}{'...' * (len(text) > end)}"
