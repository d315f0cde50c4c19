"""The code that decides a stage's result: every file that its module reaches, by its meaning.

What a process has read of the code stays what it goes by; ``edited`` says what has changed since.
"""

import ast
import contextlib
import hashlib
import json
import os
import sys
import time
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.config import outputs_root

PROJECT_ROOT = Path(__file__).resolve().parent.parent
CODE = ("stages", "densedepth")
"""Packages whose code decides results; cluster/ only carries bytes."""
DECIDES = ("cluster.registry",)
"""Modules elsewhere that do: who becomes champion."""
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
_PYTHON = f"1-{sys.version_info.major}.{sys.version_info.minor}"  # of this format, of ast.dump
_MEANING = 2
"""Counts the ways in which meanings were taken: what was kept of another way is void."""
LOOK_AGAIN_S = 1.0
"""Seconds after which an edit is looked at again: an editor may be writing the file just now."""

Stamp = tuple[int, int, int]
"""A file's time stamp (ns), size (bytes) and inode: while they stay, so does what is in it."""


class SourceFile(NamedTuple):
    """A file as this process read it.

    Attributes:
        digest: of its meaning.
        libraries: distributions that it imports, of those that decide results.
        stamp: tells whether it was written since.
    """

    digest: str
    libraries: tuple[str, ...]
    stamp: Stamp


@cache
def reached(module: str) -> dict[str, SourceFile]:
    """Return path -> file of a module and all project code that it imports."""
    found: dict[str, SourceFile] = {}
    waiting = [module]
    while waiting:
        path = _source_file(waiting.pop())
        if path is None or (name := path.relative_to(PROJECT_ROOT).as_posix()) in found:
            continue
        stamp, (digest, imported) = _read(path)
        libraries = {LIBRARIES[t] for i in imported if (t := i.partition(".")[0]) in LIBRARIES}
        found[name] = SourceFile(digest, tuple(sorted(libraries)), stamp)
        waiting += [i for i in imported if i.partition(".")[0] in CODE or i in DECIDES]
        for template in path.parent.glob(f"{path.stem}.*.j2"):
            name = template.relative_to(PROJECT_ROOT).as_posix()
            found[name] = SourceFile(_template_digest(template), (), _stamp(template))
    return found


def edited(modules: Iterable[str]) -> list[str]:
    """Return the files that modules reach and that mean something else than when they were read."""
    files = {name: file for module in modules for name, file in reached(module).items()}
    found = [name for name, file in files.items() if _is_edited(name, file)]
    if found:
        time.sleep(LOOK_AGAIN_S)
    return [name for name in found if _is_edited(name, files[name])]


def _is_edited(name: str, file: SourceFile) -> bool:
    path = PROJECT_ROOT / name
    try:
        if _stamp(path) == file.stamp:
            return False
        is_python = path.suffix == ".py"
        now = _known_meaning(path)[0] if is_python else _template_digest(path)
    except (OSError, SyntaxError, ValueError):  # gone, or no Python any more
        return True
    return now != file.digest


def _source_file(module: str) -> Path | None:
    """Return a module's file; ``from package import name`` may mean a module or a value."""
    base = PROJECT_ROOT.joinpath(*module.split("."))
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if path.is_file():
            return path
    return None


@cache
def _read(path: Path) -> tuple[Stamp, tuple[str, tuple[str, ...]]]:
    stamp = _stamp(path)  # before its bytes: what is written in between shows as an edit
    return stamp, _known_meaning(path)


def _stamp(path: Path) -> Stamp:
    stat = path.stat()
    return stat.st_mtime_ns, stat.st_size, stat.st_ino


def _template_digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def _known_meaning(path: Path) -> tuple[str, tuple[str, ...]]:
    """Return the digest of a file's meaning and its imports, kept since parsing takes long."""
    source = path.read_bytes()
    known = outputs_root() / "scratch" / "meanings"
    place = known / f"{_PYTHON}-{_MEANING}-{hashlib.sha256(source).hexdigest()}.json"
    with contextlib.suppress(OSError, ValueError):
        digest, imported = json.loads(place.read_text())
        return digest, tuple(imported)
    digest, imported = _meaning(source, path)
    if not outputs_root().is_dir():  # a plan leaves nothing where no run was
        return digest, imported
    with contextlib.suppress(OSError):  # what is kept there only saves time
        known.mkdir(parents=True, exist_ok=True)
        new = place.with_suffix(f".{os.getpid()}")
        new.write_text(json.dumps([digest, imported]))
        new.replace(place)
    return digest, imported


def _meaning(source: bytes, path: Path) -> tuple[str, tuple[str, ...]]:
    """Return the digest of a source without comments, docstrings, layout; and its imports."""
    tree = ast.parse(source, str(path))
    imported: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            imported |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        body = getattr(node, "body", None)
        if isinstance(body, list):  # docstrings of attributes too; no common type has a body
            node.body = [part for part in body if not _is_text(part)] or [ast.Pass()]  # type: ignore[attr-defined]
    digest = hashlib.sha256(ast.dump(tree).encode()).hexdigest()[:16]
    return digest, tuple(sorted(imported))


def _is_text(statement: Any) -> bool:
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )
