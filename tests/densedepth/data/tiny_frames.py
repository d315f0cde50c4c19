"""Tiny raw frames written to a folder, for tests of the readers."""

import io
from pathlib import Path

import numpy as np
from PIL import Image


def picture(height_px: int = 16, width_px: int = 24, seed: int = 0) -> np.ndarray:
    """A smooth colour picture that no two seeds share."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8))
    return np.asarray(small.resize((width_px, height_px), Image.Resampling.BILINEAR))


def file_bytes(array: np.ndarray, format: str) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, format=format)
    return stream.getvalue()


def write_image(path: Path, seed: int = 0, size_px: tuple[int, int] = (16, 24)) -> bytes:
    data = file_bytes(picture(*size_px, seed), "PNG" if path.suffix == ".png" else "JPEG")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return data


def write_depth(path: Path, units: np.ndarray) -> bytes:
    data = file_bytes(units, "PNG")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return data


def write_pair(image: Path, depth: Path, units: np.ndarray, seed: int = 0) -> None:
    """Write a picture of 16x24 pixels and a depth map."""
    write_image(image, seed)
    write_depth(depth, units)


def ramp(dtype: type = np.uint16, low: int = 500, high: int = 5000) -> np.ndarray:
    """A depth map of 16x24 pixels with one hole at the top left."""
    units = np.linspace(low, high, 16 * 24).reshape(16, 24).astype(dtype)
    units[0, 0] = 0
    return units
