"""The paper's augmentation."""

import itertools
from functools import cache

import pytest
import torch

from densedepth.augment import (
    _draw,
    augment_batch,
    draw_decisions,
    draw_uniform,
    sample_seed,
)

# Every order of red, green and blue but the one that changes nothing.
CHANNEL_SWAPS = sorted(itertools.permutations(range(3)))[1:]


def seeds_of(*seeds):
    return torch.tensor(seeds, dtype=torch.int64)


@cache
def many_seeds(num=20_000, seed=0, epoch=0):
    return seeds_of(*(sample_seed(seed, epoch, index) for index in range(num)))


def batch_of(num, dtype=torch.float32, height=4, width=6):
    """Pictures whose every value is different; a target of half the size; a validity mask."""
    images = torch.arange(num * 3 * height * width) % 251
    images = images.reshape(num, 3, height, width).to(dtype)
    size = (num, 1, height // 2, width // 2)
    target = torch.arange(num * height * width // 4, dtype=torch.float32).reshape(size)
    return images, target, target % 3 > 0


@pytest.mark.parametrize("make_seeds", [many_seeds, lambda: torch.arange(20_000)])
def test_the_probabilities_are_the_papers(make_seeds):
    """Four standard deviations of 20,000 draws; plain 0, 1, 2, ... are good seeds too."""
    is_flipped, channels = draw_decisions(make_seeds())
    assert abs(is_flipped.float().mean() - 0.5) < 0.0142
    is_swapped = (channels != torch.arange(3)).any(dim=1)
    assert abs(is_swapped.float().mean() - 0.25) < 0.0123
    assert {tuple(order) for order in channels.tolist()} == {(0, 1, 2), *CHANNEL_SWAPS}
    for swap in CHANNEL_SWAPS:
        share = (channels == torch.tensor(swap)).all(dim=1).float().mean()
        assert abs(share - 0.05) < 0.0062, swap


def test_mirroring_and_recolouring_are_independent():
    is_flipped, channels = draw_decisions(many_seeds())
    is_swapped = (channels != torch.arange(3)).any(dim=1)
    assert abs((is_flipped & is_swapped).float().mean() - 0.125) < 0.0094


def test_the_third_draw_chooses_the_swap_from_their_sorted_list():
    _, channels = draw_decisions(many_seeds(500), channel_swap_probability=1.0)
    expected = [CHANNEL_SWAPS[bits * 5 >> 32] for bits in _draw(many_seeds(500), 3).tolist()]
    assert [tuple(order) for order in channels.tolist()] == expected


def test_an_epoch_a_neighbour_and_a_seed_each_decide_anew():
    base, _ = draw_decisions(many_seeds(4000))
    for other in (many_seeds(4000, epoch=1), many_seeds(4000, seed=1), many_seeds(4001)[1:]):
        agreement = (draw_decisions(other)[0] == base).float().mean()
        assert abs(agreement - 0.5) < 0.04


@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8])
def test_a_sample_is_augmented_alike_in_any_batch(dtype):
    images, target, valid = batch_of(16, dtype)
    seeds = many_seeds(16)
    whole = augment_batch(images, target, valid, sample_seeds=seeds)
    order = torch.randperm(16, generator=torch.Generator().manual_seed(0))
    for chosen in (order, order[:5], order[3:4]):
        part = augment_batch(
            images[chosen], target[chosen], valid[chosen], sample_seeds=seeds[chosen]
        )
        for got, want in zip(part, whole, strict=True):
            assert torch.equal(got, want[chosen])


@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8])
def test_a_batch_equals_sample_by_sample_flips_and_swaps(dtype):
    images, target, valid = batch_of(64, dtype)
    seeds = many_seeds(64)
    ours = augment_batch(images, target, valid, sample_seeds=seeds)
    is_flipped, channels = draw_decisions(seeds)
    assert 0 < is_flipped.sum() < 64
    for index in range(64):
        image = torch.stack([images[index, channel] for channel in channels[index].tolist()])
        expected = [image, target[index], valid[index]]
        if is_flipped[index]:
            expected = [part[:, :, range(part.shape[2] - 1, -1, -1)] for part in expected]
        for got, want in zip(ours, expected, strict=True):
            assert torch.equal(got[index], want)
            assert got.dtype == want.dtype


def test_image_target_and_mask_are_mirrored_together():
    """Columns carry their own number, so that a mirrored part is known by its order."""
    columns = torch.arange(6.0)
    images = columns.expand(200, 3, 4, 6)
    target = columns.expand(200, 1, 4, 6)
    ours = augment_batch(images, target, target > 2, sample_seeds=many_seeds(200))
    assert torch.equal(ours.images[:, :1], ours.target)
    assert torch.equal(ours.valid, ours.target > 2)
    is_mirrored = ours.target[:, 0, 0, 0] == 5
    assert 60 < is_mirrored.sum() < 140


@pytest.mark.parametrize(("flip", "swap"), [(0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (1.0, 1.0)])
def test_probabilities_of_zero_and_one_are_never_and_always(flip, swap):
    is_flipped, channels = draw_decisions(many_seeds(500), flip, swap)
    is_swapped = (channels != torch.arange(3)).any(dim=1)
    assert is_flipped.float().mean() == flip
    assert is_swapped.float().mean() == swap


def test_nothing_happens_with_both_probabilities_zero():
    batch = batch_of(8)
    ours = augment_batch(
        *batch, sample_seeds=many_seeds(8), flip_probability=0.0, channel_swap_probability=0.0
    )
    for got, want in zip(ours, batch, strict=True):
        assert torch.equal(got, want)


def test_the_inputs_stay_as_they_are_and_no_mask_gives_no_mask():
    images, target, _ = batch_of(8)
    before = images.clone(), target.clone()
    ours = augment_batch(images, target, sample_seeds=many_seeds(8), flip_probability=1.0)
    assert ours.valid is None
    assert torch.equal(images, before[0])
    assert torch.equal(target, before[1])


def test_the_draw_is_splitmix64():
    """First outputs of the published generator for seed 1234567."""
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    for stream, value in enumerate(published, start=1):
        assert _draw(seeds_of(1234567), stream).item() == value >> 32


def test_uniform_numbers_are_the_draws_as_parts_of_one():
    seeds = many_seeds(4000)
    numbers = draw_uniform(seeds, 7)
    assert numbers.tolist() == pytest.approx([bits / 2**32 for bits in _draw(seeds, 7).tolist()])
    assert abs(numbers.mean() - 0.5) < 0.02
    assert numbers.min() < 0.01
    assert numbers.max() > 0.99


def test_seeds_are_pinned_so_that_a_run_can_be_continued_by_a_later_version():
    assert [sample_seed(0, 0, 0), sample_seed(1, 2, 3)] == [
        1279368494785126216,
        7510213797696614745,
    ]
    is_flipped, channels = draw_decisions(many_seeds(8))
    assert torch.nonzero(is_flipped).flatten().tolist() == [4, 5]
    is_swapped = (channels != torch.arange(3)).any(dim=1)
    assert torch.nonzero(is_swapped).flatten().tolist() == [0, 1, 6]
    assert channels[is_swapped].tolist() == [[0, 2, 1], [2, 1, 0], [2, 1, 0]]


def test_seeds_fit_an_int64_and_do_not_collide():
    found = {
        sample_seed(seed, epoch, index)
        for seed in (0, 1, -1, 2**63)
        for epoch in range(20)
        for index in range(100)
    }
    assert len(found) == 4 * 20 * 100
    assert all(0 <= seed < 2**63 for seed in found)
    assert sample_seed(0, 1, 0) != sample_seed(0, 0, 1) != sample_seed(1, 0, 0)


@pytest.mark.parametrize("name", ["flip_probability", "channel_swap_probability"])
def test_a_probability_outside_zero_to_one_is_refused(name):
    with pytest.raises(ValueError, match=rf"{name} must lie in \[0, 1\], not 1.5"):
        augment_batch(*batch_of(2), sample_seeds=seeds_of(1, 2), **{name: 1.5})


@pytest.mark.gpu
def test_the_gpu_gives_the_same_bits():
    batch = batch_of(64)
    seeds = many_seeds(64)
    expected = augment_batch(*batch, sample_seeds=seeds)
    moved = [part.cuda() for part in batch]
    for on_device in (seeds, seeds.cuda()):
        for got, want in zip(augment_batch(*moved, sample_seeds=on_device), expected, strict=True):
            assert torch.equal(got.cpu(), want)
