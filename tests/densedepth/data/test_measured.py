"""Where measured depth lies, compared with a few lines of numpy over the same files."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from densedepth.data.measured import MeasuredDepth, measure_depth
from densedepth.data.pairs import ImagePairs


def write_pairs(root: Path) -> list[np.ndarray]:
    """Write four pairs with holes, in millimetres; return their steps."""
    rng = np.random.default_rng(3)
    steps = [rng.integers(300, 9000, (24, 32)).astype(np.uint16) for _ in range(4)]
    for number, depth in enumerate(steps):
        depth[: number + 1] = 0
        Image.new("RGB", (32, 24)).save(root / f"{number}.jpg")
        Image.fromarray(depth).save(root / f"{number}.png")
    return steps


def look(root: Path, unit_m: float) -> MeasuredDepth | None:
    reader = ImagePairs(root, "*.jpg", "*.png", unit_m, test_fraction=0.25, val_fraction=0.0)
    frames = sorted(
        (f for s in ("train", "test") for f in reader.list_frames(s).frames), key=lambda f: f.key
    )
    return measure_depth(reader, frames, 0.5, 5.0)


@pytest.mark.parametrize("unit_m", [0.001, 0.0001])
def test_figures_are_those_of_all_measured_pixels_in_metres(tmp_path: Path, unit_m: float):
    steps = np.concatenate([depth[depth > 0] for depth in write_pairs(tmp_path)])
    found = look(tmp_path, unit_m)
    assert found is not None
    assert found.num_frames == 4
    expected = np.percentile(steps.astype(np.float64) * unit_m, [1, 50, 99])
    np.testing.assert_allclose([found.low_m, found.median_m, found.high_m], expected, rtol=1e-5)
    metres = steps * unit_m
    assert found.within == pytest.approx(np.mean((metres >= 0.5) & (metres <= 5.0)), abs=1e-3)


def test_frames_that_cannot_be_read_are_left_out_and_none_says_nothing(tmp_path: Path):
    write_pairs(tmp_path)
    (tmp_path / "1.png").write_bytes(b"")
    found = look(tmp_path, 0.001)
    assert found is not None
    assert found.num_frames == 3
    for path in tmp_path.glob("*.png"):
        path.write_bytes(b"")
    assert look(tmp_path, 0.001) is None
