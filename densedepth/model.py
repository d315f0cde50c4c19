"""DenseDepth: a pretrained encoder and a decoder of bilinear upsampling, skips and convolutions.

Alhashim and Wonka, "High Quality Monocular Depth Estimation via Transfer Learning",
arXiv 1812.11941. The modules carry the names of the paper's table of layers.
"""

from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from densedepth.encoders import build_encoder
from densedepth.precision import without_autocast

InputNormalisation = Literal["none", "imagenet"]
SIZE_MULTIPLE_PX = 32
"""Sizes at which every level of the encoder is exactly half the one before."""
MIN_SIZE_PX = 32

_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)
_LEAKY_SLOPE = 0.2
_NUM_BLOCKS = 4


class Concat(nn.Module):
    """Joins two maps along the channels; a module so that hooks see the table's CONCAT rows."""

    def forward(
        self, x: Float[Tensor, "b c1 h w"], skip: Float[Tensor, "b c2 h w"]
    ) -> Float[Tensor, "b c1+c2 h w"]:
        """Put the skip connection's channels behind those of ``x``."""
        return torch.cat((x, skip), dim=1)


class Upsample(nn.Module):
    """Enlarges a map, bilinear, to a skip connection's size: twice as large, or a pixel off."""

    def __init__(self, *, align_corners: bool) -> None:
        super().__init__()
        self.align_corners = align_corners

    def forward(
        self, x: Float[Tensor, "b c h w"], size_px: tuple[int, int]
    ) -> Float[Tensor, "b c h2 w2"]:
        """Enlarge ``x`` to ``size_px``, height and width."""
        return functional.interpolate(x, size_px, mode="bilinear", align_corners=self.align_corners)


class UpBlock(nn.Module):
    """Doubles the resolution: upsample, join the skip connection, two 3x3 convolutions."""

    def __init__(
        self,
        in_channels: int,
        skip_channels: int,
        out_channels: int,
        *,
        conva_activation: bool,
        align_corners: bool,
    ) -> None:
        super().__init__()
        self.upsample = Upsample(align_corners=align_corners)
        self.concat = Concat()
        self.conva = nn.Conv2d(in_channels + skip_channels, out_channels, 3, padding=1)
        self.conva_activation = (
            nn.LeakyReLU(_LEAKY_SLOPE, inplace=True) if conva_activation else nn.Identity()
        )
        self.convb = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.convb_activation = nn.LeakyReLU(_LEAKY_SLOPE, inplace=True)

    def forward(
        self, x: Float[Tensor, "b c h w"], skip: Float[Tensor, "b s h2 w2"]
    ) -> Float[Tensor, "b d h2 w2"]:
        """Compute the block's map at the skip connection's resolution."""
        x = self.upsample(x, (skip.shape[-2], skip.shape[-1]))
        # Autocast enlarges in float32; what the convolution rounds anyway is joined rounded.
        x = self.concat(x.to(skip.dtype), skip)
        x = self.conva_activation(self.conva(x))
        return self.convb_activation(self.convb(x))


class DenseDepth(nn.Module):
    """The paper's network; every default is the paper's.

    Args:
        encoder: ``densenet169`` (paper), another of ``encoders.TORCHVISION_ENCODERS``, or
            ``timm:NAME``.
        decoder_width: the decoder's channels as a fraction of the encoder's output channels,
            in (0, 1]; None = all of them (paper). 0.5 is the paper's ablation.
        conva_activation: put a LeakyReLU also behind the first convolution of each block. The
            published weights have none there; the authors' code added it later.
        align_corners: how the decoder upsamples. The published weights need True.
        input_normalisation: ``none`` (paper: colours in [0, 1] as they are) or ``imagenet``
            (subtract the mean and divide by the standard deviation of ImageNet).

    Raises:
        ModuleNotFoundError: ``timm:NAME`` and timm is not installed.
        ValueError: an unknown encoder or setting.
    """

    _mean: Tensor
    _std: Tensor

    def __init__(
        self,
        encoder: str = "densenet169",
        decoder_width: float | None = None,
        *,
        conva_activation: bool = False,
        align_corners: bool = True,
        input_normalisation: InputNormalisation = "none",
    ) -> None:
        super().__init__()
        if input_normalisation not in ("none", "imagenet"):
            raise ValueError(
                f"input_normalisation is {input_normalisation!r}: it can be 'none' or 'imagenet'"
            )
        self._settings: dict[str, Any] = {
            "encoder": encoder,
            "decoder_width": decoder_width,
            "conva_activation": conva_activation,
            "align_corners": align_corners,
            "input_normalisation": input_normalisation,
        }
        self.encoder = build_encoder(encoder)
        *skips, top = self.encoder.channels
        width = _decoder_channels(top, decoder_width)
        self.conv2 = nn.Conv2d(top, width, 1)
        blocks = [
            UpBlock(
                width >> i,
                skip,
                width >> (i + 1),
                conva_activation=conva_activation,
                align_corners=align_corners,
            )
            for i, skip in enumerate(reversed(skips))
        ]
        self.up1, self.up2, self.up3, self.up4 = blocks
        self.conv3 = nn.Conv2d(width >> _NUM_BLOCKS, 1, 3, padding=1)
        for part in (self.conv2, *blocks, self.conv3):
            part.apply(_initialise_like_keras)
        self.register_buffer("_mean", _per_channel(_IMAGENET_MEAN), persistent=False)
        self.register_buffer("_std", _per_channel(_IMAGENET_STD), persistent=False)

    @property
    def num_trainable(self) -> int:
        """The number of trainable parameters."""
        return sum(p.numel() for p in self.parameters() if p.requires_grad)

    def settings(self) -> dict[str, Any]:
        """Give the arguments that rebuild this network: ``DenseDepth(**settings)``; JSON-ready."""
        return dict(self._settings)

    def forward(self, image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 1 h//2 w//2"]:
        """Estimate the training target ``max_m / depth_m`` at half the resolution.

        Args:
            image: colours in [0, 1]; height and width are even and at least 32. The paper's are
                multiples of 32; at others, such as 240x320, the encoder's deepest maps are
                rounded and the decoder enlarges them to the skip connections' sizes.

        Returns:
            The target, unbounded: ``DepthRange.to_depth_m`` makes metres of it.

        Raises:
            ValueError: the height or the width is odd or below 32.
        """
        height, width = image.shape[-2:]
        if height % 2 or width % 2 or min(height, width) < MIN_SIZE_PX:
            raise ValueError(
                f"image of {height}x{width} pixels: height and width must be even and at least "
                f"{MIN_SIZE_PX}. Resize or pad it, or call predict_depth_m, which does"
            )
        if self._settings["input_normalisation"] == "imagenet":
            image = (image - self._mean) / self._std
        conv1, pool1, pool2, pool3, top = self.encoder(image)
        x = self.conv2(top)
        x = self.up1(x, pool3)
        x = self.up2(x, pool2)
        x = self.up3(x, pool1)
        x = self.up4(x, conv1)
        # In bfloat16 the result would have 8 significant bits, a step of 0.4 %.
        with without_autocast(x.device):
            return self.conv3(x.to(self.conv3.weight.dtype))


def _decoder_channels(encoder_channels: int, decoder_width: float | None) -> int:
    if decoder_width is None:
        return encoder_channels
    if not 0 < decoder_width <= 1:
        raise ValueError(
            f"decoder_width is {decoder_width}: it is a fraction of the encoder's "
            f"{encoder_channels} output channels, above 0 and at most 1 (None = all)"
        )
    width = int(encoder_channels * decoder_width)
    if width >> _NUM_BLOCKS == 0:
        raise ValueError(
            f"decoder_width is {decoder_width}: {width} channels, halved {_NUM_BLOCKS} times, "
            f"leave none. Set at least {2**_NUM_BLOCKS / encoder_channels:.4f}"
        )
    return width


def _initialise_like_keras(module: nn.Module) -> None:
    """Give a convolution Keras' default start: Glorot uniform weights, zero bias."""
    if isinstance(module, nn.Conv2d):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def _per_channel(values: tuple[float, float, float]) -> Float[Tensor, "1 3 1 1"]:
    return torch.tensor(values).view(1, 3, 1, 1)
