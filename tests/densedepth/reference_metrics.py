"""The metrics once more, slow and obvious: one pixel at a time, in Python's own floats."""

import math

import numpy as np


def pixel_pairs(pred_depth_m, gt_depth_m, valid):
    """List (predicted, measured) of the valid pixels."""
    height, width = gt_depth_m.shape
    return [
        (float(pred_depth_m[row, col]), float(gt_depth_m[row, col]))
        for row in range(height)
        for col in range(width)
        if valid[row, col]
    ]


def metrics_of_pairs(pairs):
    """Compute every metric from its definition over (predicted, measured) pairs."""
    n = len(pairs)
    logs = [math.log(q) - math.log(d) for q, d in pairs]
    mean_log = sum(logs) / n
    out = {
        "abs_rel": sum(abs(q - d) / d for q, d in pairs) / n,
        "sq_rel": sum((q - d) ** 2 / d for q, d in pairs) / n,
        "rmse": math.sqrt(sum((q - d) ** 2 for q, d in pairs) / n),
        "rmse_log": math.sqrt(sum(e**2 for e in logs) / n),
        "log10": sum(abs(math.log10(q) - math.log10(d)) for q, d in pairs) / n,
        "silog": 100 * math.sqrt(sum((e - mean_log) ** 2 for e in logs) / n),
    }
    for k in (1, 2, 3):
        out[f"delta{k}"] = sum(max(d / q, q / d) < 1.25**k for q, d in pairs) / n
    return out


def image_reference(pred_depth_m, gt_depth_m, valid):
    return metrics_of_pairs(pixel_pairs(pred_depth_m, gt_depth_m, valid))


def make_pair(seed, height=12, width=17, dtype=np.float32, share_valid=0.8, max_m=10.0):
    """Make a random measured map, a prediction with some 20 % error, and a validity mask."""
    rng = np.random.default_rng(seed)
    gt_depth_m = rng.uniform(0.5, max_m * 0.99, (height, width)).astype(dtype)
    factor = np.exp(rng.normal(0.05, 0.2, (height, width)))
    pred_depth_m = (gt_depth_m * factor).astype(dtype)
    return pred_depth_m, gt_depth_m, rng.random((height, width)) < share_valid
