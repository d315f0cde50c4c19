"""The span of depths a network is trained for, and its inverse-depth training target."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class DepthRange:
    """A nearest and a farthest depth in metres.

    The training target is ``y = max_m / depth_m`` (DenseDepth, section 3.2): 1 at the far end,
    ``max_target`` at the near end, and 0 where nothing was measured.

    Attributes:
        min_m: nearest depth, metres.
        max_m: farthest depth, metres.
    """

    min_m: float
    max_m: float

    def __post_init__(self) -> None:
        if not 0 < self.min_m < self.max_m < math.inf:
            raise ValueError(
                f"depth range of {self.min_m} to {self.max_m} metres: "
                "it needs 0 < min_m < max_m, both finite"
            )

    @property
    def max_target(self) -> float:
        """The target's largest value, at the near end."""
        return self.max_m / self.min_m

    def to_target(self, depth_m: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Turn metres into the training target.

        Args:
            depth_m: metres; 0, negative, NaN or infinite = no measurement.

        Returns:
            ``max_m / depth_m`` with the depth clamped to the range; 0 = no measurement.
        """
        measured = (depth_m > 0) & torch.isfinite(depth_m)
        # max_m stands in for what was not measured, so that no gradient passes through 1/0.
        clamped_m = torch.where(measured, depth_m, self.max_m).clamp(self.min_m, self.max_m)
        return torch.where(measured, self.max_m / clamped_m, 0.0)

    def to_depth_m(self, target: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Turn the network's output into metres.

        The output is clamped to [1, ``max_target``] before it is inverted. The network is free to
        put out negative values; inverted first, they would clamp to the near end of the range.

        Args:
            target: the network's output, in the unit of ``to_target``; NaN stays NaN.

        Returns:
            Metres within the range.
        """
        depth_m = self.max_m / target.clamp(1.0, self.max_target)
        return depth_m.clamp(self.min_m, self.max_m)


NYU = DepthRange(0.1, 10.0)
KITTI = DepthRange(1.0, 80.0)
