"""From a picture of any size to metres, with the mirrored picture's estimate averaged in."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from densedepth.depth_range import DepthRange
from densedepth.model import MIN_SIZE_PX, SIZE_MULTIPLE_PX

SizePx = tuple[int, int]


@torch.no_grad()
def predict_depth_m(
    model: nn.Module,
    image: Float[Tensor, "b 3 h w"],
    depth_range: DepthRange,
    *,
    input_size_px: SizePx | None = None,
    output_size_px: SizePx | None = None,
    flip_average: bool = True,
) -> Float[Tensor, "b 1 H W"]:
    """Estimate metric depth, as the paper evaluates it.

    The network sees the image resized to ``input_size_px`` (bilinear, antialiased) or, without
    one, padded on the right and at the bottom to multiples of 32 by repeating the border; the
    padding's estimate is cut off. Its half-resolution output becomes metres, clamped to the range,
    and is then upsampled in depth, bilinear with ``align_corners=False``: pixels as areas, like the
    resizing of the paper's targets and evaluation, and independent of how the decoder upsamples.
    With ``flip_average`` the mirrored image goes the same way, and the mean of both is taken in
    depth, after upsampling. The result of a mirrored image is then the mirrored result, exactly.

    Args:
        model: a network in evaluation mode that gives the target at half its input's size.
        image: colours in [0, 1], any height and width.
        depth_range: the range that the network was trained for.
        input_size_px: height and width at which the network works, even and at least 32.
        output_size_px: height and width of the result; None = the image's.
        flip_average: average with the mirrored image's estimate.

    Returns:
        Metres within the range, float32.

    Raises:
        ValueError: the network is in training mode, or a size is not possible.
    """
    if model.training:
        raise ValueError(
            "the network is in training mode, in which its batch norms would use and change "
            "running statistics: call model.eval() first"
        )
    if input_size_px is not None and any(side < MIN_SIZE_PX or side % 2 for side in input_size_px):
        raise ValueError(
            f"input_size_px is {input_size_px}: height and width must be even and at least "
            f"{MIN_SIZE_PX}"
        )
    if output_size_px is not None and any(side <= 0 for side in output_size_px):
        raise ValueError(f"output_size_px is {output_size_px}: height and width must be positive")
    depth_m = _one_pass_m(model, image, depth_range, input_size_px, output_size_px)
    if flip_average:
        mirrored_m = _one_pass_m(model, image.flip(-1), depth_range, input_size_px, output_size_px)
        depth_m = (depth_m + mirrored_m.flip(-1)) / 2
    # Interpolation and the mean can leave the range by a rounding error.
    return depth_m.clamp(depth_range.min_m, depth_range.max_m)


def _one_pass_m(
    model: nn.Module,
    image: Float[Tensor, "b 3 h w"],
    depth_range: DepthRange,
    input_size_px: SizePx | None,
    output_size_px: SizePx | None,
) -> Float[Tensor, "b 1 H W"]:
    height, width = image.shape[-2:]
    if input_size_px is not None:
        seen = _resize(image, input_size_px, antialias=True)
    else:
        bottom, right = -height % SIZE_MULTIPLE_PX, -width % SIZE_MULTIPLE_PX
        seen = functional.pad(image, (0, right, 0, bottom), mode="replicate")
    depth_m = depth_range.to_depth_m(model(seen).float())
    if input_size_px is None:
        padded_px = (height + bottom, width + right)
        depth_m = _resize(depth_m, padded_px)[..., :height, :width]
    return _resize(depth_m, output_size_px or (height, width))


def _resize(
    maps: Float[Tensor, "b c h w"], size_px: SizePx, *, antialias: bool = False
) -> Float[Tensor, "b c H W"]:
    if tuple(maps.shape[-2:]) == size_px:
        return maps
    return functional.interpolate(
        maps, size_px, mode="bilinear", align_corners=False, antialias=antialias
    )
