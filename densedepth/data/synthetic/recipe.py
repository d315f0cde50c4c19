"""Recipes: what a rendered data set is made from, kept beside it so that it is made once.

A root with a recipe may be written again; a root with lists but no recipe is somebody's real
data and is left alone.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

from densedepth.errors import DataError

RECIPE_FILE = "synthetic.json"
_LIBRARIES = ("numpy", "pillow", "simplejpeg")
_SMALLEST_PX = 16

Progress = Callable[[int, int], None]
"""Called with the number of frames done and the number of all frames."""

Job = TypeVar("Job")


def make_recipe(kind: str, *, size_px: tuple[int, int], seed: int, **counts: int) -> dict[str, Any]:
    """Put together all that the bytes of a data set depend on, the generator's code included.

    Raises:
        ValueError: a size or a number that makes no data set; names the argument and its value.
    """
    if len(size_px) != 2 or min(size_px) < _SMALLEST_PX:
        raise ValueError(
            f"size_px={size_px!r}: give height and width, each at least {_SMALLEST_PX} pixels"
        )
    for name, count in counts.items():
        if count < 1:
            raise ValueError(f"{name}={count}: give at least 1")
    code = hashlib.sha256()
    for source in sorted(Path(__file__).parent.glob("*.py")):
        code.update(source.name.encode() + b"\0" + source.read_bytes())
    return {
        "kind": kind,
        **counts,
        "size_px": list(size_px),
        "seed": seed,
        "code_sha256": code.hexdigest(),
        "libraries": {name: version(name) for name in _LIBRARIES},
    }


def write_once(
    root: Path,
    recipe: dict[str, Any],
    lists: Mapping[str, Sequence[Job]],
    *,
    texts: Mapping[str, str],
    paths: Callable[[Job], Sequence[Path]],
    write: Callable[[Job], None],
    line: Callable[[Job], str],
    on_progress: Progress | None,
) -> None:
    """Write a data set, unless the root holds exactly this one; lists and recipe come last.

    Args:
        root: its folder.
        recipe: of ``make_recipe``.
        lists: list file -> its frames.
        texts: further file -> what stands in it.
        paths: the files of a frame.
        write: writes these.
        line: a frame's line in its list.
        on_progress: called after each frame, or once where all is there.

    Raises:
        DataError: the root holds lists that the generator did not write.
    """
    jobs = [job for part in lists.values() for job in part]
    tell = on_progress or (lambda done, total: None)
    if _is_written(root, recipe, lists):
        tell(len(jobs), len(jobs))
        return
    _clear(root, lists)
    for folder in {path.parent for job in jobs for path in paths(job)}:
        folder.mkdir(parents=True, exist_ok=True)
    (root / RECIPE_FILE).unlink(missing_ok=True)
    for name, text in texts.items():
        (root / name).write_text(text)
    for number, job in enumerate(jobs, 1):
        write(job)
        tell(number, len(jobs))
    for name, part in lists.items():
        (root / name).write_text("".join(f"{line(job)}\n" for job in part))
    (root / RECIPE_FILE).write_text(json.dumps(recipe, indent=2) + "\n")


def _is_written(root: Path, recipe: dict[str, Any], lists: Iterable[str]) -> bool:
    """Say whether a root holds exactly this data set; words of its lists with a slash are files."""
    try:
        if json.loads((root / RECIPE_FILE).read_text()) != recipe:
            return False
        words = [w for name in lists for w in (root / name).read_text().replace(",", " ").split()]
    except (OSError, ValueError):
        return False
    bases = (root, root / "data_depth_annotated" / "train")
    files = [word for word in words if "/" in word]
    return all(any(_has_bytes(base / file) for base in bases) for file in files)


def _has_bytes(path: Path) -> bool:
    return path.is_file() and path.stat().st_size > 0


def _clear(root: Path, lists: Iterable[str]) -> None:
    """Make way for a new data set: without its lists, a half-written one is none.

    Raises:
        DataError: the root holds lists that the generator did not write.
    """
    found = [root / name for name in lists if (root / name).exists()]
    if found and not (root / RECIPE_FILE).is_file():
        raise DataError(
            f"{found[0]} exists but {root / RECIPE_FILE} does not: this is no synthetic data set "
            "and is left as it is; set another root"
        )
    for path in found:
        path.unlink()
