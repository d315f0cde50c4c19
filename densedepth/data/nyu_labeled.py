"""NYU Depth v2's labelled set: ``nyu_depth_v2_labeled.mat`` with ``splits.mat``."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from densedepth.data.encode import encode_image_png, encode_sample, quantise_depth
from densedepth.data.listing import ListingBuilder, find_root, require_choice, require_frames
from densedepth.data.nyu import room_of
from densedepth.data.split import part_of, require_fraction
from densedepth.errors import BadFrameError, MissingDataError
from densedepth.sample import EncodedSample, Frame, Listing, Split, TruthKind

MAT_NAME = "nyu_depth_v2_labeled.mat"
SPLITS_NAME = "splits.mat"
# The file's depths are float32 up to 10 m. Steps of 1/6000 m reach 10.92 m and err by at most
# 0.083 mm; millimetres would err by 0.5 mm.
DEPTH_UNIT_M = 1 / 6000
_KEY_PREFIX = "nyu_labeled_"

DepthKind = Literal["depths", "rawDepths"]


@dataclass(frozen=True)
class NyuLabeled:
    """The official 1449 labelled frames (795 training, 654 test) in MATLAB's HDF5 file.

    MATLAB stores columns first: pictures are (n, 3, width, height), depth (n, width, height).
    A frame's key holds its index, counted from 0; ``splits.mat`` counts from 1. Pictures become
    PNG and depth 16-bit PNG in steps of 1/6000 m.

    Attributes:
        root: the folder with both files.
        kind: ``depths`` (in-painted, no holes: DenseDepth's ground truth) or ``rawDepths`` (as
            measured, 0 = a hole: that of BTS, AdaBins and most later work).
        val_fraction: part of the training frames that validates, in whole rooms.
        seed: another seed takes other rooms.
    """

    root: str | Path
    kind: DepthKind = "depths"
    val_fraction: float = 0.05
    seed: int = 0

    def __post_init__(self) -> None:
        require_choice("kind", self.kind, DepthKind)
        require_fraction("val_fraction", self.val_fraction)

    @property
    def truth_kind(self) -> TruthKind:
        """What its test depth is."""
        return "nyu_depths" if self.kind == "depths" else "nyu_raw_depths"

    def list_frames(self, split: Split) -> Listing:
        """List a split from ``splits.mat``.

        Raises:
            MissingDataError: a file is not there, cut off, or lacks an array.
            EmptySplitError: the split gives no frame.
        """
        root = find_root(self.root, f"{MAT_NAME} and {SPLITS_NAME}")
        mat_path = root / MAT_NAME
        num_frames, rooms = self._read_index(mat_path)
        builder = ListingBuilder()
        for number in _read_split(root / SPLITS_NAME, "test" if split == "test" else "train"):
            line, index = f"{SPLITS_NAME}: {number}", number - 1
            if not 0 <= index < num_frames:
                builder.skip(line, f"{MAT_NAME} holds {num_frames} frames")
                continue
            scene = rooms[index] if rooms else "labeled"
            builder.add(line, f"{_KEY_PREFIX}{index:05d}", scene, mat_path, mat_path)
        listing = require_frames(builder.build(), split, str(mat_path))
        return part_of(listing, split, self, self.val_fraction, self.seed)

    def read(self, frame: Frame) -> EncodedSample:
        """Read one frame out of the file and encode it without visible loss.

        Raises:
            BadFrameError: the file cannot be read there, or no pixel is measured.
        """
        import h5py

        index = int(frame.key.removeprefix(_KEY_PREFIX))
        name = f"{frame.image_path}[{index}]"
        try:
            with h5py.File(frame.image_path) as mat:
                image = np.ascontiguousarray(mat["images"][index].transpose(2, 1, 0))
                depth_m = mat[self.kind][index].T
        except (OSError, KeyError, IndexError, ValueError) as error:
            raise BadFrameError(name, f"cannot be read: {error}") from error
        info = {
            "dataset": "nyu_labeled",
            "image_source": f"{MAT_NAME}/images/{index}",
            "depth_source": f"{MAT_NAME}/{self.kind}/{index}",
            "index": index,
        }
        units = quantise_depth(depth_m, DEPTH_UNIT_M, name)
        return encode_sample(
            frame.key,
            encode_image_png(image),
            units,
            DEPTH_UNIT_M,
            info,
            image_name=name,
            depth_name=name,
        )

    def _read_index(self, path: Path) -> tuple[int, list[str]]:
        """Return how many frames the file holds, and their rooms where it names them."""
        import h5py

        if not path.is_file():
            raise MissingDataError(f"no {path}; set `root` to the folder that holds {MAT_NAME}")
        try:
            with h5py.File(path) as mat:
                missing = [name for name in ("images", self.kind) if name not in mat]
                if missing:
                    raise MissingDataError(f"{path} has no array {' and no array '.join(missing)}")
                return len(mat["images"]), _read_rooms(mat)
        except OSError as error:
            raise MissingDataError(
                f"{path} is no whole HDF5 file: {error}; copy it again"
            ) from error


def _read_rooms(mat: Any) -> list[str]:
    """Read the cell array ``scenes``: references to strings, a number per letter."""
    if "scenes" not in mat:
        return []
    references = np.asarray(mat["scenes"]).ravel()
    return [room_of("".join(map(chr, np.asarray(mat[ref]).ravel()))) for ref in references]


def _read_split(path: Path, name: str) -> list[int]:
    """Read ``trainNdxs`` or ``testNdxs``, counted from 1."""
    import scipy.io

    if not path.is_file():
        raise MissingDataError(f"no {path}; set `root` to the folder that holds {SPLITS_NAME} too")
    try:
        numbers = scipy.io.loadmat(path, variable_names=[f"{name}Ndxs"])[f"{name}Ndxs"]
    except (KeyError, ValueError, TypeError, OSError) as error:
        raise MissingDataError(f"{path} gives no {name}Ndxs: {error}") from error
    return [int(number) for number in numbers.ravel()]
