"""The paper's loss terms written from their definitions: slow, obvious, in float64.

Every pixel and every window is a loop; nothing is shared with ``densedepth.losses``.
"""

import math

import numpy as np

WINDOW_PX = 11
SIGMA_PX = 1.5


def l1(pred: np.ndarray, target: np.ndarray, valid: np.ndarray) -> float:
    """Mean absolute error over the valid pixels of all images; arrays are (b, h, w)."""
    errors = [abs(p - t) for p, t, v in zip(pred.flat, target.flat, valid.flat, strict=True) if v]
    return sum(errors) / len(errors) if errors else 0.0


def dense_gradient(pred: np.ndarray, target: np.ndarray) -> float:
    """Mean of |dx error| + |dy error|, forward differences, last column and row zero."""
    total = 0.0
    num_images, height, width = pred.shape
    for b in range(num_images):
        for i in range(height):
            for j in range(width):
                if j + 1 < width:
                    dx_pred = pred[b, i, j + 1] - pred[b, i, j]
                    dx_target = target[b, i, j + 1] - target[b, i, j]
                    total += abs(dx_pred - dx_target)
                if i + 1 < height:
                    dy_pred = pred[b, i + 1, j] - pred[b, i, j]
                    dy_target = target[b, i + 1, j] - target[b, i, j]
                    total += abs(dy_pred - dy_target)
    return total / (num_images * height * width)


def masked_gradient(pred: np.ndarray, target: np.ndarray, valid: np.ndarray) -> float:
    """Mean over the pairs of valid neighbours, per direction, times (size - 1) / size."""
    result = 0.0
    num_images, height, width = pred.shape
    for down, right, size in ((0, 1, width), (1, 0, height)):
        errors = []
        for b in range(num_images):
            for i in range(height - down):
                for j in range(width - right):
                    here, there = (b, i, j), (b, i + down, j + right)
                    if valid[here] and valid[there]:
                        step_pred = pred[there] - pred[here]
                        step_target = target[there] - target[here]
                        errors.append(abs(step_pred - step_target))
        if errors:
            result += sum(errors) / len(errors) * (size - 1) / size
    return result


def ssim_loss(pred: np.ndarray, target: np.ndarray, valid: np.ndarray, max_target: float) -> float:
    """Mean over the images with a valid pixel of clip((1 - SSIM) / 2, 0, 1)."""
    window = np.empty((WINDOW_PX, WINDOW_PX))
    centre = WINDOW_PX // 2
    for i in range(WINDOW_PX):
        for j in range(WINDOW_PX):
            squared_distance = (i - centre) ** 2 + (j - centre) ** 2
            window[i, j] = math.exp(-squared_distance / (2 * SIGMA_PX**2))
    window /= window.sum()
    c1, c2 = (0.01 * max_target) ** 2, (0.03 * max_target) ** 2

    losses = []
    num_images, height, width = pred.shape
    for b in range(num_images):
        weighted_sum = mass_sum = 0.0
        for i in range(height - WINDOW_PX + 1):
            for j in range(width - WINDOW_PX + 1):
                here = (b, slice(i, i + WINDOW_PX), slice(j, j + WINDOW_PX))
                weight = window * valid[here]
                mass = weight.sum()
                if mass == 0:
                    continue
                weight = weight / mass
                x, y = pred[here], target[here]
                mean_x, mean_y = (weight * x).sum(), (weight * y).sum()
                variance_x = (weight * (x - mean_x) ** 2).sum()
                variance_y = (weight * (y - mean_y) ** 2).sum()
                covariance = (weight * (x - mean_x) * (y - mean_y)).sum()
                luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
                structure = (2 * covariance + c2) / (variance_x + variance_y + c2)
                weighted_sum += mass * luminance * structure
                mass_sum += mass
        if mass_sum > 0:
            losses.append(min(max((1 - weighted_sum / mass_sum) / 2, 0.0), 1.0))
    return sum(losses) / len(losses) if losses else 0.0
