"""Pairs of picture and depth that the data plane's benchmarks read and write.

Real ones out of ``$DEPTH_SAMPLES/nyu_densedepth`` (the official test frames: 640x480, JPEG and
16-bit depth in millimetres), repeated under new names to the number asked for; without that
folder, rendered rooms in their place.
"""

import itertools
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from densedepth.data.depth_codec import unpack_depth
from densedepth.data.nyu import NyuDenseDepth
from densedepth.data.synthetic import write_nyu_like
from densedepth.sample import EncodedSample

SIZE_PX = (480, 640)
NUM_RENDERED = 16


@dataclass(frozen=True)
class Pair:
    """A frame as a raw data set has it: the JPEG's bytes and the depth's steps of a millimetre."""

    key: str
    jpeg: bytes
    depth_units: np.ndarray


def make_pairs(count: int) -> list[Pair]:
    """Return pairs of different names; different frames as many as there are."""
    samples = os.environ.get("DEPTH_SAMPLES")
    if samples:
        frames = _read(Path(samples) / "nyu_densedepth")
    else:
        with tempfile.TemporaryDirectory() as folder:
            write_nyu_like(
                Path(folder),
                num_train_scenes=1,
                frames_per_scene=1,
                num_test=NUM_RENDERED,
                size_px=SIZE_PX,
                seed=0,
            )
            frames = _read(Path(folder))
    kind = "real" if samples else "rendered"
    print(f"{count} pairs of {len(frames)} {kind} frames, {SIZE_PX[1]}x{SIZE_PX[0]}")
    turns = itertools.islice(itertools.cycle(frames), count)
    return [Pair(f"{i:05d}_{s.key}", s.image, unpack_depth(s.depth)) for i, s in enumerate(turns)]


def _read(root: Path) -> list[EncodedSample]:
    reader = NyuDenseDepth(root)
    samples = [reader.read(frame) for frame in reader.list_frames("test").frames]
    return [s for s in samples if s.image_format == "jpg" and s.depth.size_px == SIZE_PX]
