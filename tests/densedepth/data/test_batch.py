"""Targets: what resizing does to depth, compared with the definition in numpy."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from densedepth.data.batch import PackedBatch, resize_depth


def halved(plane: np.ndarray) -> np.ndarray:
    """Halve a plane by a triangle filter of twice the width, cut off and renormalised at edges."""

    def weights(count: int) -> np.ndarray:
        centre, pixel = 2 * np.arange(count // 2) + 0.5, np.arange(count)
        rows = np.maximum(0, 1 - np.abs(pixel[None] - centre[:, None]) / 2)
        return rows / rows.sum(1, keepdims=True)

    return weights(plane.shape[0]) @ plane.astype(np.float64) @ weights(plane.shape[1]).T


def reference(depth_m: np.ndarray) -> np.ndarray:
    """Average the inverse depths that were measured; float64."""
    measured = depth_m > 0
    inverse = np.where(measured, 1 / np.where(measured, depth_m, 1), 0)
    share = halved(measured)
    mean = halved(inverse) / np.where(share > 1e-3, share, 1)
    return np.where(share > 1e-3, 1 / np.where(mean > 0, mean, 1), 0)


units = arrays(
    np.uint16,
    st.tuples(st.integers(1, 12), st.integers(1, 12)).map(lambda s: (2 * s[0], 2 * s[1])),
    elements=st.one_of(st.just(0), st.integers(1, 65535)),
)


@given(units, st.sampled_from([1000, 256, 25.5, 6000]))
def test_a_halved_map_holds_the_mean_of_inverse_depths(steps: np.ndarray, steps_per_m: float):
    depth_m = (steps / steps_per_m).astype(np.float32)
    size_px = (steps.shape[0] // 2, steps.shape[1] // 2)
    found = resize_depth(torch.from_numpy(depth_m)[None], size_px)[0].numpy()
    np.testing.assert_allclose(found, reference(depth_m), rtol=2e-5)


@given(units)
def test_steps_become_the_same_metres_as_their_floats(steps: np.ndarray):
    height_px, width_px = steps.shape
    batch = PackedBatch(
        keys=("a", "b"),
        image=torch.zeros(2, 3, height_px, width_px, dtype=torch.uint8),
        depth_units=torch.from_numpy(np.stack([steps, steps[::-1]])),
        has_holes=bool((steps == 0).any()),
        steps_per_m=torch.tensor([1000.0, 256.0]),
        depth_m=None,
        sample_seeds=torch.zeros(2, dtype=torch.int64),
        target_size_px=(height_px // 2, width_px // 2),
    ).to(torch.device("cpu"))
    for i, (rows, steps_per_m) in enumerate([(steps, 1000), (steps[::-1], 256)]):
        expected = reference((rows / steps_per_m).astype(np.float32))
        np.testing.assert_allclose(batch.depth_m[i, 0].numpy(), expected, rtol=2e-5)
        np.testing.assert_array_equal(batch.valid[i, 0].numpy(), expected > 0)


@given(units)
def test_halving_agrees_with_torchs_antialiased_resize(steps: np.ndarray):
    if steps.shape[1] == 2:  # torch 2.15 mixes up the rows of a result that is one pixel wide
        return
    depth_m = torch.from_numpy(steps.astype(np.float32) / 1000)[None]
    is_measured = (depth_m > 0).float()
    inverse = torch.where(depth_m > 0, 1 / depth_m, 0)
    planes = torch.stack([inverse, is_measured], 1)
    size_px = (steps.shape[0] // 2, steps.shape[1] // 2)
    inverse, share = F.interpolate(planes, size=size_px, mode="bilinear", antialias=True)[0]
    expected = torch.where(share > 1e-3, share / inverse.clamp_min(1e-9), 0)
    torch.testing.assert_close(resize_depth(depth_m, size_px)[0], expected, rtol=2e-5, atol=0)


def test_maps_without_holes_are_resized_alike_with_and_without_saying_so():
    depth_m = torch.rand(2, 24, 32, generator=torch.Generator().manual_seed(0)) + 0.5
    for size_px in ((12, 16), (10, 20)):
        torch.testing.assert_close(
            resize_depth(depth_m, size_px, has_holes=False), resize_depth(depth_m, size_px)
        )


def resized(depth_m: np.ndarray, size_px: tuple[int, int]) -> torch.Tensor:
    return resize_depth(torch.from_numpy(depth_m)[None], size_px)


def test_resizing_averages_inverse_depth():
    depth_m = np.repeat(np.array([[1.0, 4.0]], np.float32), 64, axis=0).repeat(32, axis=1)
    shrunk = resized(depth_m, (1, 1))
    assert shrunk.item() == pytest.approx(1 / ((1 / 1 + 1 / 4) / 2), rel=1e-5)


def test_a_map_without_measurements_stays_without():
    for size_px in ((4, 4), (3, 5)):
        assert (resized(np.zeros((8, 8), np.float32), size_px) == 0).all()


def test_a_constant_map_keeps_its_value_next_to_holes():
    depth_m = np.full((16, 16), 3.0, np.float32)
    depth_m[::3, ::2] = 0
    for size_px in ((8, 8), (5, 7)):
        shrunk = resized(depth_m, size_px)
        torch.testing.assert_close(shrunk, torch.full_like(shrunk, 3.0))
