"""An evaluation protocol: which pixels count, and what is done to a prediction first.

Figures of one model differ by more between protocols than those of two models under one
(``docs/evaluation.md``). A protocol is therefore a frozen value with a name, and every report
prints its description. ``protocols.py`` holds the field's by name.
"""

import re
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float

from densedepth.crops import Box, CropKind, crop_box, kb_box
from densedepth.metric_table import MetricTable
from densedepth.metrics import ImageMetrics, image_metrics, require_same_size
from densedepth.sample import TruthKind

Bounds = Literal["strict", "inclusive", "positive", "none"]
_BOUNDS_TEXT: dict[Bounds, str] = {
    "strict": "pixels with {min:g} < depth < {max:g} m count",
    "inclusive": "pixels with {min:g} <= depth <= {max:g} m count",
    "positive": "all measured pixels (depth > 0) count, without a limit",
    "none": "every pixel counts: the ground truth is dense and nothing is masked",
}


@dataclass(frozen=True)
class Protocol:
    """How a data set's predictions are scored.

    Attributes:
        name: what ``get_protocol`` finds it by.
        ground_truth: which measurement the figures refer to.
        min_m: lower limit of predictions, and of the ground truth where ``bounds`` limits it.
        max_m: upper limit of the same.
        bounds: which ground-truth pixels count: ``strict`` min < d < max, ``inclusive``
            min <= d <= max, ``positive`` d > 0, ``none`` all, holes being an error.
        crop: the box that is scored.
        crop_on: the map that the box is taken of: the ``full`` map, or its ``kb`` crop
            (352x1216). The two give different regions.
        flip_average: whether the prediction is the mean, in metres, of the image's and the
            mirrored image's; the caller predicts, so the caller averages.
        scaling: ``median`` multiplies each prediction by median(gt) / median(pred).
        num_official_images: length of the published test list, where there is one.
        range_edges_m: limits of the depth ranges that are reported apart.
        source: where the definition is from.
        truth_kinds: the kinds of depth that it may be scored against; none named = any.
    """

    name: str
    ground_truth: str
    min_m: float
    max_m: float
    bounds: Bounds
    crop: CropKind
    crop_on: Literal["full", "kb"]
    flip_average: bool
    scaling: Literal["none", "median"]
    num_official_images: int | None
    range_edges_m: tuple[float, ...]
    source: str
    truth_kinds: tuple[TruthKind, ...] = ()

    def __post_init__(self) -> None:
        if not 0.0 < self.min_m < self.max_m < float("inf"):
            raise ValueError(
                f"protocol {self.name}: 0 < min_m < max_m must hold in metres, "
                f"not min_m={self.min_m}, max_m={self.max_m}"
            )

    def require_truth(self, kind: TruthKind) -> None:
        """Make sure that a data set's depth is what this protocol's figures refer to.

        Raises:
            ValueError: it is another kind of measurement.
        """
        if self.truth_kinds and kind not in self.truth_kinds:
            raise ValueError(
                f"protocol {self.name} is scored against {' or '.join(self.truth_kinds)} "
                f"({self.ground_truth}), but this data set's depth is {kind}: choose a protocol "
                "for it (docs/evaluation.md), or whole_image, or another reader or option of it"
            )

    @property
    def masks_invalid(self) -> bool:
        """Whether pixels without a measurement are left out."""
        return self.bounds != "none"

    def crop_box(self, height: int, width: int) -> Box:
        """Give (top, bottom, left, right), half-open, in coordinates of the full map.

        Raises:
            ValueError: the map is too small for the crop; the message names another protocol.
        """
        if self.crop_on == "full":
            return crop_box(self.crop, height, width)
        kb_top, kb_bottom, kb_left, kb_right = kb_box(height, width)
        top, bottom, left, right = crop_box(self.crop, kb_bottom - kb_top, kb_right - kb_left)
        return kb_top + top, kb_top + bottom, kb_left + left, kb_left + right

    def valid_mask(self, gt_depth_m: Float[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
        """Mark the pixels that count: inside the crop, and measured within the bounds."""
        top, bottom, left, right = self.crop_box(*gt_depth_m.shape)
        valid = np.zeros(gt_depth_m.shape, dtype=np.bool_)
        valid[top:bottom, left:right] = self._in_bounds(gt_depth_m[top:bottom, left:right])
        return valid

    def prepare(
        self, pred_depth_m: Float[np.ndarray, "ph pw"], gt_depth_m: Float[np.ndarray, "gh gw"]
    ) -> tuple[Float[np.ndarray, "h w"], Float[np.ndarray, "h w"], Bool[np.ndarray, "h w"]]:
        """Give prediction, ground truth and validity of the scored box, ready for the metrics.

        In this order: both maps are cut to ``crop_box``; pixels are masked by the ground
        truth; the prediction is scaled by the medians of the valid pixels where the protocol
        says so; it is clamped to [min_m, max_m], an infinite one to max_m. NaN stays NaN, and
        the metrics refuse it.

        Raises:
            ValueError: the sizes differ, the map is too small, or no scale exists.
        """
        require_same_size(pred_depth_m, gt_depth_m)
        top, bottom, left, right = self.crop_box(*gt_depth_m.shape)
        gt = gt_depth_m[top:bottom, left:right]
        pred = pred_depth_m[top:bottom, left:right]
        valid = self._in_bounds(gt)
        if self.scaling == "median" and valid.any():
            pred = pred * pred.dtype.type(median_scale(pred, gt, valid))
        return np.clip(pred, self.min_m, self.max_m), gt, valid

    def evaluate(
        self, pred_depth_m: Float[np.ndarray, "ph pw"], gt_depth_m: Float[np.ndarray, "gh gw"]
    ) -> ImageMetrics:
        """Score one prediction, in metres and of the ground truth's size.

        An image without a valid pixel gives empty metrics, which a table counts as skipped.

        Raises:
            ValueError: as ``prepare``; or NaN in the prediction; or a hole in ground truth that
                must be dense.
        """
        pred, gt, valid = self.prepare(pred_depth_m, gt_depth_m)
        try:
            return image_metrics(pred, gt, valid, range_edges_m=self.range_edges_m)
        except ValueError as error:
            hint = "" if self.masks_invalid else f"; its ground truth must be {self.ground_truth}"
            raise ValueError(f"protocol {self.name}: {error}{hint}") from None

    def scale(
        self, pred_depth_m: Float[np.ndarray, "h w"], gt_depth_m: Float[np.ndarray, "h w"]
    ) -> float | None:
        """Give the factor that ``evaluate`` multiplies a prediction by; None = there is none."""
        valid = self.valid_mask(gt_depth_m)
        if self.scaling == "none" or not valid.any():
            return None
        return median_scale(pred_depth_m, gt_depth_m, valid)

    def new_table(self) -> MetricTable:
        """Give an empty table for this protocol's images."""
        return MetricTable(self.name, self.range_edges_m)

    def with_median_scaling(self) -> "Protocol":
        """Give the same protocol with per-image median scaling, named ``...-median``.

        The mark stands before that of the mirror average: one protocol has one name.
        """
        if self.scaling == "median":
            return self
        name = re.sub("(-flip|-noflip)?$", r"-median\1", self.name, count=1)
        return replace(self, name=name, scaling="median")

    def with_flip_average(self, enabled: bool) -> "Protocol":
        """Give the same protocol with mirror averaging on or off, ``-flip`` or ``-noflip``."""
        if self.flip_average == enabled:
            return self
        added, opposite = ("-flip", "-noflip") if enabled else ("-noflip", "-flip")
        is_undone = opposite in self.name
        name = self.name.replace(opposite, "") if is_undone else self.name + added
        return replace(self, name=name, flip_average=enabled)

    def coverage(self, num_images: int) -> str:
        """Say how much of the published test list was scored, as '200 of 654 official images'."""
        if self.num_official_images is None:
            return f"{num_images} images"
        return f"{num_images} of {self.num_official_images} official images"

    def describe(self) -> str:
        """Say all of it in one paragraph, for a report."""
        crop = {
            "none": "no crop",
            "nyu_densedepth": "rows 20..459, columns 24..615 of 480x640 (440x592)",
            "nyu_eigen": "rows 45..470, columns 41..600 of 480x640 (426x560)",
            "garg": "Garg crop",
            "kitti_eigen": "Eigen's KITTI crop",
        }[self.crop]
        if self.crop.startswith("nyu"):
            crop += ", in proportion for other sizes"
        elif self.crop_on == "kb":
            crop += " of the 352x1216 benchmark crop"
        elif self.crop != "none":
            crop += " of the full map"
        steps = [
            f"ground truth: {self.ground_truth}",
            _BOUNDS_TEXT[self.bounds].format(min=self.min_m, max=self.max_m),
            crop,
            "prediction times median(gt)/median(pred), per image"
            if self.scaling == "median"
            else "no scaling of the prediction",
            f"prediction clamped to [{self.min_m:g}, {self.max_m:g}] m",
            "mean of the image's and the mirrored image's prediction"
            if self.flip_average
            else "no mirror averaging",
        ]
        if self.num_official_images is not None:
            steps.append(f"published list of {self.num_official_images} images")
        return f"{self.name}: {'; '.join(steps)}. Source: {self.source}."

    def as_dict(self) -> dict[str, Any]:
        """Give a JSON-ready form."""
        return asdict(self) | {
            "range_edges_m": list(self.range_edges_m),
            "truth_kinds": list(self.truth_kinds),
        }

    def _in_bounds(self, gt_depth_m: Float[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
        if self.bounds == "strict":
            return (gt_depth_m > self.min_m) & (gt_depth_m < self.max_m)
        if self.bounds == "inclusive":
            return (gt_depth_m >= self.min_m) & (gt_depth_m <= self.max_m)
        if self.bounds == "positive":
            return (gt_depth_m > 0.0) & (gt_depth_m < np.inf)
        return np.ones(gt_depth_m.shape, dtype=np.bool_)


def median_scale(
    pred_depth_m: Float[np.ndarray, "h w"],
    gt_depth_m: Float[np.ndarray, "h w"],
    valid: Bool[np.ndarray, "h w"],
) -> float:
    """Give median(gt) / median(pred) over the valid pixels.

    Raises:
        ValueError: the median prediction is not positive and finite.
    """
    pred_median_m = float(np.median(pred_depth_m[valid]))
    if not 0.0 < pred_median_m < float("inf"):
        raise ValueError(
            f"median of the prediction is {pred_median_m} m over {int(valid.sum())} pixels: no "
            "median scale exists; check that the network predicts positive depth"
        )
    return float(np.median(gt_depth_m[valid])) / pred_median_m
