"""The best a predictor can do that answers every image with one and the same depth.

A model's figures mean little without it: on NYU Depth v2 a constant reaches delta1 of about a
third. The constant is chosen on the evaluated images themselves, apart for each metric and
aggregation, so it is the strongest constant there is, and no training enters it.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Float64

from densedepth.metric_table import AGGREGATIONS, PER_IMAGE_MEAN, POOLED
from densedepth.metrics import HIGHER_IS_BETTER, METRIC_NAMES, SUM_NAMES, metrics_of_sums
from densedepth.protocol import Protocol

# Each constant of the grid is this many times the one before it.
GRID_STEP = 1.01


@dataclass(frozen=True)
class ConstantBaseline:
    """The best constant prediction under one protocol.

    Attributes:
        protocol: name of the protocol.
        num_images: images with at least one valid pixel.
        metrics: aggregation -> metric -> the best value of any constant.
        constants_m: aggregation -> metric -> the constant that gives it; None where every
            constant gives the same: silog always, and all metrics of a protocol that scales by
            medians (the constant then becomes each image's median).
    """

    protocol: str
    num_images: int
    metrics: dict[str, dict[str, float]]
    constants_m: dict[str, dict[str, float | None]]

    @property
    def per_image_mean(self) -> dict[str, float]:
        """Metric by name, unweighted mean of the images' values."""
        return self.metrics[PER_IMAGE_MEAN]

    @property
    def pooled(self) -> dict[str, float]:
        """Metric by name, over all pixels together."""
        return self.metrics[POOLED]

    def as_dict(self) -> dict[str, Any]:
        """Give a JSON-ready form."""
        return asdict(self)


def constant_baseline(
    gt_depths_m: Iterable[Float[np.ndarray, "h w"]], protocol: Protocol
) -> ConstantBaseline:
    """Find the best constant for every metric and both aggregations.

    The constants tried are a geometric grid over the protocol's range, in steps of 1 %: its
    best value differs from the true optimum of abs_rel, rmse or log10 by some 1e-5 of it.

    Args:
        gt_depths_m: the evaluated images' ground truth, metres; read once.
        protocol: crop, validity and range are taken from it.

    Raises:
        ValueError: no image has a valid pixel.
    """
    num_steps = int(np.ceil(np.log(protocol.max_m / protocol.min_m) / np.log(GRID_STEP)))
    grid_m = np.geomspace(protocol.min_m, protocol.max_m, num_steps + 1)
    scales = protocol.scaling == "median"
    num_constants = 1 if scales else len(grid_m)
    image_metrics_sum = np.zeros((num_constants, len(METRIC_NAMES)))
    total_sums = np.zeros((num_constants, len(SUM_NAMES)))
    num_images = 0
    for gt_depth_m in gt_depths_m:
        _, gt_m, valid = protocol.prepare(np.ones_like(gt_depth_m), gt_depth_m)
        if not valid.any():
            continue
        sorted_m = np.sort(gt_m[valid]).astype(np.float64)
        if scales:
            median_m = np.median(sorted_m)
            constants_m = np.clip(np.array([median_m]), protocol.min_m, protocol.max_m)
        else:
            constants_m = grid_m
        sums = constant_error_sums(sorted_m, constants_m)
        image_metrics_sum += metrics_of_sums(sums)
        total_sums += sums
        num_images += 1
    if num_images == 0:
        raise ValueError(f"no image has a valid pixel under {protocol.name}")

    tables = (image_metrics_sum / num_images, metrics_of_sums(total_sums))
    metrics: dict[str, dict[str, float]] = {}
    constants: dict[str, dict[str, float | None]] = {}
    for aggregation, table in zip(AGGREGATIONS, tables, strict=True):
        metrics[aggregation], constants[aggregation] = {}, {}
        for name, column in zip(METRIC_NAMES, table.T, strict=True):
            best = int(column.argmax() if name in HIGHER_IS_BETTER else column.argmin())
            metrics[aggregation][name] = float(column[best])
            is_any = scales or name == "silog"
            constants[aggregation][name] = None if is_any else float(grid_m[best])
    return ConstantBaseline(protocol.name, num_images, metrics, constants)


def constant_error_sums(
    sorted_gt_m: Float64[np.ndarray, " n"], constants_m: Float64[np.ndarray, " c"]
) -> Float64[np.ndarray, "c 10"]:
    """Give the sums of ``metrics.SUM_NAMES`` that each constant prediction would have.

    With the ground truth sorted, everything follows from cumulative sums at the place of the
    constant, so that all constants together cost about as much as one.
    """
    num = sorted_gt_m.size
    c = constants_m
    log_gt = np.log(sorted_gt_m)
    log_c = np.log(c)
    num_below = np.searchsorted(sorted_gt_m, c)

    def below_and_above(values: Float64[np.ndarray, " n"]) -> tuple[np.ndarray, np.ndarray]:
        cumulative = np.concatenate([[0.0], np.cumsum(values)])
        below = cumulative[num_below]
        return below, cumulative[-1] - below

    inverse_below, inverse_above = below_and_above(1.0 / sorted_gt_m)
    log_below, log_above = below_and_above(log_gt)
    sum_m, sum_log = sorted_gt_m.sum(), log_gt.sum()
    num_above = num - num_below
    columns = [
        np.full(c.shape, float(num)),
        c * inverse_below - num_below + num_above - c * inverse_above,
        c**2 * (inverse_below + inverse_above) - 2.0 * c * num + sum_m,
        c**2 * num - 2.0 * c * sum_m + np.dot(sorted_gt_m, sorted_gt_m),
        num_below * log_c - log_below + log_above - num_above * log_c,
        num * log_c**2 - 2.0 * log_c * sum_log + np.dot(log_gt, log_gt),
        num * log_c - sum_log,
    ]
    for limit in (1.25, 1.25**2, 1.25**3):
        num_before_upper = np.searchsorted(sorted_gt_m, c * limit, side="left")
        num_to_lower = np.searchsorted(sorted_gt_m, c / limit, side="right")
        columns.append((num_before_upper - num_to_lower).astype(np.float64))
    # Differences of large sums can end slightly below zero where the error is zero.
    sums = np.stack(columns, axis=-1)
    sums[:, 1:6] = np.maximum(sums[:, 1:6], 0.0)
    return sums
