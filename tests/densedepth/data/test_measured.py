"""Where measured depth lies, compared with a few lines of numpy over the same files."""

import tracemalloc
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from densedepth.data import measured
from densedepth.data.measured import MeasuredDepth, measure_depth
from densedepth.data.pairs import ImagePairs
from densedepth.errors import BadFrameError, DataError


def write_pairs(root: Path) -> list[np.ndarray]:
    """Write four pairs with holes, in millimetres; return their steps."""
    rng = np.random.default_rng(3)
    steps = [rng.integers(300, 9000, (24, 32)).astype(np.uint16) for _ in range(4)]
    for number, depth in enumerate(steps):
        depth[: number + 1] = 0
        Image.new("RGB", (32, 24)).save(root / f"{number}.jpg")
        Image.fromarray(depth).save(root / f"{number}.png")
    return steps


def look(root: Path, unit_m: float) -> MeasuredDepth:
    reader = ImagePairs(root, "*.jpg", "*.png", unit_m, test_fraction=0.25, val_fraction=0.0)
    frames = sorted(
        (f for s in ("train", "test") for f in reader.list_frames(s).frames), key=lambda f: f.key
    )
    return measure_depth(reader, frames, 0.5, 5.0)


@pytest.mark.parametrize("unit_m", [0.001, 0.0001])
def test_figures_are_those_of_all_measured_pixels_in_metres(tmp_path: Path, unit_m: float):
    steps = np.concatenate([depth[depth > 0] for depth in write_pairs(tmp_path)])
    found = look(tmp_path, unit_m)
    assert found.num_frames == 4
    expected = np.percentile(steps.astype(np.float64) * unit_m, [1, 50, 99])
    np.testing.assert_allclose([found.low_m, found.median_m, found.high_m], expected, rtol=1e-5)
    metres = steps * unit_m
    assert found.within == pytest.approx(np.mean((metres >= 0.5) & (metres <= 5.0)), abs=1e-3)


def test_frames_that_cannot_be_read_are_left_out_and_none_is_the_first_ones_error(tmp_path: Path):
    write_pairs(tmp_path)
    (tmp_path / "1.png").write_bytes(b"")
    found = look(tmp_path, 0.001)
    assert found.num_frames == 3
    (why,) = found.refused
    assert "1.png: " in why
    for path in tmp_path.glob("*.png"):
        path.write_bytes(b"")
    with pytest.raises(BadFrameError, match=r"0\.png: "):
        look(tmp_path, 0.001)


def test_of_large_frames_no_more_than_one_and_a_few_pixels_of_the_others_are_in_memory(
    tmp_path: Path,
):
    for number in range(8):
        Image.new("RGB", (2000, 500)).save(tmp_path / f"{number}.jpg")
        metres = Image.fromarray(np.full((500, 2000), number + 1, np.uint16))
        metres.save(tmp_path / f"{number}.png")
    look(tmp_path, 1.0)  # what the first look imports does not count
    tracemalloc.start()
    found = look(tmp_path, 1.0)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 6 * 500 * 2000 * 4  # all would be 8 frames, and 8 again put together
    assert (found.num_frames, found.median_m, found.within) == (8, 4.5, 5 / 8)


def test_frames_without_a_measured_pixel_are_an_error_with_what_to_look_at(tmp_path, monkeypatch):
    write_pairs(tmp_path)
    nothing = SimpleNamespace(depth_m=np.zeros((24, 32), np.float32))
    monkeypatch.setattr(measured, "decode", lambda sample: nothing)
    with pytest.raises(DataError, match=r"no pixel of 4 training frames is measured .*look at the"):
        look(tmp_path, 0.001)
