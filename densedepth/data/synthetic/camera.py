"""Cameras: from light to the numbers in a colour picture."""

import numpy as np
from jaxtyping import Float32, UInt8

from densedepth.data.synthetic.solids import Colour

_TONE_CURVE = np.round((np.arange(8192) / 8191) ** (1 / 2.2) * 255).astype(np.uint8)


def develop(
    light: Float32[np.ndarray, "h w 3"],
    rng: np.random.Generator,
    *,
    brightness: float,
    tint: Colour = (1.0, 1.0, 1.0),
    noise: float = 0.012,
    vignette: float = 0.1,
) -> UInt8[np.ndarray, "h w 3"]:
    """Do what a camera does: expose, vignette, blur a little, add noise, apply the tone curve.

    Args:
        light: linear light, any scale.
        rng: of the noise.
        brightness: mean level after exposure, linear, 0..1.
        tint: error of the white balance.
        noise: standard deviation of the noise of a fully lit pixel, linear.
        vignette: light lost at the middle of each border.
    """
    height, width = light.shape[:2]
    exposure = brightness / max(float(light.mean()), 1e-6)
    x, y = np.linspace(-1, 1, width, dtype=np.float32), np.linspace(-1, 1, height, dtype=np.float32)
    falloff = 1 - np.float32(vignette) * (x[None, :] ** 2 + y[:, None] ** 2)
    level = light * (falloff[..., None] * (np.array(tint, np.float32) * np.float32(exposure)))
    # Highlights are rolled off instead of cut.
    level /= 1 + np.maximum(level - np.float32(0.6), 0)
    for axis in (0, 1):
        level = _blurred(level, axis)
    grain = rng.standard_normal(level.shape, np.float32)
    level += grain * (np.float32(noise) * np.sqrt(level + np.float32(0.05)))
    return _TONE_CURVE[(np.clip(level, 0, 1) * 8191).astype(np.uint16)]


def _blurred(image: np.ndarray, axis: int) -> np.ndarray:
    """Blur with 1 6 1 along an axis: a lens that is not quite as sharp as the sensor."""
    image = np.moveaxis(image, axis, 0)
    out = image * np.float32(0.75)
    out[:-1] += image[1:] * np.float32(0.125)
    out[1:] += image[:-1] * np.float32(0.125)
    out[0] += image[0] * np.float32(0.125)
    out[-1] += image[-1] * np.float32(0.125)
    return np.moveaxis(out, 0, axis)
