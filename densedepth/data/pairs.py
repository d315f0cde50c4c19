"""A user's own data: colour pictures and depth PNGs, paired by what the wildcards matched."""

import math
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path, PurePosixPath
from typing import Any

from densedepth.data.frame_files import encode_pair, source_name
from densedepth.data.listing import ListingBuilder, find_root, require_frames
from densedepth.data.split import require_fraction, split_validation, take_split
from densedepth.errors import DataError, EmptySplitError
from densedepth.sample import EncodedSample, Frame, Listing, Split, TruthKind

_WILDCARD = re.compile(r"\*\*/|\*|\?")
_GROUPS = {"**/": "((?:[^/]+/)*)", "*": "([^/]*)", "?": "([^/])"}


@dataclass(frozen=True)
class ImagePairs:
    """Colour pictures (JPEG or PNG) and grey depth PNGs (8 or 16 bits) below one folder.

    A picture and a depth map belong together when the wildcards of the two patterns matched the
    same text: ``rgb/*.jpg`` and ``depth/*.png`` pair ``rgb/12.jpg`` with ``depth/12.png``.
    What all wildcards but the last matched is the scene: in ``*/rgb/*.jpg`` the first folder.

    Attributes:
        root: the folder that the patterns start from.
        image_glob: pattern of the pictures; ``*`` and ``?`` match within a name, ``**/`` any
            number of folders.
        depth_glob: pattern of the depth maps, with the same wildcards in the same order.
        depth_unit_m: metres per step of the depth maps: 0.001 for millimetres.
        invalid_values: steps that mean "no measurement"; 0 always does.
        test_scenes: scenes that are the test split; by default ``test_fraction`` chooses.
        test_fraction: part of all frames that is the test split, in whole scenes (blocks of
            consecutive frames where there is one scene).
        val_fraction: part of the remaining frames that validates, chosen the same way.
        seed: another seed takes other scenes.
        focal_x_px: horizontal focal length, when known.
        focal_y_px: vertical focal length.
        centre_x_px: the optical axis, from the left.
        centre_y_px: the optical axis, from the top.
    """

    root: str | Path
    image_glob: str
    depth_glob: str
    depth_unit_m: float
    invalid_values: tuple[int, ...] = ()
    test_scenes: tuple[str, ...] = ()
    test_fraction: float = 0.1
    val_fraction: float = 0.05
    seed: int = 0
    focal_x_px: float | None = None
    focal_y_px: float | None = None
    centre_x_px: float | None = None
    centre_y_px: float | None = None

    def __post_init__(self) -> None:
        require_fraction("test_fraction", self.test_fraction)
        require_fraction("val_fraction", self.val_fraction)
        if not (math.isfinite(self.depth_unit_m) and self.depth_unit_m > 0):
            raise DataError(
                f"depth_unit_m = {self.depth_unit_m}: give the metres per step of the depth PNG, "
                "0.001 for millimetres"
            )
        kinds = [_WILDCARD.findall(glob) for glob in (self.image_glob, self.depth_glob)]
        if not kinds[0] or kinds[0] != kinds[1] or "[" in self.image_glob + self.depth_glob:
            raise DataError(
                f"image_glob = {self.image_glob!r}, depth_glob = {self.depth_glob!r}: give both "
                "the same wildcards (**/ * ?) in the same order, at least one, and no [ ]: what "
                "they match pairs the files"
            )

    @property
    def truth_kind(self) -> TruthKind:
        """What its test depth is."""
        return "own"

    def list_frames(self, split: Split) -> Listing:
        """List a split of the pairs, in the order of the pictures' paths.

        Files without a partner are told with the training split.

        Raises:
            MissingDataError: the root is not there.
            EmptySplitError: nothing matches, nothing pairs, or the split has no frame.
            DataError: a test scene does not exist.
        """
        root = find_root(self.root, f"{self.image_glob} and {self.depth_glob}")
        source = f"{root} with {self.image_glob} and {self.depth_glob}"
        everything = require_frames(self._pair(root), split, source)
        rest, test = self._split_test(everything.frames)
        if split == "test":
            if not test:
                raise EmptySplitError(
                    f"test_fraction = {self.test_fraction} of {len(rest)} frames at {root} leaves "
                    "none for the test; give a larger test_fraction, or test_scenes"
                )
            return Listing(test)
        remainder = require_frames(Listing(rest, everything.skipped), split, source)
        return take_split(remainder, split, self.val_fraction, self.seed)

    def read(self, frame: Frame) -> EncodedSample:
        """Read one pair, its bytes untouched unless the depth holds one of ``invalid_values``.

        Raises:
            BadFrameError: a file is missing or corrupt, sizes differ, no pixel is measured.
        """
        root = Path(self.root).expanduser()
        info: dict[str, Any] = {
            "dataset": "image_pairs",
            "image_source": source_name(frame.image_path, root),
            "depth_source": source_name(frame.depth_path, root),
            "focal_px": self.focal_x_px,
            "focal_y_px": self.focal_y_px,
            "centre_x_px": self.centre_x_px,
            "centre_y_px": self.centre_y_px,
        }
        units = dict.fromkeys((8, 16), float(self.depth_unit_m))
        return encode_pair(frame, units, info, self.invalid_values)

    def _pair(self, root: Path) -> Listing:
        image_pattern, depth_pattern = _compile(self.image_glob), _compile(self.depth_glob)
        images: dict[tuple[str, ...], str] = {}
        depths: dict[tuple[str, ...], str] = {}
        for name in _walk(root):
            # A pattern as wide as *.png may take in the other's files: the narrower one wins.
            as_image, as_depth = image_pattern.fullmatch(name), depth_pattern.fullmatch(name)
            if as_depth and len(self.depth_glob) > len(self.image_glob):
                as_image = None
            if as_image:
                images[as_image.groups()] = name
            elif as_depth:
                depths[as_depth.groups()] = name
        builder = ListingBuilder()
        for match, image in images.items():
            if match not in depths:
                builder.skip(image, f"no depth map {_fill(self.depth_glob, match)}")
                continue
            key = str(PurePosixPath(image).with_suffix(""))
            scene = "/".join(part.strip("/") for part in match[:-1]) or "."
            paths = root / image, root / depths[match]
            builder.add(image, key, scene, *paths, focal_px=self.focal_x_px)
        for match, depth in depths.items():
            if match not in images:
                builder.skip(depth, f"no picture {_fill(self.image_glob, match)}")
        return builder.build()

    def _split_test(self, frames: tuple[Frame, ...]) -> tuple[tuple[Frame, ...], tuple[Frame, ...]]:
        if not self.test_scenes:
            return split_validation(frames, self.test_fraction, self.seed)
        scenes = {frame.scene for frame in frames}
        for name in self.test_scenes:
            if name not in scenes:
                near = get_close_matches(name, scenes, n=1)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                raise DataError(
                    f"test_scenes names {name!r}, which is none of the {len(scenes)} scenes{hint}"
                )
        test = tuple(frame for frame in frames if frame.scene in self.test_scenes)
        return tuple(frame for frame in frames if frame.scene not in self.test_scenes), test


def _compile(glob: str) -> re.Pattern[str]:
    """Make a regular expression whose groups are the wildcards."""
    texts = [re.escape(text) for text in _WILDCARD.split(glob)]
    groups = [_GROUPS[wildcard] for wildcard in _WILDCARD.findall(glob)]
    return re.compile("".join(a + b for a, b in zip(texts, [*groups, ""], strict=True)))


def _fill(glob: str, match: tuple[str, ...]) -> str:
    """Put what the wildcards matched into another pattern."""
    parts = iter(match)
    return _WILDCARD.sub(lambda _: next(parts), glob)


def _walk(root: Path) -> Iterator[str]:
    """Yield all files below a folder, sorted; links are followed, each folder once."""
    seen = {os.path.realpath(root)}
    for folder, below, names in os.walk(root, followlinks=True):
        new = []
        for name in sorted(below):
            real = os.path.realpath(os.path.join(folder, name))
            if real not in seen:
                seen.add(real)
                new.append(name)
        below[:] = new
        for name in sorted(names):
            yield (Path(folder) / name).relative_to(root).as_posix()
