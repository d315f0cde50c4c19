"""The paper's augmentation, on a batch and on whatever device the batch is.

Mirroring with probability 0.5, image and depth together, and a permutation of the colour
channels with probability 0.25. What happens to a sample is a function of that sample's seed
alone: not of the rest of the batch, the rank, the number of workers or the device.

The paper states 0.25 for an actual change of the channels. Its published code draws one of
seven entries, identity twice, with probability 0.5 (an actual change in 0.357 of the images);
the PyTorch port one of six permutations with 0.5 (0.417). Here the permutation is one of the
five that change something, so that the probability is the stated one.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor

_MASK_64 = (1 << 64) - 1
_GOLDEN_GAMMA = 0x9E3779B97F4A7C15
_MIX_1, _MIX_2 = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB

_NUM_SWAPS = 5
"""Orders of red, green and blue beside the one that changes nothing."""


class Augmented(NamedTuple):
    """A batch after augmentation: what ``augment_batch`` was given, in the same types."""

    images: UInt8[Tensor, "b 3 h w"] | Float[Tensor, "b 3 h w"]
    target: Float[Tensor, "b 1 th tw"]
    valid: Bool[Tensor, "b 1 th tw"] | None


def sample_seed(seed: int, epoch: int, sample_index: int) -> int:
    """Give a sample's own seed in an epoch, a number of 63 bits.

    Args:
        seed: the run's seed.
        epoch: number of the epoch.
        sample_index: the sample's place in the data set, not in the batch or on the worker.
    """
    state = 0
    for part in (seed, epoch, sample_index):
        state = _mix((state ^ (part & _MASK_64)) + _GOLDEN_GAMMA)
    return state >> 1


def augment_batch(
    images: UInt8[Tensor, "b 3 h w"] | Float[Tensor, "b 3 h w"],
    target: Float[Tensor, "b 1 th tw"],
    valid: Bool[Tensor, "b 1 th tw"] | None = None,
    *,
    sample_seeds: Int64[Tensor, " b"],
    flip_probability: float = 0.5,
    channel_swap_probability: float = 0.25,
) -> Augmented:
    """Mirror and recolour each sample as its seed decides; the inputs stay as they are.

    Args:
        images: colour pictures.
        target: depth or its inverse, of any size; mirrored with the image.
        valid: which target pixels are measured; mirrored with the image.
        sample_seeds: one per sample, from ``sample_seed``, on any device.
        flip_probability: of mirroring left to right.
        channel_swap_probability: of an actual change of the channels' order.

    Raises:
        ValueError: a probability lies outside [0, 1].
    """
    is_flipped, channels = draw_decisions(sample_seeds, flip_probability, channel_swap_probability)
    is_flipped = is_flipped.to(images.device, non_blocking=True)[:, None, None, None]
    channels = channels.to(images.device, non_blocking=True)
    rows = torch.arange(len(images), device=images.device)[:, None]
    swapped = images[rows, channels]
    return Augmented(
        images=torch.where(is_flipped, swapped.flip(-1), swapped),
        target=torch.where(is_flipped, target.flip(-1), target),
        valid=None if valid is None else torch.where(is_flipped, valid.flip(-1), valid),
    )


def draw_decisions(
    sample_seeds: Int64[Tensor, " b"],
    flip_probability: float = 0.5,
    channel_swap_probability: float = 0.25,
) -> tuple[Bool[Tensor, " b"], Int64[Tensor, "b 3"]]:
    """Say for each sample whether it is mirrored, and which channel goes where.

    Raises:
        ValueError: a probability lies outside [0, 1].
    """
    for name, probability in (
        ("flip_probability", flip_probability),
        ("channel_swap_probability", channel_swap_probability),
    ):
        if not 0.0 <= probability <= 1.0:
            raise ValueError(f"{name} must lie in [0, 1], not {probability}")
    is_flipped = _draw(sample_seeds, 1) < round(flip_probability * 2**32)
    is_swapped = _draw(sample_seeds, 2) < round(channel_swap_probability * 2**32)
    # 32 random bits times 5, upper half: 0..4 with equal probability (to 1e-9).
    choice = (_draw(sample_seeds, 3) * _NUM_SWAPS) >> 32
    return is_flipped, _order(is_swapped * (1 + choice))


def draw_uniform(sample_seeds: Int64[Tensor, " b"], stream: int) -> Float[Tensor, " b"]:
    """Draw a number in [0, 1] per seed; streams 1 to 3 are used by ``draw_decisions``."""
    return _draw(sample_seeds, stream).double().div(2**32).float()


def _order(numbers: Int64[Tensor, " b"]) -> Int64[Tensor, "b 3"]:
    """Give orders of three channels by their numbers, 0 to 5, as a dictionary would sort them.

    Computed: for a table that is copied to a GPU the host waits until all before it is done.
    """
    first = numbers >> 1
    lower, higher = (first == 0).long(), 2 - (first == 2).long()
    second = torch.where(numbers % 2 == 0, lower, higher)
    return torch.stack([first, second, 3 - first - second], 1)


def _draw(seeds: Int64[Tensor, " b"], stream: int) -> Int64[Tensor, " b"]:
    """Draw 32 random bits per seed: the upper half of splitmix64's output ``stream``.

    Whole-number arithmetic modulo 2^64, so that every device gives the same bits.
    """
    state = seeds + _signed(stream * _GOLDEN_GAMMA)
    state = (state ^ _shift_right(state, 30)) * _signed(_MIX_1)
    state = (state ^ _shift_right(state, 27)) * _signed(_MIX_2)
    return _shift_right(state ^ _shift_right(state, 31), 32)


def _shift_right(values: Int64[Tensor, " b"], bits: int) -> Int64[Tensor, " b"]:
    """Shift in zeros; ``>>`` on a signed number shifts in its sign."""
    return (values >> bits) & ((1 << (64 - bits)) - 1)


def _signed(value: int) -> int:
    """Read the lower 64 bits as a signed number, which is what a tensor holds."""
    value &= _MASK_64
    return value - (1 << 64) if value >> 63 else value


def _mix(value: int) -> int:
    """Mix 64 bits as splitmix64 does (Steele, Lea and Flood 2014)."""
    value &= _MASK_64
    value = ((value ^ (value >> 30)) * _MIX_1) & _MASK_64
    value = ((value ^ (value >> 27)) * _MIX_2) & _MASK_64
    return value ^ (value >> 31)
