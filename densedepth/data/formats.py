"""The names of the raw formats, and the reader of each."""

from dataclasses import MISSING, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from densedepth.data.kitti import KittiEigen
from densedepth.data.nyu import NyuDenseDepth
from densedepth.data.nyu_labeled import NyuLabeled
from densedepth.data.nyu_sync import NyuSync
from densedepth.data.pairs import ImagePairs
from densedepth.errors import DataError

# Each one is a densedepth.sample.Reader.
RawReader = NyuDenseDepth | NyuLabeled | NyuSync | KittiEigen | ImagePairs

FORMATS: dict[str, Any] = {
    "nyu_densedepth": NyuDenseDepth,
    "nyu_labeled": NyuLabeled,
    "nyu_sync": NyuSync,
    "kitti_eigen": KittiEigen,
    "image_pairs": ImagePairs,
}


def make_reader(format: str, root: str | Path, **options: Any) -> RawReader:
    """Make the reader of a raw data set.

    Args:
        format: one of ``FORMATS``.
        root: the folder of the data set.
        options: the reader's other attributes, by name.

    Raises:
        DataError: the format or an option does not exist (the error names the nearest), an
            option has no sense, or one without a default is missing. All that is wrong with the
            names is told at once.
    """
    if format not in FORMATS:
        raise DataError(f"format = {format!r} does not exist{_hint(format, list(FORMATS))}")
    reader = FORMATS[format]
    known = [field for field in fields(reader) if field.name != "root"]
    names = [field.name for field in known]
    wrong = [
        f"option {name!r} does not exist{_hint(name, names)}"
        for name in options
        if name not in names
    ]
    wrong += [
        f"option {field.name!r} must be given"
        for field in known
        if field.default is MISSING and field.name not in options
    ]
    if wrong:
        raise DataError(f"format {format!r}: " + "; ".join(wrong))
    # TOML and JSON give lists where a reader, a frozen value, has tuples.
    values = {name: tuple(v) if isinstance(v, list) else v for name, v in options.items()}
    made: RawReader = reader(root=root, **values)
    return made


def _hint(name: str, names: list[str]) -> str:
    near = get_close_matches(name, names, n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(names)}"
