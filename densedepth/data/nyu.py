"""NYU Depth v2 in DenseDepth's folder: two csv lists, JPEG and PNG."""

import csv
import re
from dataclasses import dataclass
from pathlib import Path

from densedepth.data.frame_files import encode_pair, source_name
from densedepth.data.listing import (
    FolderIndex,
    ListingBuilder,
    find_root,
    read_lines,
    require_frames,
)
from densedepth.data.split import part_of, require_fraction
from densedepth.errors import MissingDataError
from densedepth.sample import EncodedSample, Frame, Listing, Split, TruthKind

MILLIMETRE_M = 1 / 1000
DENSEDEPTH_8_BIT_M = 10 / 255  # DenseDepth's training depth: 255 = 10 m
_RECORDING = re.compile(r"^(?P<room>.+_\d{4})[a-z]?(_out)?$")


def room_of(folder: str) -> str:
    """Name the room of a folder: ``kitchen_0028a_out`` and ``kitchen_0028b`` are one kitchen.

    NYU recorded some rooms in parts, told apart by a last letter.
    """
    found = _RECORDING.match(folder)
    return found["room"] if found else folder


@dataclass(frozen=True)
class NyuDenseDepth:
    """DenseDepth's folder: ``data/nyu2_train.csv`` and ``data/nyu2_test.csv``, JPEG and PNG.

    Training depth is 8-bit (255 = 10 m) and test depth 16-bit (mm); which a file is, its own
    header says.

    Attributes:
        root: the folder above ``data/``, or ``data/`` itself.
        val_fraction: part of the training list that validates, in whole rooms.
        seed: another seed takes other rooms.
    """

    root: str | Path
    val_fraction: float = 0.05
    seed: int = 0

    def __post_init__(self) -> None:
        require_fraction("val_fraction", self.val_fraction)

    @property
    def truth_kind(self) -> TruthKind:
        """What its test depth is."""
        return "nyu_depths"

    def list_frames(self, split: Split) -> Listing:
        """List a split from its csv.

        Raises:
            MissingDataError: the root or the csv is not there.
            EmptySplitError: the csv gives no frame.
        """
        path = self._csv("test" if split == "test" else "train")
        listing = require_frames(_read_csv(path), split, str(path))
        return part_of(listing, split, self, self.val_fraction, self.seed)

    def read(self, frame: Frame) -> EncodedSample:
        """Read one frame, its bytes untouched.

        Raises:
            BadFrameError: a file is missing or corrupt, sizes differ, no pixel is measured.
        """
        root = self._folder()
        info = {
            "dataset": "nyu_densedepth",
            "image_source": source_name(frame.image_path, root),
            "depth_source": source_name(frame.depth_path, root),
        }
        return encode_pair(frame, {8: DENSEDEPTH_8_BIT_M, 16: MILLIMETRE_M}, info)

    def _folder(self) -> Path:
        """Return the folder that holds the lists."""
        root = Path(self.root).expanduser()
        return root / "data" if (root / "data").is_dir() else root

    def _csv(self, name: str) -> Path:
        root = find_root(self.root, "data/nyu2_train.csv and data/nyu2_test.csv")
        path = self._folder() / f"nyu2_{name}.csv"
        if not path.is_file():
            raise MissingDataError(
                f"no nyu2_{name}.csv: looked for {root / 'data' / path.name} and "
                f"{root / path.name}; set `root` to the folder that holds data/nyu2_{name}.csv"
            )
        return path


def _read_csv(path: Path) -> Listing:
    """Read rows ``data/.../1.jpg,data/.../1.png``; paths are relative to the folder above."""
    builder, files = ListingBuilder(), FolderIndex()
    for line in read_lines(path, "root"):
        row = next(csv.reader([line]))
        if len(row) != 2:
            builder.skip(line, f"{len(row)} columns instead of 2 (picture, depth)", is_bad=True)
            continue
        # Without their first folder the paths hold too where data/ has another name.
        names = [cell.strip().lstrip("/").removeprefix("data/") for cell in row]
        image, depth = (files.find(name, path.parent) for name in names)
        if image is None or depth is None:
            missing = names[0] if image is None else names[1]
            builder.skip(line, f"no such file: {path.parent / missing}", is_bad=True)
            continue
        key = names[0].rpartition(".")[0]
        builder.add(line, key, room_of(image.parent.name), image, depth)
    return builder.build()
