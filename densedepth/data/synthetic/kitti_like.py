"""Synthetic drives written as KITTI: raw pictures, scans, calibration, annotated depth, lists."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from densedepth.data.synthetic.calibration import calibration_for
from densedepth.data.synthetic.drives import street_frame
from densedepth.data.synthetic.recipe import Progress, make_recipe, write_once
from densedepth.sample import Split

_LISTS = ("train_files.txt", "test_files.txt")
# Days on which KITTI did not record: nobody takes these drives for real ones.
_DAYS: dict[Split, str] = {"train": "2000_01_01", "test": "2000_01_02"}
_TEST_FRAMES_PER_DRIVE = 2
_TEST_STEP = 4
_STEPS_PER_M = np.float32(256)


@dataclass(frozen=True)
class _Job:
    """One frame to write."""

    split: Split
    drive: int
    frame: int

    @property
    def folder(self) -> str:
        return f"{_DAYS[self.split]}_drive_{self.drive:04d}_sync"

    @property
    def image(self) -> str:
        return f"{_DAYS[self.split]}/{self.folder}/image_02/data/{self.frame:010d}.png"

    @property
    def scan(self) -> str:
        return f"{_DAYS[self.split]}/{self.folder}/velodyne_points/data/{self.frame:010d}.bin"

    @property
    def annotated(self) -> str:
        return f"{self.folder}/proj_depth/groundtruth/image_02/{self.frame:010d}.png"

    def paths(self, root: Path) -> tuple[Path, Path, Path]:
        """Give the files of picture, scan and depth."""
        return (
            root / self.image,
            root / self.scan,
            root / "data_depth_annotated" / "train" / self.annotated,
        )


def write_kitti_like(
    root: Path,
    *,
    num_train_drives: int,
    frames_per_drive: int,
    num_test: int,
    size_px: tuple[int, int] = (375, 1242),
    seed: int,
    on_progress: Progress | None = None,
) -> None:
    """Write made-up drives along streets in the layout of KITTI raw and its annotated depth.

    ``<day>/<drive>_sync/image_02/data/*.png``, ``velodyne_points/data/*.bin``, both calibration
    files of each day, ``data_depth_annotated/train/<drive>_sync/proj_depth/groundtruth/image_02``
    (16 bits, 256 = 1 m, 0 = none), and ``train_files.txt`` and ``test_files.txt`` as BTS has them.
    Test drives go along streets of their own, two frames each. The same arguments give the same
    bytes; a root that already holds them is left as it is.

    Args:
        root: folder to write to.
        num_train_drives: drives for training.
        frames_per_drive: frames of each.
        num_test: test frames.
        size_px: height and width; the camera's intrinsics scale with it.
        seed: of everything.
        on_progress: called with frames done and frames in all.

    Raises:
        ValueError: a number is too small.
        DataError: the root holds a data set that this function did not write.
    """
    recipe = make_recipe(
        "kitti_like",
        num_train_drives=num_train_drives,
        num_test=num_test,
        frames_per_drive=frames_per_drive,
        size_px=size_px,
        seed=seed,
    )
    train = [_Job("train", d, k) for d in range(num_train_drives) for k in range(frames_per_drive)]
    per_drive = _TEST_FRAMES_PER_DRIVE
    test = [_Job("test", i // per_drive, i % per_drive * _TEST_STEP) for i in range(num_test)]
    calibration = calibration_for(size_px)
    focal = f"{calibration.focal_px:.4f}"
    texts = {
        f"{day}/{name}": text
        for day in _DAYS.values()
        for name, text in (
            ("calib_cam_to_cam.txt", calibration.cam_to_cam_text()),
            ("calib_velo_to_cam.txt", calibration.velo_to_cam_text()),
        )
    }
    write_once(
        root,
        recipe,
        dict(zip(_LISTS, (train, test), strict=True)),
        texts=texts,
        paths=lambda job: job.paths(root),
        write=partial(_write, root, seed, size_px),
        line=lambda job: f"{job.image} {job.annotated} {focal}",
        on_progress=on_progress,
    )


def _write(root: Path, seed: int, size_px: tuple[int, int], job: _Job) -> None:
    frame = street_frame(seed, job.split, job.drive, job.frame, size_px)
    image, scan, annotated = job.paths(root)
    Image.fromarray(frame.image).save(image, compress_level=1)
    scan.write_bytes(frame.scan.astype("<f4").tobytes())
    steps = np.rint(frame.annotated_m * _STEPS_PER_M).astype(np.uint16)
    Image.fromarray(steps).save(annotated, compress_level=3)
