"""Augmentation beyond the paper's: zoom, rotation, colour; off unless asked for.

After Eigen, Puhrsch and Fergus (2014), section 3.3: a picture enlarged by s shows a scene that is
s times nearer, so its depth is divided by s; a rotation about the optical axis leaves depth as it
is; colours are multiplied by random factors. Brightness, gamma and contrast vary too, as in later
methods. What happens to a sample follows from its own seed, as in ``augment``.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn import functional

from densedepth.augment import draw_uniform

_FIRST_STREAM = 16
"""Streams of random numbers below are those of the paper's augmentation."""


@dataclass(frozen=True)
class Distortion:
    """How far each thing may vary.

    Attributes:
        zoom_max: enlarged by 1 to this, anywhere in the picture.
        rotation_deg: turned by at most so much either way.
        colour_jitter: brightness, gamma and contrast vary by factors of exp(-j) to exp(j), each
            colour channel by half of that.
    """

    zoom_max: float = 1.0
    rotation_deg: float = 0.0
    colour_jitter: float = 0.0

    @property
    def is_identity(self) -> bool:
        """Whether nothing varies."""
        return (self.zoom_max, self.rotation_deg, self.colour_jitter) == (1.0, 0.0, 0.0)

    def apply(
        self,
        images: Float[Tensor, "b 3 h w"],
        depth_m: Float[Tensor, "b 1 th tw"],
        valid: Bool[Tensor, "b 1 th tw"],
        sample_seeds: Int64[Tensor, " b"],
    ) -> tuple[Float[Tensor, "b 3 h w"], Float[Tensor, "b 1 th tw"], Bool[Tensor, "b 1 th tw"]]:
        """Distort each sample as its seed decides.

        Args:
            images: colours in [0, 1].
            depth_m: metres; 0 = no measurement. Taken from the nearest pixel.
            valid: where ``depth_m`` is a measurement.
            sample_seeds: one per sample.
        """
        draws = iter(
            draw_uniform(sample_seeds, _FIRST_STREAM + i).to(images.device) for i in range(10)
        )
        if self.zoom_max > 1 or self.rotation_deg:
            zoom = 1 + (self.zoom_max - 1) * next(draws)
            angle = self.rotation_deg * math.pi / 180 * (2 * next(draws) - 1)
            # The centre stays so far from the edges that the zoomed picture has no empty side.
            centre_x, centre_y = ((2 * next(draws) - 1) * (1 - 1 / zoom) for _ in range(2))
            images = _sampled(images, zoom, angle, centre_x, centre_y, "bilinear")
            depth_m = _sampled(depth_m, zoom, angle, centre_x, centre_y, "nearest")
            depth_m = depth_m / zoom[:, None, None, None]
            valid = _sampled(valid.float(), zoom, angle, centre_x, centre_y, "nearest") > 0.5
        if self.colour_jitter:
            images = self._recolour(images, [2 * next(draws) - 1 for _ in range(6)])
        return images, depth_m, valid

    def _recolour(
        self, images: Float[Tensor, "b 3 h w"], draws: list[Float[Tensor, " b"]]
    ) -> Float[Tensor, "b 3 h w"]:
        gamma, brightness, contrast = (
            torch.exp(self.colour_jitter * draw)[:, None, None, None] for draw in draws[:3]
        )
        tint = torch.exp(self.colour_jitter / 2 * torch.stack(draws[3:], 1))[:, :, None, None]
        images = images.clamp(min=1e-3) ** gamma * brightness * tint
        mean = images.mean((1, 2, 3), keepdim=True)
        return ((images - mean) * contrast + mean).clamp(0, 1)


def _sampled(
    maps: Float[Tensor, "b c h w"],
    zoom: Float[Tensor, " b"],
    angle: Float[Tensor, " b"],
    centre_x: Float[Tensor, " b"],
    centre_y: Float[Tensor, " b"],
    mode: str,
) -> Float[Tensor, "b c h w"]:
    """Zoom and turn about a centre (in [-1, 1]); what comes from outside is mirrored in."""
    height, width = maps.shape[-2:]
    cosine, sine = torch.cos(angle) / zoom, torch.sin(angle) / zoom
    rows = [
        torch.stack([cosine, -sine * height / width, centre_x], 1),
        torch.stack([sine * width / height, cosine, centre_y], 1),
    ]
    grid = functional.affine_grid(torch.stack(rows, 1), list(maps.shape), align_corners=False)
    return functional.grid_sample(
        maps, grid, mode=mode, padding_mode="reflection", align_corners=False
    )
