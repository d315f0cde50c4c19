"""Confidence intervals by the percentile bootstrap over images.

Pixels of one image are not independent, images nearly are: an image is drawn whole.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64


@dataclass(frozen=True)
class Interval:
    """A confidence interval: the mean's own value lies in it with probability ``level``."""

    low: float
    high: float
    level: float


def bootstrap_interval(
    per_image_values: Float[np.ndarray, " n"],
    num_resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Give a confidence interval for the mean of per-image values.

    Differences of two models' values on the same images give the paired interval of their
    difference, which is much narrower than the two models' own.

    Raises:
        ValueError: no value, a value that is not finite, or a level outside (0, 1).
    """
    values = np.asarray(per_image_values, dtype=np.float64)
    return percentile_interval(resample_means(values[:, None], num_resamples, seed)[:, 0], level)


def resample_means(
    values: Float64[np.ndarray, "n k"], num_resamples: int, seed: int
) -> Float64[np.ndarray, "r k"]:
    """Draw n images with replacement ``num_resamples`` times; give the mean of each draw.

    All columns share the draws. The result depends on the order of the rows: sort them by key.
    """
    num_images = len(values)
    if num_images == 0 or not np.isfinite(values).all():
        raise ValueError(f"bootstrap needs finite values of one image or more, not {num_images}")
    if num_resamples < 1:
        raise ValueError(f"num_resamples must be 1 or more, not {num_resamples}")
    generator = np.random.default_rng(seed)
    means = np.empty((num_resamples, values.shape[1]))
    for resample in range(num_resamples):
        drawn = generator.integers(num_images, size=num_images)
        means[resample] = np.bincount(drawn, minlength=num_images) @ values
    return means / num_images


def percentile_interval(resampled: Float64[np.ndarray, " r"], level: float) -> Interval:
    """Cut equal tails off the resampled values so that ``level`` of them remain."""
    if not 0.0 < level < 1.0:
        raise ValueError(f"level must lie between 0 and 1, not {level}")
    tail = (1.0 - level) / 2.0
    low, high = np.quantile(resampled, [tail, 1.0 - tail])
    return Interval(float(low), float(high), level)
