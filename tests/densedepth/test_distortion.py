"""Zoom, rotation and colour: what they do to picture and depth together."""

import math

import pytest
import torch

from densedepth.augment import draw_decisions, draw_uniform, sample_seed
from densedepth.distortion import Distortion

SEEDS = torch.tensor([sample_seed(0, 0, index) for index in range(64)])


def scene(num: int = 64, height: int = 32, width: int = 48):
    """A picture whose red and green are its pixels' places, and a depth of the same pattern."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    colours = torch.stack([x / width, y / height, torch.full_like(x / width, 0.5)])
    depth_m = 2 + 3 * x[::2, ::2] / width
    return (
        colours.expand(num, -1, -1, -1),
        depth_m.expand(num, 1, -1, -1),
        torch.ones(num, 1, height // 2, width // 2, dtype=torch.bool),
    )


def test_without_settings_nothing_is_done():
    assert Distortion().is_identity
    assert not Distortion(zoom_max=1.1).is_identity
    for got, want in zip(Distortion().apply(*scene(), SEEDS), scene(), strict=True):
        assert torch.equal(got, want)


def test_what_is_enlarged_is_nearer_by_the_same_factor():
    images, depth_m, valid = Distortion(zoom_max=1.5).apply(*scene(), SEEDS)
    # Red rises by 1 / zoom as fast, and tells where each pixel is from; depth follows from it.
    zoom = (1 / 48) / (images[:, 0, 16, 30] - images[:, 0, 16, 29])
    assert 1.0 <= zoom.min() < 1.1
    assert 1.4 < zoom.max() <= 1.51
    red = torch.nn.functional.avg_pool2d(images[:, :1], 2)
    inside = slice(2, -2)
    expected = (2 + 3 * (red - 0.5 / 48)) / zoom[:, None, None, None]
    torch.testing.assert_close(
        depth_m[..., inside, inside], expected[..., inside, inside], atol=0.09, rtol=0.02
    )
    assert valid.all()
    centres = images[:, 0, 16, 24]
    assert centres.std() > 0.02, "the zoomed part is not always the middle"


def test_a_rotation_turns_picture_and_depth_alike_and_keeps_distances():
    images, depth_m, _ = Distortion(rotation_deg=10.0).apply(*scene(), SEEDS)
    slope = (images[:, 0, 24, 24] - images[:, 0, 8, 24]) * 48 / 16
    turned_deg = torch.rad2deg(torch.asin(-slope.clamp(-1, 1)))
    assert 5 < turned_deg.abs().max() <= 10.5
    assert turned_deg.min() < 0 < turned_deg.max()
    red = torch.nn.functional.avg_pool2d(images[:, :1], 2)
    middle = slice(5, -5)
    expected = 2 + 3 * (red - 0.5 / 48)
    torch.testing.assert_close(
        depth_m[..., middle, middle], expected[..., middle, middle], atol=0.1, rtol=0.02
    )


def test_colours_vary_within_the_range_and_depth_does_not():
    images, depth_m, valid = scene()
    images = images * 0 + 0.5
    got, same_m, same = Distortion(colour_jitter=0.2).apply(images, depth_m, valid, SEEDS)
    assert torch.equal(same_m, depth_m)
    assert torch.equal(same, valid)
    grey = got.mean((1, 2, 3))
    low = 0.5 ** math.exp(0.2) * math.exp(-0.3)
    high = 0.5 ** math.exp(-0.2) * math.exp(0.3)
    assert low < grey.min() < 0.45
    assert 0.55 < grey.max() < high
    tint = got[:, 0].mean((1, 2)) / got[:, 1].mean((1, 2))
    assert tint.std() > 0.03


def test_holes_move_with_the_depth():
    images, depth_m, valid = scene()
    depth_m = depth_m.clone()
    depth_m[:, :, :8] = 0
    _, moved_m, moved = Distortion(zoom_max=1.5, rotation_deg=5.0).apply(
        images, depth_m, depth_m > 0, SEEDS
    )
    assert torch.equal(moved, moved_m > 0)
    assert not moved.all()
    assert moved_m[moved].min() > 1.3
    assert valid.all()


@pytest.mark.parametrize("chosen", [slice(0, 5), slice(7, 8)])
def test_a_sample_is_distorted_alike_in_any_batch(chosen):
    distortion = Distortion(1.3, 3.0, 0.2)
    whole = distortion.apply(*scene(), SEEDS)
    part = distortion.apply(*(tensor[chosen] for tensor in scene()), SEEDS[chosen])
    for got, want in zip(part, whole, strict=True):
        torch.testing.assert_close(got, want[chosen])


def test_colours_are_the_formula_by_hand():
    """Gamma, brightness and tint, then contrast about the mean; nothing leaves [0, 1]."""
    images, depth_m, valid = scene(8)
    found, _, _ = Distortion(colour_jitter=0.5).apply(images, depth_m, valid, SEEDS[:8])
    draws = [(2 * draw_uniform(SEEDS[:8], 16 + i).double() - 1).tolist() for i in range(6)]
    for n, (gamma, brightness, contrast, *tint) in enumerate(zip(*draws, strict=True)):
        expected = images[n].double().clamp(min=1e-3) ** math.exp(0.5 * gamma)
        for channel in range(3):
            expected[channel] *= math.exp(0.5 * brightness) * math.exp(0.25 * tint[channel])
        mean = expected.mean()
        expected = mean + (expected - mean) * math.exp(0.5 * contrast)
        torch.testing.assert_close(found[n].double(), expected.clamp(0, 1), atol=1e-5, rtol=1e-4)
    assert found.min() == 0
    assert found.max() == 1


def test_how_far_a_picture_is_distorted_has_nothing_to_do_with_its_mirroring():
    is_flipped, _ = draw_decisions(SEEDS)
    images, depth_m, valid = scene()
    depth_m = torch.full_like(depth_m, 3.0)
    zoom = 3 / Distortion(zoom_max=2.0).apply(images, depth_m, valid, SEEDS)[1].amax((1, 2, 3))
    for side in (False, True):
        assert 8 < (zoom[is_flipped == side] > 1.5).sum() < 24
