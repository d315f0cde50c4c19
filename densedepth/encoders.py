"""The encoders: ImageNet networks cut to five feature maps at strides 2, 4, 8, 16 and 32.

A torchvision encoder keeps torchvision's names inside ``features``, so that a published file of
weights fits without a table of names.
"""

import difflib
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
import torchvision
from jaxtyping import Float
from torch import Tensor, nn

STRIDES = (2, 4, 8, 16, 32)
TIMM_PREFIX = "timm:"


@dataclass(frozen=True)
class _Cut:
    """How a torchvision network is cut.

    Attributes:
        stages: takes the network, gives its layers in order with their names.
        taps: the layers whose outputs are the five feature maps.
        channels: the channels of these outputs.
    """

    stages: Callable[[nn.Module], Iterable[tuple[str, nn.Module]]]
    taps: tuple[str, str, str, str, str]
    channels: tuple[int, int, int, int, int]


class _DenseBlock(nn.ModuleDict):
    """torchvision's dense block, which joins its maps one by one.

    The gradient of each layer is then added to the sum of those behind it; joined anew for each
    layer, as torchvision does, every pair of layers adds one, a thousand in DenseNet-169.
    """

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c2 h w"]:
        """Put each layer's maps behind those before it."""
        for layer in self.values():
            x = torch.cat((x, layer(x)), dim=1)
        return x


def _densenet_stages(network: nn.Module) -> Iterable[tuple[str, nn.Module]]:
    for name, stage in network.get_submodule("features").named_children():
        yield name, _DenseBlock(dict(stage.items())) if isinstance(stage, nn.ModuleDict) else stage
    # torchvision applies this ReLU outside of `features`; Keras' DenseNet, and the paper, inside.
    yield "relu5", nn.ReLU(inplace=True)


def _resnet_stages(network: nn.Module) -> Iterable[tuple[str, nn.Module]]:
    return ((name, m) for name, m in network.named_children() if name not in ("avgpool", "fc"))


def _feature_stages(network: nn.Module) -> Iterable[tuple[str, nn.Module]]:
    return network.get_submodule("features").named_children()


_DENSENET_TAPS = ("relu0", "pool0", "transition1", "transition2", "relu5")
_CUTS = {
    "densenet121": _Cut(_densenet_stages, _DENSENET_TAPS, (64, 64, 128, 256, 1024)),
    "densenet161": _Cut(_densenet_stages, _DENSENET_TAPS, (96, 96, 192, 384, 2208)),
    "densenet169": _Cut(_densenet_stages, _DENSENET_TAPS, (64, 64, 128, 256, 1664)),
    "densenet201": _Cut(_densenet_stages, _DENSENET_TAPS, (64, 64, 128, 256, 1920)),
    "mobilenet_v2": _Cut(_feature_stages, ("1", "3", "6", "13", "18"), (16, 24, 32, 96, 1280)),
    "efficientnet_b0": _Cut(_feature_stages, ("1", "2", "3", "5", "8"), (16, 24, 40, 112, 1280)),
    "resnet50": _Cut(
        _resnet_stages, ("relu", "layer1", "layer2", "layer3", "layer4"), (64, 256, 512, 1024, 2048)
    ),
}
TORCHVISION_ENCODERS = tuple(_CUTS)


class TorchvisionEncoder(nn.Module):
    """A torchvision classifier without its head, tapped at five layers.

    Attributes:
        features: the layers, under torchvision's names.
        channels: channels of the five feature maps, finest first.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        cut = _CUTS[name]
        self.features = nn.Sequential()
        for child, stage in cut.stages(torchvision.models.get_model(name, weights=None)):
            self.features.add_module(child, stage)
        self.channels: tuple[int, ...] = cut.channels
        self._taps = cut.taps

    def forward(self, image: Float[Tensor, "b 3 h w"]) -> tuple[Tensor, ...]:
        """Compute the five feature maps, finest first."""
        levels = []
        x = image
        for name, stage in self.features.named_children():
            x = stage(x)
            if name in self._taps:
                levels.append(x)
        return tuple(levels)


class TimmEncoder(nn.Module):
    """A timm network's feature maps; timm is an optional dependency.

    Attributes:
        features: timm's network.
        channels: channels of the five feature maps, finest first; 0 at stride 2 where a network
            begins at stride 4 (ConvNeXt, Swin): the decoder then has no skip connection there.

    Raises:
        ModuleNotFoundError: timm is not installed.
        ValueError: timm has no such network, or it lacks one of the strides 4 to 32.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        try:
            import timm
        except ImportError as error:
            raise ModuleNotFoundError(
                f"encoder {TIMM_PREFIX}{name} needs the package timm: install it, or choose one "
                f"of {', '.join(TORCHVISION_ENCODERS)}"
            ) from error
        try:
            self.features = timm.create_model(name, pretrained=False, features_only=True)
        except (RuntimeError, ValueError, AssertionError, AttributeError) as error:
            raise ValueError(
                f"encoder {TIMM_PREFIX}{name}: timm gives no feature maps of this network ({error})"
            ) from error
        strides = list(self.features.feature_info.reduction())
        if missing := [stride for stride in STRIDES[1:] if stride not in strides]:
            raise ValueError(
                f"encoder {TIMM_PREFIX}{name} has feature maps at strides {strides} and none at "
                f"{missing}: the decoder needs all of {list(STRIDES[1:])}"
            )
        self._name = name
        # Swin and its kin give (b, h, w, c).
        self._channels_come_last = getattr(self.features, "output_fmt", "NCHW") == "NHWC"
        self._levels = {stride: strides.index(stride) for stride in STRIDES if stride in strides}
        channels = self.features.feature_info.channels()
        self.channels: tuple[int, ...] = tuple(
            channels[self._levels[stride]] if stride in self._levels else 0 for stride in STRIDES
        )

    def forward(self, image: Float[Tensor, "b 3 h w"]) -> tuple[Tensor, ...]:
        """Compute the five feature maps, finest first.

        Raises:
            ValueError: a map is not of the size that its stride promises, rounded up or down.
        """
        found = self.features(image)
        batch, _, height, width = image.shape
        levels = []
        for stride, channels in zip(STRIDES, self.channels, strict=True):
            size_px = (math.ceil(height / stride), math.ceil(width / stride))
            if stride not in self._levels:
                levels.append(image.new_zeros(batch, 0, *size_px))
                continue
            level = found[self._levels[stride]]
            if self._channels_come_last:
                level = level.permute(0, 3, 1, 2)
            rounded = all(
                side // stride <= size <= math.ceil(side / stride)
                for side, size in zip((height, width), level.shape[2:], strict=True)
            )
            if level.shape[1] != channels or not rounded:
                raise ValueError(
                    f"encoder {TIMM_PREFIX}{self._name}: of an image of {height}x{width} its "
                    f"feature map at stride {stride} is {tuple(level.shape[1:])}, not "
                    f"{(channels, *size_px)} (channels, height, width): choose another encoder"
                )
            levels.append(level)
        return tuple(levels)


def build_encoder(name: str) -> TorchvisionEncoder | TimmEncoder:
    """Build an encoder with random weights.

    Args:
        name: one of ``TORCHVISION_ENCODERS``, or ``timm:NAME``.

    Raises:
        ModuleNotFoundError: ``timm:NAME`` and timm is not installed.
        ValueError: no such encoder.
    """
    if name.startswith(TIMM_PREFIX):
        return TimmEncoder(name.removeprefix(TIMM_PREFIX))
    if name not in _CUTS:
        near = difflib.get_close_matches(name, _CUTS, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ValueError(
            f"unknown encoder {name!r}: {hint}known are {', '.join(_CUTS)} and timm:NAME"
        )
    return TorchvisionEncoder(name)
