"""How far away measured depth is: a wrong unit shows at once, before a network is trained on it."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from densedepth.data.encode import decode
from densedepth.errors import BadFrameError, DataError
from densedepth.sample import Frame, Reader

NUM_FRAMES = 12
"""Frames that are looked at; a wrong unit shows in the first."""
MAX_PIXELS = 100_000
"""Pixels of a frame that are looked at; of a larger one so many, evenly spread."""


@dataclass(frozen=True)
class MeasuredDepth:
    """The measured pixels of a few frames.

    Attributes:
        num_frames: how many frames they are of.
        low_m: 1 in 100 measured pixels is nearer, metres.
        median_m: half of them are nearer, metres.
        high_m: 1 in 100 is farther, metres.
        within: share of them, 0..1, inside the range that the network is asked for.
        refused: why each of the frames cannot be read that was left out.
    """

    num_frames: int
    low_m: float
    median_m: float
    high_m: float
    within: float
    refused: tuple[str, ...] = ()

    def __str__(self) -> str:
        return (
            f"depth of {self.num_frames} training frames: {self.low_m:.3g} to {self.high_m:.3g} m, "
            f"median {self.median_m:.3g} m"
        )


def measure_depth(
    reader: Reader, frames: Iterable[Frame], min_depth_m: float, max_depth_m: float
) -> MeasuredDepth:
    """Look at the depth of frames as a reader gives it; frames that cannot be read are left out.

    Only one frame at a time is in memory, and ``MAX_PIXELS`` of each of the others.

    Args:
        reader: the raw data set.
        frames: frames of it, at least one.
        min_depth_m: nearest depth that the network is asked for.
        max_depth_m: farthest depth that the network is asked for.

    Returns:
        Figures over the measured pixels of all frames together.

    Raises:
        BadFrameError: no frame can be read; the first one's reason.
        DataError: frames can be read, and no pixel is measured.
    """
    measured: list[np.ndarray] = []
    refused: list[BadFrameError] = []
    for frame in frames:
        try:
            depth_m = decode(reader.read(frame)).depth_m
        except BadFrameError as error:  # sharding tells all of them
            refused.append(error)
            continue
        step = -(-depth_m.size // MAX_PIXELS)
        # A copy of the few, or the frame would stay in memory below them.
        measured.append(depth_m[depth_m > 0][::step].copy())
        del depth_m
    if not measured:
        raise refused[0]
    depths_m = np.concatenate(measured)
    if not len(depths_m):
        raise DataError(
            f"no pixel of {len(measured)} training frames is measured (above 0 m): look at the "
            "depth files, and at the settings that say where and how they are read"
        )
    low_m, median_m, high_m = (float(m) for m in np.percentile(depths_m, (1, 50, 99)))
    within = float(np.mean((depths_m >= min_depth_m) & (depths_m <= max_depth_m)))
    why = tuple(str(error) for error in refused)
    return MeasuredDepth(len(measured), low_m, median_m, high_m, within, why)
