"""Scoring a test set: this project's metrics against the field's usual numpy code.

    python -m benchmarks.bench_metrics                        # 654 images, nyu_densedepth
    python -m benchmarks.bench_metrics --protocol kitti_eigen_garg --num-images 50

The peer is what BTS, AdaBins and monodepth2 do per image, written from the formulas: a boolean
mask, then one expression per metric, each with its own logarithms. Both sides get the same
maps in turn and must agree; the figure is the median time per image. Ours is timed with the
metrics by depth range too, which the peer does not compute.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np

from densedepth.metrics import METRIC_NAMES
from densedepth.protocols import PROTOCOLS, Protocol, get_protocol

# Distinct pairs of maps; the images cycle through them (654 pairs would need 1.6 GB).
NUM_PAIRS = 16


def smooth(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Make a smooth random field in [0, 1], as coarse noise interpolated."""
    coarse = rng.random((8, 10))
    rows, cols = np.linspace(0, 7, height), np.linspace(0, 9, width)
    tall = np.stack([np.interp(rows, np.arange(8), column) for column in coarse.T], axis=1)
    return np.stack([np.interp(cols, np.arange(10), row) for row in tall])


def make_pairs(protocol: Protocol, num_pairs: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Make (prediction, ground truth) in metres, float32, of the data set's size.

    Errors are some 15 %. NYU's `rawDepths` lack 20 % of the pixels, KITTI's maps 80 %.
    """
    rng = np.random.default_rng(0)
    height, width = (375, 1242) if protocol.name.startswith("kitti") else (480, 640)
    share_missing = 0.8 if protocol.name.startswith("kitti") else 0.2
    pairs = []
    for _ in range(num_pairs):
        gt_m = protocol.max_m * (0.05 + 0.9 * smooth(rng, height, width))
        error = 0.3 * (smooth(rng, height, width) - 0.5) + rng.normal(0, 0.1, gt_m.shape)
        pred_m = gt_m * np.exp(error)
        if protocol.masks_invalid:
            gt_m[rng.random(gt_m.shape) < share_missing] = 0.0
        pairs.append((pred_m.astype(np.float32), gt_m.astype(np.float32)))
    return pairs


def peer_scores(protocol: Protocol, pred_m: np.ndarray, gt_m: np.ndarray) -> list[float]:
    """Score one image the field's way, in the order of ``METRIC_NAMES``."""
    pred_m = np.clip(pred_m, protocol.min_m, protocol.max_m)
    top, bottom, left, right = protocol.crop_box(*gt_m.shape)
    if protocol.masks_invalid:
        valid = np.logical_and(gt_m > protocol.min_m, gt_m < protocol.max_m)
        in_crop = np.zeros(gt_m.shape, bool)
        in_crop[top:bottom, left:right] = True
        valid = np.logical_and(valid, in_crop)
        gt, pred = gt_m[valid], pred_m[valid]
    else:
        gt, pred = gt_m[top:bottom, left:right], pred_m[top:bottom, left:right]

    ratio = np.maximum(gt / pred, pred / gt)
    log_error = np.log(pred) - np.log(gt)
    return [
        np.mean(np.abs(gt - pred) / gt),
        np.mean((gt - pred) ** 2 / gt),
        np.sqrt(np.mean((gt - pred) ** 2)),
        np.sqrt(np.mean((np.log(gt) - np.log(pred)) ** 2)),
        np.mean(np.abs(np.log10(gt) - np.log10(pred))),
        100 * np.sqrt(np.mean(log_error**2) - np.mean(log_error) ** 2),
        *((ratio < 1.25**power).mean() for power in (1, 2, 3)),
    ]


def main() -> None:
    """Time both sides in turn and print the medians, the ratio and the largest difference."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--num-images", type=int, default=654)
    parser.add_argument("--protocol", default="nyu_densedepth", choices=list(PROTOCOLS))
    options = parser.parse_args()
    protocol = get_protocol(options.protocol)
    without_ranges = replace(protocol, range_edges_m=())
    pairs = make_pairs(protocol, min(NUM_PAIRS, options.num_images))
    doubles = [tuple(depth_m.astype(np.float64) for depth_m in pair) for pair in pairs]

    difference = 0.0
    for (pred_m, gt_m), double in zip(pairs, doubles, strict=True):
        exact = np.array(peer_scores(protocol, *double))
        ours = np.array(list(protocol.evaluate(pred_m, gt_m).as_dict().values()))
        difference = max(difference, float(np.abs(ours / exact - 1).max()))

    sides: dict[str, tuple[Callable[..., object], bool]] = {
        "ours": (without_ranges.evaluate, False),
        "ours + ranges": (protocol.evaluate, False),
        "peer, float32": (partial(peer_scores, protocol), False),
        "peer, float64": (partial(peer_scores, protocol), True),
    }
    times_s: dict[str, list[float]] = {name: [] for name in sides}
    for index in range(options.num_images):
        for name, (score, is_double) in sides.items():
            maps = (doubles if is_double else pairs)[index % len(pairs)]
            start_s = time.perf_counter()
            score(*maps)
            times_s[name].append(time.perf_counter() - start_s)

    ours_s = float(np.median(times_s["ours"]))
    print(protocol.describe())
    print(f"{options.num_images} images, {len(METRIC_NAMES)} metrics, median per image")
    for name, samples_s in times_s.items():
        median_s = float(np.median(samples_s))
        ratio = f"{median_s / ours_s:5.2f} x ours"
        print(f"{name:14s} {median_s * 1e3:7.2f} ms  {ratio}  all images {sum(samples_s):6.2f} s")
    print(f"largest relative difference from the peer in float64: {difference:.1e}")
    if difference > 1e-6:
        raise SystemExit("the two sides differ by more than 1e-6: the timing means nothing")


if __name__ == "__main__":
    main()
