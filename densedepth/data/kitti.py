"""KITTI raw with Eigen lists: annotated depth maps, or velodyne scans projected on reading."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from densedepth.data.encode import decode_size_px, encode_sample, quantise_depth
from densedepth.data.frame_files import encode_pair, read_bytes, source_name
from densedepth.data.kitti_list import KittiLine, parse_kitti_line
from densedepth.data.listing import (
    FolderIndex,
    ListingBuilder,
    find_list,
    find_root,
    read_lines,
    require_choice,
    require_frames,
)
from densedepth.data.split import part_of, require_fraction
from densedepth.data.velodyne import (
    CAMERA_FILE,
    VELODYNE_FILE,
    Calibration,
    DepthAxis,
    project_velodyne,
    read_calibration,
    read_scan,
)
from densedepth.errors import BadFrameError, MissingDataError
from densedepth.sample import EncodedSample, Frame, Listing, Split, TruthKind

DEPTH_UNIT_M = 1 / 256  # KITTI's own, kept for projected scans too

GroundTruth = Literal["annotated", "velodyne"]


@dataclass(frozen=True)
class KittiEigen:
    """KITTI raw frames named by a list, with one of two kinds of ground truth.

    Attributes:
        root: the folder with the days (``2011_09_26`` ...), or the one that holds them in
            ``raw/``.
        ground_truth: ``annotated`` (the depth maps of KITTI's depth benchmark, accumulated over
            11 scans) or ``velodyne`` (the frame's own scan, projected).
        train_list: a list of BTS, AdaBins or monodepth2; by default ``train_files.txt`` in the
            root.
        test_list: the same for the test split; by default ``test_files.txt`` in the root.
        annotated_root: the folder of ``data_depth_annotated``, its ``train/`` and ``val/`` apart
            or merged; by default looked for in and beside the root.
        depth_axis: of projected scans: ``camera_z``, or ``velodyne_x`` as the original
            evaluation has it.
        val_fraction: part of the training list that validates, in whole drives.
        seed: another seed takes other drives.
    """

    root: str | Path
    ground_truth: GroundTruth = "annotated"
    train_list: str | Path | None = None
    test_list: str | Path | None = None
    annotated_root: str | Path | None = None
    depth_axis: DepthAxis = "camera_z"
    val_fraction: float = 0.05
    seed: int = 0

    def __post_init__(self) -> None:
        require_choice("ground_truth", self.ground_truth, GroundTruth)
        require_choice("depth_axis", self.depth_axis, DepthAxis)
        require_fraction("val_fraction", self.val_fraction)

    @property
    def truth_kind(self) -> TruthKind:
        """What its test depth is."""
        if self.ground_truth == "annotated":
            return "kitti_annotated"
        return "kitti_camera_z" if self.depth_axis == "camera_z" else "kitti_velodyne_x"

    def list_frames(self, split: Split) -> Listing:
        """List a split from its list file; frames without ground truth are skipped.

        Raises:
            MissingDataError: the root, the list or the annotated depth is not there.
            EmptySplitError: the list gives no frame.
        """
        root = find_root(self.root, "KITTI's days (2011_09_26 ...) and the lists")
        if split == "test":
            path = find_list(root, self.test_list, "test_list", "test_files.txt")
        else:
            path = find_list(root, self.train_list, "train_list", "train_files.txt")
        listing = require_frames(self._read_list(path), split, f"{path} at {root}")
        return part_of(listing, split, self, self.val_fraction, self.seed)

    def read(self, frame: Frame) -> EncodedSample:
        """Read one frame; a scan becomes a 16-bit depth map in steps of 1/256 m.

        Raises:
            BadFrameError: a file is missing or corrupt, sizes differ, no pixel is measured.
            DataError: the day's calibration is missing or damaged.
        """
        day, camera = frame.image_path.parents[3], int(frame.image_path.parents[1].name[-2:])
        if self.ground_truth == "velodyne":
            calibration = read_calibration(day, camera)
            return self._project(frame, calibration, self._facts(frame, calibration))
        known = _has_calibration(day, FolderIndex())
        info = self._facts(frame, read_calibration(day, camera) if known else None)
        return encode_pair(frame, {16: DEPTH_UNIT_M}, info)

    def _project(
        self, frame: Frame, calibration: Calibration, info: dict[str, Any]
    ) -> EncodedSample:
        image_name, depth_name = str(frame.image_path), str(frame.depth_path)
        image = read_bytes(frame.image_path)
        size_px = decode_size_px(image, image_name)
        if size_px != calibration.size_px:
            raise BadFrameError(
                image_name,
                f"the picture is {size_px[1]}x{size_px[0]} pixels, its calibration is for "
                f"{calibration.size_px[1]}x{calibration.size_px[0]}",
            )
        points_xyzr = read_scan(frame.depth_path)
        depth_m = project_velodyne(points_xyzr, calibration, size_px, self.depth_axis)
        units = quantise_depth(depth_m, DEPTH_UNIT_M, depth_name)
        return encode_sample(
            frame.key,
            image,
            units,
            DEPTH_UNIT_M,
            info,
            image_name=image_name,
            depth_name=depth_name,
        )

    def _facts(self, frame: Frame, calibration: Calibration | None) -> dict[str, Any]:
        root = Path(self.root).expanduser()
        facts: dict[str, Any] = {
            "dataset": "kitti_eigen",
            "image_source": source_name(frame.image_path, root),
            "depth_source": source_name(frame.depth_path, root),
            "ground_truth": self.ground_truth,
            "focal_px": frame.focal_px,
        }
        if self.ground_truth == "velodyne":
            facts["depth_axis"] = self.depth_axis
        if calibration is not None:
            facts["focal_px"], facts["focal_y_px"] = calibration.focal_px
            facts["centre_x_px"], facts["centre_y_px"] = calibration.centre_px
        return facts

    def _read_list(self, path: Path) -> Listing:
        root = Path(self.root).expanduser()
        raw = root / "raw" if (root / "raw").is_dir() else root
        if not any(raw.glob("20??_??_??")):
            raise MissingDataError(
                f"no day's folder (2011_09_26 ...) in {raw}; set `root` to the folder of KITTI raw"
            )
        depth_folders = self._depth_folders() if self.ground_truth == "annotated" else []
        builder, files = ListingBuilder(), FolderIndex()
        for text in read_lines(path, "train_list or test_list"):
            try:
                line = parse_kitti_line(text)
            except ValueError as error:
                builder.skip(text, str(error), is_bad=True)
                continue
            first, second = (".jpg", ".png") if ".jpg" in text else (".png", ".jpg")
            image = files.find(line.picture + first, raw) or files.find(line.picture + second, raw)
            if image is None:
                reason = f"no picture {raw / line.picture}.png or .jpg"
                builder.skip(text, reason, is_bad=True)
                continue
            depth = _find_depth(line, raw, depth_folders, files)
            if isinstance(depth, str):
                # KITTI has annotated depth for some frames only; a scan was recorded for each.
                builder.skip(text, depth, is_bad=self.ground_truth == "velodyne")
            else:
                builder.add(text, line.name, line.drive, image, depth, line.focal_px)
        return builder.build()

    def _depth_folders(self) -> list[Path]:
        """Return the folders that may hold drives with annotated depth."""
        root = Path(self.root).expanduser()
        if self.annotated_root is not None:
            given = Path(self.annotated_root).expanduser()
            bases = [root / given, given]
        else:
            bases = [root / "data_depth_annotated", root.parent / "data_depth_annotated"]
        base = next((base for base in bases if base.is_dir()), None)
        if base is None:
            places = " nor ".join(str(base) for base in bases)
            raise MissingDataError(
                f"no annotated depth: neither {places} is a folder; set `annotated_root` to the "
                "unpacked data_depth_annotated.zip, or `ground_truth` to 'velodyne'"
            )
        return [base, base / "train", base / "val"]


def _find_depth(
    line: KittiLine, raw: Path, depth_folders: list[Path], files: FolderIndex
) -> Path | str:
    """Return the ground truth's file, or why there is none."""
    if not depth_folders:
        scan = files.find(line.scan, raw)
        if scan is None:
            return f"no velodyne scan {raw / line.scan}"
        if not _has_calibration(raw / line.date, files):
            return f"no {CAMERA_FILE} and {VELODYNE_FILE} in {raw / line.date}"
        return scan
    if line.annotated is None:
        return "the list says None: KITTI has no annotated depth for this frame"
    depth = files.find(line.annotated, *depth_folders)
    if depth is None:
        return f"no annotated depth {line.annotated} in {depth_folders[0]}, its train/ or its val/"
    return depth


def _has_calibration(day: Path, files: FolderIndex) -> bool:
    return all(files.find(name, day) is not None for name in (CAMERA_FILE, VELODYNE_FILE))
