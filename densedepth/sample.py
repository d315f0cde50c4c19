"""One picture with its depth: as a raw data set lists it, as a shard holds it, as arrays.

``Frame`` (a line of a list) -> reader -> ``EncodedSample`` (bytes, what a shard holds) ->
decode -> ``Sample`` (arrays).
"""

import hashlib
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32, UInt8

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")

TruthKind = Literal[
    "nyu_depths",
    "nyu_raw_depths",
    "kitti_annotated",
    "kitti_camera_z",
    "kitti_velodyne_x",
    "own",
]
"""What a data set's depth is. NYU: in-painted, or as measured with holes. KITTI: annotated (11
scans), or the frame's own scan projected, its depth along the camera's or the velodyne's axis."""

_UNSAFE = re.compile(r"[^A-Za-z0-9_-]+")
MAX_KEY_LENGTH = 80
"""A tar's header has 100 bytes for a name, extension included."""


def safe_key(text: str) -> str:
    """Make a key that every WebDataset reader keeps whole: letters, digits, ``_`` and ``-``.

    WebDataset cuts a member's name at its first dot, and raw NYU names have dots. What is longer
    than ``MAX_KEY_LENGTH`` ends in a digest of the whole; of a name in another alphabet, in which
    no letter is left, the digest is all.
    """
    key = _UNSAFE.sub("-", text).strip("-")
    if 0 < len(key) <= MAX_KEY_LENGTH:
        return key
    digest = hashlib.sha256(text.encode()).hexdigest()[:20]
    return f"{key[: MAX_KEY_LENGTH - 21]}-{digest}" if key else digest


@dataclass(frozen=True)
class Frame:
    """A frame of a raw data set, listed and not yet read.

    Attributes:
        key: name, unique within the data set and made by ``safe_key``.
        scene: what may not be cut in two by a validation split (a room, a drive).
        image_path: the colour picture.
        depth_path: the depth map (PNG), or the velodyne scan (``.bin``) it is projected from.
        focal_px: horizontal focal length in pixels, where the list names one.
    """

    key: str
    scene: str
    image_path: Path
    depth_path: Path
    focal_px: float | None = None


@dataclass(frozen=True)
class EncodedDepth:
    """A depth map packed without loss; ``densedepth.data.depth_codec`` packs and unpacks.

    Attributes:
        data: a pco file of the steps, row after row; 0 = no measurement.
        size_px: height and width.
        bits: per pixel: 8 or 16.
        crc32: of ``data``.
        num_measured: pixels that are not 0.
    """

    data: bytes
    size_px: tuple[int, int]
    bits: int
    crc32: int
    num_measured: int

    @property
    def has_holes(self) -> bool:
        """Whether a pixel has no measurement."""
        return self.num_measured < self.size_px[0] * self.size_px[1]


@dataclass(frozen=True)
class EncodedSample:
    """A frame as a shard holds it: the source's own JPEG where it is one, depth packed.

    Attributes:
        key: as in ``Frame``.
        image: the colour picture's file, JPEG or PNG.
        image_format: ``jpg`` or ``png``.
        depth: the depth map, of the picture's size.
        depth_unit_m: metres per step of ``depth`` (10/255, 1/1000, 1/256 ...).
        info: JSON-ready facts (data set, source path relative to its root, intrinsics).
    """

    key: str
    image: bytes
    image_format: Literal["jpg", "png"]
    depth: EncodedDepth
    depth_unit_m: float
    info: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Sample:
    """A frame as arrays.

    Attributes:
        key: as in ``Frame``.
        image: colour, 0..255.
        depth_m: metres; 0 = no measurement.
        info: as in ``EncodedSample``.
    """

    key: str
    image: UInt8[np.ndarray, "h w 3"]
    depth_m: Float32[np.ndarray, "h w"]
    info: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Skipped:
    """A line of a list that gave no frame, and why.

    Attributes:
        line: the line, or the frame's name.
        reason: why it gave none.
        is_bad: whether data is missing that the list promises, or the line cannot be read; not
            so where a data set is known to have no depth for a frame.
    """

    line: str
    reason: str
    is_bad: bool = False


@dataclass(frozen=True)
class Listing:
    """What a reader found for one split."""

    frames: tuple[Frame, ...]
    skipped: tuple[Skipped, ...] = ()


@runtime_checkable
class Reader(Protocol):
    """A raw data set: lists its frames cheaply, reads one at a time.

    A reader is a small picklable value: Ray carries it to the tasks that read.
    """

    @property
    def truth_kind(self) -> TruthKind:
        """What its test depth is; protocols are scored against one kind."""
        ...

    def list_frames(self, split: Split) -> Listing:
        """List a split without opening its pictures; the order is always the same.

        Raises:
            MissingDataError: the root or a list is not there.
            EmptySplitError: the list gives no frame.
        """
        ...

    def read(self, frame: Frame) -> EncodedSample:
        """Read and check one frame.

        Raises:
            BadFrameError: a file is missing or corrupt, sizes differ, no pixel is measured.
        """
        ...
