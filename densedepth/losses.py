"""The paper's loss on the inverse-depth target: L1, gradients and structural similarity.

Alhashim and Wonka, arXiv 1812.11941, section 3.2:
``L = 0.1 * L_depth + L_grad + L_SSIM``, where ``y = max_m / depth_m``.

All three depend on the prediction through the difference ``d = prediction - target``, which is
therefore computed once. With ``x`` the prediction, ``y`` the target and all moments weighted by
the Gaussian window, the two factors of SSIM (Wang et al. 2004) are

    1 - (2 m_x m_y + C1) / (m_x^2 + m_y^2 + C1)  =  m_d^2 / (m_x^2 + m_y^2 + C1)
    1 - (2 s_xy + C2) / (s_x^2 + s_y^2 + C2)     =  s_d^2 / (s_x^2 + s_y^2 + C2)

and ``s_x^2 + s_y^2 = 2 s_xy + s_d^2``. This form needs four blurred maps in place of five, and is
exactly 0 for a perfect prediction, where the textbook form cancels to rounding noise.
"""

import math
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from densedepth.precision import without_autocast

WINDOW_PX = 11
_SIGMA_PX = 1.5
# Beyond a million times the range values are cut off, so that their squares stay finite.
_CUT_OFF = 1e6
_LEAST_MASS = 1e-8


class LossTerms(NamedTuple):
    """The loss and its parts, before weighting; scalars.

    Attributes:
        total: the weighted sum, to call ``backward`` on.
        l1: mean absolute error of the target.
        gradient: mean absolute error of its horizontal plus vertical gradient.
        ssim: (1 - SSIM) / 2, in [0, 1].
    """

    total: Float[Tensor, ""]
    l1: Float[Tensor, ""]
    gradient: Float[Tensor, ""]
    ssim: Float[Tensor, ""]


class DepthLoss(nn.Module):
    """The paper's training loss.

    Computed in float32 (float64 for float64 inputs), also under autocast. Finite, with a finite
    derivative, for any finite input.

    Args:
        max_target: the target's largest value, ``DepthRange.max_target``: the dynamic range L of
            SSIM, whose constants are (0.01 L)^2 and (0.03 L)^2.
        l1_weight: weight of the absolute error; the paper's lambda.
        gradient_weight: weight of the gradients' error.
        ssim_weight: weight of the structural dissimilarity.

    Raises:
        ValueError: a negative or infinite argument, or nothing but zero weights.
    """

    _window: Tensor

    def __init__(
        self,
        max_target: float,
        l1_weight: float = 0.1,
        gradient_weight: float = 1.0,
        ssim_weight: float = 1.0,
    ) -> None:
        super().__init__()
        if not 0 < max_target < math.inf:
            raise ValueError(f"max_target is {max_target}: set max_m / min_m, as DepthRange does")
        weights = (l1_weight, gradient_weight, ssim_weight)
        if not all(0 <= weight < math.inf for weight in weights) or not any(weights):
            raise ValueError(
                f"weights of L1, gradient and SSIM are {weights}: "
                "they must be finite, not negative, and not all zero"
            )
        self.max_target = max_target
        self.l1_weight = l1_weight
        self.gradient_weight = gradient_weight
        self.ssim_weight = ssim_weight
        self.register_buffer("_window", _gaussian_window(), persistent=False)

    def forward(
        self,
        pred: Float[Tensor, "b 1 h w"],
        target: Float[Tensor, "b 1 h w"],
        valid: Bool[Tensor, "b 1 h w"] | None = None,
    ) -> LossTerms:
        """Compare a prediction with its target.

        Args:
            pred: the network's output, in the target's unit.
            target: ``max_m / depth_m``.
            valid: where the target was measured; None = everywhere (the paper, whose depth maps
                are filled). An image without any valid pixel adds nothing to the loss.

        Returns:
            The loss and its parts.

        Raises:
            ValueError: the sizes differ, or are below SSIM's window of 11 pixels.
        """
        _check_sizes(pred, target, valid)
        with without_autocast(pred.device):
            dtype = torch.promote_types(
                torch.promote_types(pred.dtype, target.dtype), torch.float32
            )
            limit = _CUT_OFF * self.max_target
            target = target.to(dtype).clamp(-limit, limit)
            difference = pred.to(dtype).clamp(-limit, limit) - target
            if valid is not None:
                target = torch.where(valid, target, 0.0)
                difference = torch.where(valid, difference, 0.0)
            l1 = l1_term(difference, valid)
            gradient = gradient_term(difference, valid)
            ssim = ssim_term(difference, target, valid, self._window, self.max_target)
            total = self.l1_weight * l1 + self.gradient_weight * gradient + self.ssim_weight * ssim
        return LossTerms(total, l1, gradient, ssim)


def l1_term(
    difference: Float[Tensor, "b 1 h w"], valid: Bool[Tensor, "b 1 h w"] | None
) -> Float[Tensor, ""]:
    """Average the absolute error over the valid pixels.

    Args:
        difference: prediction minus target; 0 where invalid.
        valid: where the target was measured; None = everywhere.
    """
    return difference.abs().sum() / _count(difference, valid)


def gradient_term(
    difference: Float[Tensor, "b 1 h w"], valid: Bool[Tensor, "b 1 h w"] | None
) -> Float[Tensor, ""]:
    """Average the absolute error of the forward differences, horizontal plus vertical.

    The paper's code (``tf.image.image_gradients``) sets the last column's and row's difference to
    zero and divides by all pixels: a mean over the pairs of neighbours, times (w-1)/w or (h-1)/h.
    With holes, the mean is over the pairs with both pixels valid, times the same factor.

    Args:
        difference: prediction minus target; 0 where invalid.
        valid: where the target was measured; None = everywhere.
    """
    total = difference.new_zeros(())
    for dim in (-1, -2):
        size = difference.shape[dim]
        # The difference of two images' gradients is the gradient of their difference.
        step = torch.diff(difference, dim=dim).abs()
        pairs = None
        if valid is not None:
            pairs = valid.narrow(dim, 1, size - 1) & valid.narrow(dim, 0, size - 1)
            step = torch.where(pairs, step, 0.0)
        total = total + step.sum() / _count(step, pairs) * ((size - 1) / size)
    return total


def ssim_term(
    difference: Float[Tensor, "b 1 h w"],
    target: Float[Tensor, "b 1 h w"],
    valid: Bool[Tensor, "b 1 h w"] | None,
    window: Float[Tensor, "11"],
    max_target: float,
) -> Float[Tensor, ""]:
    """Compute (1 - SSIM) / 2, clipped to [0, 1] per image and averaged over the images.

    With holes, each window's weights are those of its valid pixels, scaled to sum to 1, and the
    image's mean counts each window by the weight of its valid pixels. Images without a valid pixel
    are left out.

    Args:
        difference: prediction minus target; 0 where invalid.
        target: ``max_m / depth_m``; 0 where invalid.
        valid: where the target was measured; None = everywhere.
        window: the Gaussian, summing to 1.
        max_target: the dynamic range of the target.
    """
    c1 = (0.01 * max_target) ** 2
    c2 = (0.03 * max_target) ** 2
    maps = [difference, difference.square(), target * (target + difference), target]
    if valid is None:
        mean_d, square_d, product, mean_y = _blur(torch.stack(maps), window)
    else:
        maps.append(valid.to(target.dtype))
        *moments, mass = _blur(torch.stack(maps), window)
        scale = mass.clamp_min(_LEAST_MASS).reciprocal()
        mean_d, square_d, product, mean_y = (moment * scale for moment in moments)
    mean_x = mean_y + mean_d
    variance_d = (square_d - mean_d.square()).clamp_min(0.0)
    # The variances' sum is at least half the difference's variance; rounding may break that.
    variances = torch.maximum(2 * (product - mean_x * mean_y) + variance_d, variance_d / 2)
    luminance_error = mean_d.square() / (mean_x.square() + mean_y.square() + c1)
    structure_error = variance_d / (variances + c2)
    dissimilarity = luminance_error + structure_error - luminance_error * structure_error
    if valid is None:
        return (dissimilarity.mean(dim=(-2, -1)) / 2).clamp(0.0, 1.0).mean()
    image_mass = mass.sum(dim=(-2, -1))
    per_image = (mass * dissimilarity).sum(dim=(-2, -1)) / image_mass.clamp_min(_LEAST_MASS)
    return (per_image / 2).clamp(0.0, 1.0).sum() / (image_mass > 0).sum().clamp_min(1)


def _blur(
    maps: Float[Tensor, "n b 1 h w"], window: Float[Tensor, "11"]
) -> Float[Tensor, "n b H W"]:
    """Average over the Gaussian window, without padding: first along rows, then along columns.

    All maps go as channels of one image: a depthwise convolution, which CUDA computes in full
    float32 where other convolutions may use TF32.
    """
    n, b, _, h, w = maps.shape
    kernel = window.to(maps.dtype).expand(n * b, 1, 1, WINDOW_PX)
    rows = functional.conv2d(maps.reshape(1, n * b, h, w), kernel, groups=n * b)
    blurred = functional.conv2d(rows, kernel.transpose(-1, -2), groups=n * b)
    return blurred.reshape(n, b, h - WINDOW_PX + 1, w - WINDOW_PX + 1)


def _count(values: Float[Tensor, "b 1 h w"], valid: Bool[Tensor, "b 1 h w"] | None) -> int | Tensor:
    return values.numel() if valid is None else valid.sum().clamp_min(1)


def _gaussian_window() -> Float[Tensor, "11"]:
    offset_px = torch.arange(WINDOW_PX, dtype=torch.float64) - WINDOW_PX // 2
    weight = torch.exp(-offset_px.square() / (2 * _SIGMA_PX**2))
    return (weight / weight.sum()).float()


def _check_sizes(pred: Tensor, target: Tensor, valid: Tensor | None) -> None:
    if pred.shape != target.shape:
        raise ValueError(
            f"prediction {tuple(pred.shape)} and target {tuple(target.shape)} differ in shape: "
            "resize the target to the network's output, half the image's height and width"
        )
    if valid is not None and valid.shape != target.shape:
        raise ValueError(
            f"mask {tuple(valid.shape)} and target {tuple(target.shape)} differ in shape"
        )
    if min(pred.shape[-2:]) < WINDOW_PX:
        raise ValueError(
            f"map of {pred.shape[-2]}x{pred.shape[-1]} pixels: SSIM's window needs at least "
            f"{WINDOW_PX}x{WINDOW_PX}; use images of at least 32x32 pixels"
        )
