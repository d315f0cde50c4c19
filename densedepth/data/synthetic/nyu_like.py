"""Synthetic rooms written as DenseDepth's NYU folder: lists, JPEG and PNG."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import simplejpeg
from PIL import Image

from densedepth.data.synthetic.recipe import Progress, make_recipe, write_once
from densedepth.data.synthetic.rooms import room_frame, room_kind
from densedepth.sample import Split

_LISTS = ("data/nyu2_train.csv", "data/nyu2_test.csv")
_JPEG_QUALITY = 92
_STEPS_PER_M = {"train": 25.5, "test": 1000.0}


@dataclass(frozen=True)
class _Job:
    """One frame to write."""

    split: Split
    scene: int
    frame: int
    image: str
    depth: str


def write_nyu_like(
    root: Path,
    *,
    num_train_scenes: int,
    frames_per_scene: int,
    num_test: int,
    size_px: tuple[int, int] = (480, 640),
    seed: int,
    on_progress: Progress | None = None,
) -> None:
    """Write pictures of made-up rooms in the layout of DenseDepth's ``nyu_data.zip``.

    ``data/nyu2_train/<room>_<number>_out/<k>.jpg`` with ``<k>.png`` (8 bits, 255 = 10 m),
    ``data/nyu2_test/<number>_colors.jpg`` with ``<number>_depth.png`` (16 bits, millimetres), and
    the two csv lists with paths relative to ``root``. Every test frame is a room of its own, none
    of them a training room. The same arguments give the same bytes; a root that already holds
    them is left as it is.

    Args:
        root: folder to write to.
        num_train_scenes: rooms for training.
        frames_per_scene: pictures of each.
        num_test: test pictures.
        size_px: height and width.
        seed: of everything.
        on_progress: called with frames done and frames in all.

    Raises:
        ValueError: a number is too small.
        DataError: the root holds a data set that this function did not write.
    """
    recipe = make_recipe(
        "nyu_like",
        num_train_scenes=num_train_scenes,
        num_test=num_test,
        frames_per_scene=frames_per_scene,
        size_px=size_px,
        seed=seed,
    )
    train = []
    for scene in range(num_train_scenes):
        folder = f"data/nyu2_train/{room_kind(seed, 'train', scene)}_{scene:04d}_out"
        for k in range(frames_per_scene):
            train.append(_Job("train", scene, k, f"{folder}/{k + 1}.jpg", f"{folder}/{k + 1}.png"))
    test = []
    for i in range(num_test):
        name = f"data/nyu2_test/{i:05d}"
        test.append(_Job("test", i, 0, f"{name}_colors.jpg", f"{name}_depth.png"))
    write_once(
        root,
        recipe,
        dict(zip(_LISTS, (train, test), strict=True)),
        texts={},
        paths=lambda job: (root / job.image, root / job.depth),
        write=partial(_write, root, seed, size_px),
        line=lambda job: f"{job.image},{job.depth}",
        on_progress=on_progress,
    )


def _write(root: Path, seed: int, size_px: tuple[int, int], job: _Job) -> None:
    image, depth_m = room_frame(seed, job.split, job.scene, job.frame, size_px)
    jpeg = simplejpeg.encode_jpeg(image, quality=_JPEG_QUALITY, colorspace="RGB")
    (root / job.image).write_bytes(jpeg)
    dtype = np.uint8 if job.split == "train" else np.uint16
    steps = np.rint(depth_m * np.float32(_STEPS_PER_M[job.split])).astype(dtype)
    Image.fromarray(steps).save(root / job.depth, compress_level=3)
