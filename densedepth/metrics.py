"""The error metrics of one predicted depth map.

Every metric follows from ten sums over the valid pixels p, with d the measured and q the
predicted depth in metres and e = ln q - ln d. The sums are kept: added over the images of a
data set they give its pooled metrics (``metric_table.py``).

The definitions are those of Eigen et al. (2014) as BTS, AdaBins, ZoeDepth and monodepth2
compute them; ``docs/evaluation.md`` names the variants that are not comparable.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Bool, Float, Float64

METRIC_NAMES = (
    "abs_rel",
    "sq_rel",
    "rmse",
    "rmse_log",
    "log10",
    "silog",
    "delta1",
    "delta2",
    "delta3",
)
HIGHER_IS_BETTER = frozenset({"delta1", "delta2", "delta3"})

SUM_NAMES = (
    "num_pixels",
    "abs_rel",  # |q - d| / d
    "sq_rel",  # (q - d)^2 / d
    "sq_error",  # (q - d)^2
    "abs_log",  # |e|
    "sq_log",  # e^2
    "log",  # e
    "within_1",  # 1 where max(d/q, q/d) < 1.25
    "within_2",  # the same for 1.25^2
    "within_3",  # the same for 1.25^3
)

_RATIO_LIMITS = (1.25, 1.25**2, 1.25**3)
# Float32 temporaries of this many pixels stay in a core's cache; a partial sum over one block
# in float32 and the sum of the blocks in float64 keep the relative error under 1e-6.
_BLOCK_PIXELS = 65_536

Sums = tuple[float, ...]


@dataclass(frozen=True)
class ImageMetrics:
    """The metrics of one image; metres where a metric has a unit.

    Attributes:
        sums: the ten sums over all valid pixels, in the order of ``SUM_NAMES``.
        range_sums: the same for each depth range that was asked for.

    Every metric raises ValueError for an image without a valid pixel: ask ``is_empty`` first.
    """

    sums: Sums
    range_sums: tuple[Sums, ...] = ()

    @property
    def num_pixels(self) -> int:
        """Number of valid pixels."""
        return int(self.sums[0])

    @property
    def is_empty(self) -> bool:
        """True where no pixel is valid, so that no metric exists."""
        return self.num_pixels == 0

    @property
    def abs_rel(self) -> float:
        """Mean of abs(q - d) / d."""
        return self._metric(0)

    @property
    def sq_rel(self) -> float:
        """Mean of (q - d)^2 / d, in metres."""
        return self._metric(1)

    @property
    def rmse(self) -> float:
        """Root of the mean of (q - d)^2, in metres."""
        return self._metric(2)

    @property
    def rmse_log(self) -> float:
        """Root of the mean of e^2 (natural logarithm)."""
        return self._metric(3)

    @property
    def log10(self) -> float:
        """Mean of abs(log10 q - log10 d)."""
        return self._metric(4)

    @property
    def silog(self) -> float:
        """100 times the root of mean(e^2) - mean(e)^2; blind to one factor on all depths."""
        return self._metric(5)

    @property
    def delta1(self) -> float:
        """Share of pixels with max(d/q, q/d) < 1.25, strictly."""
        return self._metric(6)

    @property
    def delta2(self) -> float:
        """Share of pixels with max(d/q, q/d) < 1.25^2, strictly."""
        return self._metric(7)

    @property
    def delta3(self) -> float:
        """Share of pixels with max(d/q, q/d) < 1.25^3, strictly."""
        return self._metric(8)

    def as_dict(self) -> dict[str, float]:
        """Give all nine metrics by name."""
        return {name: self._metric(index) for index, name in enumerate(METRIC_NAMES)}

    def _metric(self, index: int) -> float:
        if self.is_empty:
            raise ValueError(
                f"{METRIC_NAMES[index]} of an image without a valid pixel does not exist; "
                "check is_empty, or let MetricTable count the image as skipped"
            )
        return float(metrics_of_sums(np.asarray(self.sums))[index])


def image_metrics(
    pred_depth_m: Float[np.ndarray, "ph pw"],
    gt_depth_m: Float[np.ndarray, "gh gw"],
    valid: Bool[np.ndarray, "vh vw"],
    *,
    range_edges_m: Sequence[float] = (),
) -> ImageMetrics:
    """Score one predicted depth map against one measured map.

    Args:
        pred_depth_m: prediction, metres; positive and finite where ``valid``.
        gt_depth_m: measurement, metres; positive and finite where ``valid``.
        valid: which pixels count.
        range_edges_m: rising limits of depth ranges; range i holds edge[i] <= d < edge[i+1],
            the last one its upper limit too.

    Float64 maps are computed in float64; others in float32 with float64 sums.

    Raises:
        ValueError: the sizes differ, or a valid pixel is not positive and finite.
    """
    require_same_size(pred_depth_m, gt_depth_m)
    if valid.shape != gt_depth_m.shape:
        raise ValueError(f"valid is {valid.shape}, the depth maps are {gt_depth_m.shape}")
    is_double = np.float64 in (pred_depth_m.dtype, gt_depth_m.dtype)
    dtype = np.dtype(np.float64 if is_double else np.float32)
    pred = pred_depth_m.astype(dtype, copy=False).ravel()
    gt = gt_depth_m.astype(dtype, copy=False).ravel()

    pred, gt = _select(pred, gt, valid.ravel())

    parts: list[np.ndarray] = []
    is_left = np.ones(gt.shape, dtype=np.bool_)
    for lower_m, upper_m, is_last in _ranges(range_edges_m):
        is_inside = (gt >= lower_m) & ((gt <= upper_m) if is_last else (gt < upper_m))
        is_left ^= is_inside
        parts.append(_error_sums(*_select(pred, gt, is_inside)))
    total = np.sum([*parts, _error_sums(*_select(pred, gt, is_left))], axis=0)

    if not np.isfinite(total).all():
        raise ValueError(_bad_pixels(pred_depth_m, gt_depth_m, valid))
    return ImageMetrics(_as_tuple(total), tuple(_as_tuple(part) for part in parts))


def metrics_of_sums(sums: Float64[np.ndarray, "*batch 10"]) -> Float64[np.ndarray, "*batch 9"]:
    """Turn sums into metrics, in the order of ``METRIC_NAMES``; every pixel count must be > 0.

    Means in place of sums (all divided by one number) give the same metrics.
    """
    mean = sums[..., 1:] / sums[..., :1]
    abs_rel, sq_rel, sq_error, abs_log, sq_log, log = (mean[..., i] for i in range(6))
    # Rounding can leave the variance of e slightly negative where e is constant.
    log_variance = np.maximum(sq_log - log**2, 0.0)
    metrics = [abs_rel, sq_rel, np.sqrt(sq_error), np.sqrt(sq_log), abs_log / np.log(10.0)]
    metrics += [100.0 * np.sqrt(log_variance), *(mean[..., i] for i in range(6, 9))]
    return np.stack(metrics, axis=-1)


def require_same_size(
    pred_depth_m: Float[np.ndarray, "ph pw"], gt_depth_m: Float[np.ndarray, "gh gw"]
) -> None:
    """Refuse a prediction of another size than the ground truth.

    Raises:
        ValueError: names both sizes.
    """
    if pred_depth_m.shape != gt_depth_m.shape:
        (ph, pw), (gh, gw) = pred_depth_m.shape, gt_depth_m.shape
        raise ValueError(
            f"prediction is {ph}x{pw}, ground truth is {gh}x{gw} (height x width); "
            "resize the prediction to the ground truth before scoring"
        )


def _error_sums(
    pred: Float[np.ndarray, " n"], gt: Float[np.ndarray, " n"]
) -> Float64[np.ndarray, "10"]:
    """Sum the ten quantities over pixels that are all valid; NaN where one is not positive.

    One logarithm per pixel: with r = q/d, (q - d)/d is r - 1 and e is ln r. The ratio that the
    thresholds test is divided both ways as defined: depth from a PNG often has a ratio of
    exactly 1.25, where 0.8 would round differently.
    """
    sums = np.zeros(10)
    sums[0] = gt.size
    for start in range(0, gt.size, _BLOCK_PIXELS):
        d, q = gt[start : start + _BLOCK_PIXELS], pred[start : start + _BLOCK_PIXELS]
        if not d.min() > 0.0:
            return np.full(10, np.nan)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            ratio = q / d
            larger_ratio = np.maximum(ratio, d / q)
            for index, limit in enumerate(_RATIO_LIMITS, start=7):
                sums[index] += np.count_nonzero(larger_ratio < limit)
            error_m = q - d
            log = np.log(ratio)
            relative = np.subtract(ratio, 1.0, out=ratio)
            sums[2] += np.dot(relative, error_m)
            sums[3] += np.dot(error_m, error_m)
            sums[5] += np.dot(log, log)
            sums[6] += log.sum()
            sums[1] += np.abs(relative, out=relative).sum()
            sums[4] += np.abs(log, out=log).sum()
    return sums


def _select(
    pred: Float[np.ndarray, " n"], gt: Float[np.ndarray, " n"], chosen: Bool[np.ndarray, " n"]
) -> tuple[Float[np.ndarray, " k"], Float[np.ndarray, " k"]]:
    """Keep the chosen pixels; indices once and two ``take`` beat two boolean indexings."""
    if chosen.all():
        return pred, gt
    indices = np.flatnonzero(chosen)
    return pred.take(indices), gt.take(indices)


def _ranges(edges_m: Sequence[float]) -> list[tuple[float, float, bool]]:
    pairs = list(pairwise(edges_m))
    if len(edges_m) == 1 or any(lower_m >= upper_m for lower_m, upper_m in pairs):
        raise ValueError(f"range_edges_m must be two or more rising numbers, not {edges_m}")
    return [(lower, upper, index == len(pairs) - 1) for index, (lower, upper) in enumerate(pairs)]


def _as_tuple(sums: Float64[np.ndarray, "10"]) -> Sums:
    return tuple(float(value) for value in sums)


def _bad_pixels(
    pred_depth_m: Float[np.ndarray, "h w"],
    gt_depth_m: Float[np.ndarray, "h w"],
    valid: Bool[np.ndarray, "h w"],
) -> str:
    for name, depth_m in (("ground truth", gt_depth_m), ("prediction", pred_depth_m)):
        bad = valid & ~(np.isfinite(depth_m) & (depth_m > 0.0))
        if bad.any():
            row, col = (int(index[0]) for index in np.nonzero(bad))
            return (
                f"{name} is not positive and finite at {int(bad.sum())} of {int(valid.sum())} "
                f"valid pixels, first {depth_m[row, col]} at row {row}, column {col}; clamp the "
                "prediction, and take pixels without a measurement out of the validity mask"
            )
    return "a depth ratio overflowed: the maps are too far apart to be compared"
