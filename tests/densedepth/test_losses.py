"""The loss against slow versions of its formulas, with and without holes."""

import numpy as np
import pytest
import torch
from jaxtyping import TypeCheckError
from skimage.metrics import structural_similarity
from torch import nn

from densedepth.losses import DepthLoss, _check_sizes
from tests.densedepth import reference_losses as reference

NYU_MAX_TARGET = 100.0


def scene(seed: int, num_images: int = 2, height: int = 14, width: int = 17, *, scale: float = 1.0):
    """A smooth target with an edge, and an estimate of it; (b, 1, h, w), float64."""
    generator = torch.Generator().manual_seed(seed)

    def noise():
        shape = (num_images, 1, height, width)
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    ramp = torch.linspace(1, 9, width, dtype=torch.float64).expand(num_images, 1, height, width)
    target = ramp.clone()
    target[..., height // 2 :, : width // 2] += 5
    target = (target + 0.1 * noise()).clamp_min(1) * scale
    return target * (1 + 0.2 * noise()), target


def holes(seed: int, like: torch.Tensor, share: float) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(like.shape, generator=generator) >= share


def planes(*tensors: torch.Tensor) -> list[np.ndarray]:
    return [tensor[:, 0].numpy() for tensor in tensors]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("seed", "max_target"), [(0, 100.0), (1, 80.0), (2, 10.0)])
def test_each_term_is_its_formula(seed, max_target, dtype):
    pred, target = scene(seed)
    terms = DepthLoss(max_target)(pred.to(dtype), target.to(dtype))
    p, t = planes(pred, target)
    everywhere = np.ones_like(p, dtype=bool)
    assert terms.l1.item() == pytest.approx(reference.l1(p, t, everywhere), rel=1e-5)
    assert terms.gradient.item() == pytest.approx(reference.dense_gradient(p, t), rel=1e-5)
    ssim = reference.ssim_loss(p, t, everywhere, max_target)
    assert terms.ssim.item() == pytest.approx(ssim, abs=1e-5)
    assert ssim > 0.01


@pytest.mark.parametrize("share", [0.2, 0.8, 0.97])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_each_masked_term_is_its_formula(share, dtype):
    pred, target = scene(3)
    valid = holes(4, target, share)
    target = torch.where(valid, target, 0.0)
    terms = DepthLoss(NYU_MAX_TARGET)(pred.to(dtype), target.to(dtype), valid)
    p, t, v = planes(pred, target, valid)
    assert terms.l1.item() == pytest.approx(reference.l1(p, t, v), rel=1e-5)
    gradient = reference.masked_gradient(p, t, v)
    assert terms.gradient.item() == pytest.approx(gradient, rel=1e-5)
    ssim = reference.ssim_loss(p, t, v, NYU_MAX_TARGET)
    assert terms.ssim.item() == pytest.approx(ssim, abs=1e-5)


def test_one_measured_pixel_in_a_corner_counts_fully():
    """A window gives its outermost pixel a millionth of its weight."""
    pred, target = scene(22)
    valid = torch.zeros_like(target, dtype=torch.bool)
    valid[0, 0, 0, 0] = valid[1, 0, -1, -1] = True
    pred[valid] = 5 * target[valid] + 100
    terms = DepthLoss(NYU_MAX_TARGET)(pred.float(), target.float(), valid)
    ssim = reference.ssim_loss(*planes(pred, target, valid), NYU_MAX_TARGET)
    assert ssim > 0.2
    assert terms.ssim.item() == pytest.approx(ssim, abs=1e-5)


def test_ssim_is_scikit_images():
    pred, target = scene(5, num_images=1, height=24, width=30)
    p, t = planes(pred, target)
    _, ssim_map = structural_similarity(
        t[0],
        p[0],
        data_range=NYU_MAX_TARGET,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        full=True,
    )
    expected = (1 - ssim_map[5:-5, 5:-5].mean()) / 2
    result = DepthLoss(NYU_MAX_TARGET)(pred, target).ssim.item()
    assert result == pytest.approx(expected, abs=1e-7)


def test_the_gradient_term_ignores_the_last_row_and_column():
    pred = torch.zeros(1, 1, 12, 12)
    pred[..., -1, -1] = 1.0  # a step into the last column and one into the last row, none out
    terms = DepthLoss(NYU_MAX_TARGET)(pred, torch.zeros_like(pred))
    assert terms.gradient.item() == pytest.approx(2 / 144)
    assert terms.l1.item() == pytest.approx(1 / 144)


def test_the_total_is_the_papers_weighted_sum():
    terms = DepthLoss(NYU_MAX_TARGET)(*scene(6))
    torch.testing.assert_close(terms.total, 0.1 * terms.l1 + terms.gradient + terms.ssim)
    weighted = DepthLoss(NYU_MAX_TARGET, 2.0, 0.0, 0.5)(*scene(6))
    torch.testing.assert_close(weighted.total, 2 * terms.l1 + 0.5 * terms.ssim)
    torch.testing.assert_close(weighted.gradient, terms.gradient)


@pytest.mark.parametrize("scale", [1.0, 5.0])
def test_a_perfect_prediction_costs_exactly_nothing(scale):
    _, target = scene(7, scale=scale)
    terms = DepthLoss(NYU_MAX_TARGET)(target.float(), target.float())
    assert [term.item() for term in terms] == [0.0] * 4


def test_ssim_is_clipped_per_image_and_then_averaged():
    pred, target = scene(8, num_images=3)
    loss = DepthLoss(NYU_MAX_TARGET)
    single = [loss(pred[i : i + 1], target[i : i + 1]).ssim for i in range(3)]
    torch.testing.assert_close(loss(pred, target).ssim, torch.stack(single).mean())


def test_a_full_mask_changes_nothing():
    pred, target = scene(9)
    loss = DepthLoss(NYU_MAX_TARGET)
    results = []
    for valid in (None, torch.ones_like(target, dtype=torch.bool)):
        leaf = pred.float().requires_grad_()
        terms = loss(leaf, target.float(), valid)
        terms.total.backward()
        results.append((*terms, leaf.grad))
    for dense, masked in zip(*results, strict=True):
        torch.testing.assert_close(masked, dense, rtol=1e-6, atol=1e-7)


def test_what_stands_in_a_hole_does_not_matter():
    pred, target = scene(10)
    valid = holes(11, target, 0.3)
    loss = DepthLoss(NYU_MAX_TARGET)
    expected = loss(pred, target, valid)
    for filler in (0.0, -7.0, 1e30, float("nan"), float("inf")):
        result = loss(pred, torch.where(valid, target, filler), valid)
        torch.testing.assert_close(result, expected)
        result = loss(torch.where(valid, pred, filler), target, valid)
        torch.testing.assert_close(result, expected)


def test_an_image_without_a_valid_pixel_adds_nothing():
    pred, target = scene(12)
    valid = holes(13, target, 0.3)
    valid[1] = False
    loss = DepthLoss(NYU_MAX_TARGET)
    torch.testing.assert_close(loss(pred, target, valid), loss(pred[:1], target[:1], valid[:1]))


def test_all_terms_have_the_right_derivative():
    pred, target = scene(14, num_images=2, height=12, width=13)
    loss = DepthLoss(NYU_MAX_TARGET).double()
    valid = holes(15, target, 0.4)
    for mask in (None, valid):
        assert torch.autograd.gradcheck(
            lambda p, mask=mask: tuple(loss(p, target, mask)), pred.requires_grad_()
        )


EXTREMES = {
    "zero prediction and zero depth": (0.0, 0.0),
    "zero depth": (3.0, 0.0),
    "negative prediction": (-50.0, 5.0),
    "huge prediction": (1e30, 5.0),
    "largest float": (torch.finfo(torch.float32).max, 1.0),
    "smallest float": (-torch.finfo(torch.float32).max, torch.finfo(torch.float32).max),
    "denormal": (1e-42, 1e-42),
}


@pytest.mark.parametrize("share", [None, 0.5, 0.99, 1.0])
@pytest.mark.parametrize("case", EXTREMES)
def test_loss_and_derivative_are_finite_for_any_finite_input(case, share):
    value, target_value = EXTREMES[case]
    noise = torch.rand(2, 1, 13, 15, generator=torch.Generator().manual_seed(0))
    for pred in (torch.full_like(noise, value), value * noise):
        leaf = pred.requires_grad_()
        target = torch.full_like(noise, target_value)
        valid = None if share is None else holes(16, target, share)
        terms = DepthLoss(NYU_MAX_TARGET)(leaf, target, valid)
        (derivative,) = torch.autograd.grad(terms.total, leaf)
        assert torch.stack(terms).isfinite().all()
        assert derivative.isfinite().all()
        assert 0 <= terms.ssim <= 1
        if share == 1.0:
            assert terms.total == 0
            assert derivative.count_nonzero() == 0


@pytest.mark.parametrize(
    ("value", "counted"), [(9e7, 9e7), (-9e7, -9e7), (1e30, 1e8), (-1e30, -1e8)]
)
def test_only_what_is_a_million_times_beyond_the_range_is_cut_off(value, counted):
    target = torch.ones(1, 1, 12, 12)
    terms = DepthLoss(NYU_MAX_TARGET)(torch.full_like(target, value), target)
    assert terms.l1.item() == pytest.approx(abs(counted - 1), rel=1e-6)


def far_outside_the_range(kind: str):
    """Maps whose moments are differences of large numbers: rounding makes variances negative."""
    for step in range(81):
        generator = torch.Generator().manual_seed(step)
        if kind == "both":
            target = 1e4 + 0.3 * torch.randn(1, 1, 24, 24, generator=generator)
            yield target + torch.randn(1, 1, 24, 24, generator=generator), target
        else:
            target = 9 * torch.rand(1, 1, 12, 12, generator=generator) + 1
            yield torch.full_like(target, 10 ** (step / 10)), target


@pytest.mark.parametrize(("kind", "tolerance"), [("both", 0.02), ("prediction", 1e-3)])
def test_far_outside_the_range_rounding_stays_harmless(kind, tolerance):
    loss = DepthLoss(NYU_MAX_TARGET)
    for pred, target in far_outside_the_range(kind):
        exact = loss(pred.double(), target.double()).ssim.item()
        assert loss(pred, target).ssim.item() == pytest.approx(exact, abs=tolerance)


def test_a_nan_of_the_network_is_not_hidden():
    pred, target = scene(17)
    pred[0, 0, 3, 3] = float("nan")
    assert DepthLoss(NYU_MAX_TARGET)(pred, target).total.isnan()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_ssim_is_computed_in_float32_under_autocast(dtype):
    pred, target = scene(18)
    pred = pred.to(dtype)  # what a network under autocast gives
    loss = DepthLoss(NYU_MAX_TARGET)
    expected = loss(pred.double(), target)
    with torch.autocast("cpu", dtype=dtype):
        terms = loss(pred, target.float())
    for term, exact in zip(terms, expected, strict=True):
        assert term.dtype == torch.float32
        assert term.item() == pytest.approx(exact.item(), rel=1e-5, abs=1e-6)


@pytest.mark.gpu
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("num_images", [1, 4])
def test_a_gpu_computes_the_same_in_full_float32(masked, num_images):
    pred, target = scene(19, num_images=num_images, height=60, width=80)
    valid = holes(20, target, 0.3) if masked else None
    leaf = pred.clone().requires_grad_()
    expected = DepthLoss(NYU_MAX_TARGET)(leaf, target, valid)
    expected.total.backward()
    on_gpu = pred.float().cuda().requires_grad_()
    loss = DepthLoss(NYU_MAX_TARGET).cuda()
    with torch.autocast("cuda", dtype=torch.bfloat16):
        terms = loss(on_gpu, target.float().cuda(), None if valid is None else valid.cuda())
    terms.total.backward()
    for term, exact in zip(terms, expected, strict=True):
        assert term.item() == pytest.approx(exact.item(), rel=1e-5, abs=1e-5)
    torch.testing.assert_close(on_gpu.grad.cpu().double(), leaf.grad, rtol=1e-3, atol=1e-6)


def test_the_loss_has_nothing_to_save():
    assert DepthLoss(NYU_MAX_TARGET).state_dict() == {}


def test_descending_the_loss_recovers_the_target():
    pred, target = scene(21, num_images=1)
    estimate = nn.Parameter(pred.clone())
    loss = DepthLoss(NYU_MAX_TARGET)
    optimizer = torch.optim.Adam([estimate], lr=0.05)
    first = loss(estimate, target).total.item()
    for _ in range(150):
        optimizer.zero_grad()
        loss(estimate, target).total.backward()
        optimizer.step()
    assert loss(estimate, target).total.item() < 0.05 * first


def test_maps_below_the_window_are_refused():
    small = torch.zeros(1, 1, 10, 32)
    with pytest.raises(ValueError, match=r"10x32 pixels.*at least 11x11"):
        DepthLoss(NYU_MAX_TARGET)(small, small)


def test_different_sizes_are_refused():
    pred, target = torch.zeros(1, 1, 16, 16), torch.zeros(1, 1, 32, 32)
    with pytest.raises(TypeCheckError):
        DepthLoss(NYU_MAX_TARGET)(pred, target)
    # Without the checks of the tests, the loss itself says what to do.
    with pytest.raises(ValueError, match=r"\(1, 1, 16, 16\) and target \(1, 1, 32, 32\).*half"):
        _check_sizes(pred, target, None)
    with pytest.raises(ValueError, match=r"mask \(1, 1, 32, 32\)"):
        _check_sizes(pred, pred, target.bool())


@pytest.mark.parametrize("max_target", [0.0, -1.0, float("inf"), float("nan")])
def test_an_impossible_range_is_refused(max_target):
    with pytest.raises(ValueError, match="set max_m / min_m"):
        DepthLoss(max_target)


@pytest.mark.parametrize("weights", [(-0.1, 1.0, 1.0), (0.0, 0.0, 0.0), (1.0, float("nan"), 1.0)])
def test_impossible_weights_are_refused(weights):
    with pytest.raises(ValueError, match="weights of L1, gradient and SSIM"):
        DepthLoss(NYU_MAX_TARGET, *weights)
