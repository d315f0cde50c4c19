"""Batches: as the loader delivers them, in whole numbers, and as training takes them, in metres.

A ``PackedBatch`` holds pictures as uint8 and depth as the uint16 steps that a shard holds, a third
of the bytes of the floats. ``to`` copies it to the device and makes metres of the target's size
there.
"""

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float32, Int64, UInt8, UInt16
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """Samples of one size, as training takes them.

    Attributes:
        keys: the samples' keys.
        image: colour, 0..255.
        depth_m: metres at the network's output size; 0 = no measurement. Where pixels are
            merged their inverse depths are averaged, as the paper's target is.
        valid: where ``depth_m`` is a measurement.
        sample_seeds: what each sample's augmentation is drawn from.
    """

    keys: tuple[str, ...]
    image: UInt8[Tensor, "b 3 h w"]
    depth_m: Float32[Tensor, "b 1 h2 w2"]
    valid: Bool[Tensor, "b 1 h2 w2"]
    sample_seeds: Int64[Tensor, "b"]

    def to(self, device: torch.device) -> "Batch":
        """Copy to a device, asynchronously from pinned memory."""
        return replace(
            self,
            image=self.image.to(device, non_blocking=True),
            depth_m=self.depth_m.to(device, non_blocking=True),
            valid=self.valid.to(device, non_blocking=True),
            sample_seeds=self.sample_seeds.to(device, non_blocking=True),
        )


@dataclass(frozen=True)
class PackedBatch:
    """Samples of one size, as the loader delivers them.

    Depth comes in steps where the stored maps have the input's size, else in metres and already
    at the target's size.

    Attributes:
        keys: the samples' keys.
        image: colour, 0..255; a view of pixels that lie height, width, colour.
        depth_units: depth steps; 0 = no measurement.
        has_holes: whether a step may be 0.
        steps_per_m: of each sample.
        depth_m: metres at the target's size; 0 = no measurement.
        sample_seeds: what each sample's augmentation is drawn from.
        target_size_px: height and width of the target.
    """

    keys: tuple[str, ...]
    image: UInt8[Tensor, "b 3 h w"]
    depth_units: UInt16[Tensor, "b h w"] | None
    has_holes: bool
    steps_per_m: Float32[Tensor, "b"]
    depth_m: Float32[Tensor, "b 1 h2 w2"] | None
    sample_seeds: Int64[Tensor, "b"]
    target_size_px: tuple[int, int]

    def to(self, device: torch.device) -> Batch:
        """Copy to a device, asynchronously from pinned memory, and make the target there."""
        if self.depth_m is not None:
            depth_m = self.depth_m.to(device, non_blocking=True)
        else:
            assert self.depth_units is not None
            units = self.depth_units.to(device, non_blocking=True)
            steps_per_m = self.steps_per_m.to(device, non_blocking=True)
            depth_m = resize_depth(
                units.float().div_(steps_per_m[:, None, None]),
                self.target_size_px,
                has_holes=self.has_holes,
            )[:, None]
        return Batch(
            keys=self.keys,
            image=self.image.to(device, non_blocking=True),
            depth_m=depth_m,
            valid=depth_m > 0,
            sample_seeds=self.sample_seeds.to(device, non_blocking=True),
        )

    def pin_memory(self) -> "PackedBatch":
        """Copy to page-locked memory what is not there yet: copies to a GPU then overlap."""
        return replace(
            self,
            image=self.image.pin_memory(),
            depth_units=None if self.depth_units is None else self.depth_units.pin_memory(),
            steps_per_m=self.steps_per_m.pin_memory(),
            depth_m=None if self.depth_m is None else self.depth_m.pin_memory(),
            sample_seeds=self.sample_seeds.pin_memory(),
        )


def resize_depth(
    depth_m: Float32[Tensor, "b h w"], size_px: tuple[int, int], *, has_holes: bool = True
) -> Float32[Tensor, "b h2 w2"]:
    """Resize depth maps to (height, width), averaging the inverse depths that were measured.

    Args:
        depth_m: metres; 0 = no measurement.
        size_px: the new height and width.
        has_holes: whether a pixel may be 0; without holes half of the work is left out.

    Returns:
        Metres; 0 where no measurement falls into the pixel.
    """
    height_px, width_px = depth_m.shape[1:]
    if (height_px, width_px) == size_px:
        return depth_m
    shrink = _halve if (height_px, width_px) == (2 * size_px[0], 2 * size_px[1]) else _interpolate
    if not has_holes:
        ones = torch.ones_like(depth_m[:1])
        return shrink(ones, size_px) / shrink(depth_m.reciprocal(), size_px)
    is_measured = depth_m > 0
    inverse = torch.where(is_measured, depth_m, torch.inf).reciprocal_()
    inverse, share = shrink(inverse, size_px), shrink(is_measured.float(), size_px)
    return torch.where(share > 1e-3, share / inverse, 0.0)


def _interpolate(
    planes: Float32[Tensor, "b h w"], size_px: tuple[int, int]
) -> Float32[Tensor, "b h2 w2"]:
    """Resize bilinearly, anti-aliased."""
    return F.interpolate(planes[:, None], size=size_px, mode="bilinear", antialias=True)[:, 0]


def _halve(
    planes: Float32[Tensor, "b h w"], size_px: tuple[int, int]
) -> Float32[Tensor, "b h2 w2"]:
    """Do what ``_interpolate`` does at half the size, some factor apart, in a third of its time.

    Weights are 1, 3, 3, 1 in each direction; at an edge the outer 1 is missing. What is returned
    is their sum and no mean: two planes' quotient is the same.
    """
    for axis in (1, 2):
        even, odd = planes.unfold(axis, 2, 2).unbind(-1)
        halved = (even + odd).mul_(3)
        count = halved.shape[axis] - 1
        halved.narrow(axis, 1, count).add_(odd.narrow(axis, 0, count))
        halved.narrow(axis, 0, count).add_(even.narrow(axis, 1, count))
        planes = halved
    return planes
