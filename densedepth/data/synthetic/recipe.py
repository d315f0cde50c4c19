"""Recipes: what a synthetic data set was made from, kept beside it so that it is made once.

A root with a recipe may be written again; a root with lists but no recipe is somebody's real
data and is left alone.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version
from multiprocessing import get_context
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


def is_written(root: Path, recipe: dict[str, Any], lists: Sequence[str]) -> bool:
    """Say whether a root already holds exactly this data set, with every file it lists.

    Args:
        root: folder of the data set.
        recipe: of ``make_recipe``.
        lists: names of its list files; their words that hold a dot and a slash are files.
    """
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


def clear(root: Path, lists: Sequence[str]) -> None:
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


def save_lists(root: Path, recipe: dict[str, Any], lists: dict[str, Iterable[str]]) -> None:
    """Write the lists, then the recipe, when all frames are there."""
    for name, lines in lists.items():
        (root / name).write_text("".join(f"{line}\n" for line in lines))
    (root / RECIPE_FILE).write_text(json.dumps(recipe, indent=2) + "\n")


def do_all(
    function: Callable[[Job], None],
    jobs: Sequence[Job],
    *,
    num_processes: int,
    chunk: int,
    on_progress: Progress | None,
) -> None:
    """Do independent jobs, in this process or in several new ones.

    Args:
        function: does one job; at the top level of a module, so that processes find it.
        jobs: picklable values.
        num_processes: 1 = this process.
        chunk: how many neighbouring jobs one process takes at a time.
        on_progress: called after each job, in order.
    """
    if num_processes < 1:
        raise ValueError(f"num_processes={num_processes}: give at least 1")
    if num_processes == 1:
        for i, job in enumerate(jobs):
            function(job)
            if on_progress is not None:
                on_progress(i + 1, len(jobs))
        return
    # Not forked: a process with threads (torch, Ray) may hang in its copy.
    with ProcessPoolExecutor(num_processes, mp_context=get_context("spawn")) as pool:
        for i, _ in enumerate(pool.map(function, jobs, chunksize=chunk)):
            if on_progress is not None:
                on_progress(i + 1, len(jobs))
