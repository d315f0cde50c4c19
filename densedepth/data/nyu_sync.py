"""NYU Depth v2 in the sync folders of BTS and AdaBins."""

from dataclasses import dataclass
from pathlib import Path

from densedepth.data.frame_files import encode_pair, source_name
from densedepth.data.listing import (
    FolderIndex,
    ListingBuilder,
    find_list,
    find_root,
    read_lines,
    require_frames,
)
from densedepth.data.nyu import MILLIMETRE_M, room_of
from densedepth.data.split import part_of, require_fraction
from densedepth.sample import EncodedSample, Frame, Listing, Split, TruthKind


@dataclass(frozen=True)
class NyuSync:
    """BTS's and AdaBins' folders: ``<scene>/rgb_*.jpg``, ``<scene>/sync_depth_*.png`` and lists.

    Depth is 16-bit, in mm, as the Kinect measured it: 0 = a hole.

    Attributes:
        root: the folder with the scenes; or the one that holds ``sync/`` (training) and
            ``official_splits/test/``.
        train_list: list of ``picture depth focal``, with or without leading slashes; by default
            ``train_files.txt`` in the root.
        test_list: the same for the test split; by default ``test_files.txt`` in the root.
        val_fraction: part of the training list that validates, in whole rooms.
        seed: another seed takes other rooms.
    """

    root: str | Path
    train_list: str | Path | None = None
    test_list: str | Path | None = None
    val_fraction: float = 0.05
    seed: int = 0

    def __post_init__(self) -> None:
        require_fraction("val_fraction", self.val_fraction)

    @property
    def truth_kind(self) -> TruthKind:
        """What its test depth is."""
        return "nyu_raw_depths"

    def list_frames(self, split: Split) -> Listing:
        """List a split from its list file.

        Raises:
            MissingDataError: the root or the list is not there.
            EmptySplitError: the list gives no frame.
        """
        root = find_root(self.root, "the scenes' folders with rgb_*.jpg and sync_depth_*.png")
        if split == "test":
            path = find_list(root, self.test_list, "test_list", "test_files.txt")
            folders = [root / "official_splits" / "test", root]
        else:
            path = find_list(root, self.train_list, "train_list", "train_files.txt")
            folders = [root / "sync", root]
        listing = require_frames(_read_sync_list(path, folders), split, f"{path} at {root}")
        return part_of(listing, split, self, self.val_fraction, self.seed)

    def read(self, frame: Frame) -> EncodedSample:
        """Read one frame, its bytes untouched.

        Raises:
            BadFrameError: a file is missing or corrupt, sizes differ, no pixel is measured.
        """
        root = Path(self.root).expanduser()
        info = {
            "dataset": "nyu_sync",
            "image_source": source_name(frame.image_path, root),
            "depth_source": source_name(frame.depth_path, root),
            "focal_px": frame.focal_px,
        }
        return encode_pair(frame, {16: MILLIMETRE_M}, info)


def _read_sync_list(path: Path, folders: list[Path]) -> Listing:
    builder, files = ListingBuilder(), FolderIndex()
    for line in read_lines(path, "train_list or test_list"):
        cells = line.split()
        try:
            image_name, depth_name = cells[0].lstrip("/"), cells[1].lstrip("/")
            focal_px = float(cells[2]) if len(cells) > 2 else None
        except (IndexError, ValueError):
            builder.skip(line, "not of the form: picture depth focal", is_bad=True)
            continue
        image, depth = files.find(image_name, *folders), files.find(depth_name, *folders)
        if image is None or depth is None:
            missing = image_name if image is None else depth_name
            places = " or ".join(str(folder) for folder in folders)
            builder.skip(line, f"no such file: {missing} in {places}", is_bad=True)
            continue
        key = image_name.rpartition(".")[0]
        builder.add(line, key, room_of(image.parent.name), image, depth, focal_px)
    return builder.build()
