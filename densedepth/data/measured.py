"""How far away measured depth is: a wrong unit shows at once, before a network is trained on it."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from densedepth.data.encode import decode
from densedepth.errors import DataError
from densedepth.sample import Frame, Reader

NUM_FRAMES = 12
"""Frames that are looked at; a wrong unit shows in the first."""


@dataclass(frozen=True)
class MeasuredDepth:
    """The measured pixels of a few frames.

    Attributes:
        num_frames: how many frames they are of.
        low_m: 1 in 100 measured pixels is nearer, metres.
        median_m: half of them are nearer, metres.
        high_m: 1 in 100 is farther, metres.
        within: share of them, 0..1, inside the range that the network is asked for.
    """

    num_frames: int
    low_m: float
    median_m: float
    high_m: float
    within: float

    def __str__(self) -> str:
        return (
            f"depth of {self.num_frames} training frames: {self.low_m:.3g} to {self.high_m:.3g} m, "
            f"median {self.median_m:.3g} m"
        )


def measure_depth(
    reader: Reader, frames: Iterable[Frame], min_depth_m: float, max_depth_m: float
) -> MeasuredDepth | None:
    """Look at the depth of frames as a reader gives it; frames that cannot be read are left out.

    Args:
        reader: the raw data set.
        frames: frames of it.
        min_depth_m: nearest depth that the network is asked for.
        max_depth_m: farthest depth that the network is asked for.

    Returns:
        Figures over all measured pixels; None where no frame can be read.
    """
    measured: list[np.ndarray] = []
    for frame in frames:
        try:
            depth_m = decode(reader.read(frame)).depth_m
        except DataError:  # sharding tells bad frames, each with its reason
            continue
        measured.append(depth_m[depth_m > 0])
    if not measured:
        return None
    depths_m = np.concatenate(measured)
    low_m, median_m, high_m = (float(m) for m in np.percentile(depths_m, (1, 50, 99)))
    within = float(np.mean((depths_m >= min_depth_m) & (depths_m <= max_depth_m)))
    return MeasuredDepth(len(measured), low_m, median_m, high_m, within)
