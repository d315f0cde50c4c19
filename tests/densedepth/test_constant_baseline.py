"""The best constant prediction."""

import csv
import json

import numpy as np
import pytest
from PIL import Image

from densedepth.constant_baseline import constant_baseline, constant_error_sums
from densedepth.metrics import HIGHER_IS_BETTER, METRIC_NAMES, image_metrics, metrics_of_sums
from densedepth.protocols import get_protocol, whole_image
from tests.densedepth.reference_metrics import make_pair


def test_all_constants_at_once_equal_one_after_another():
    gt_m = np.random.default_rng(0).uniform(0.5, 9.0, 300)
    gt_m[10:20] = 2.0
    gt_m.sort()
    constants_m = np.array([0.1, 0.4, 2.0, 2.5, 1.6, 5.0, 20.0])
    ours = metrics_of_sums(constant_error_sums(gt_m, constants_m))
    for constant_m, row in zip(constants_m, ours, strict=True):
        pred = np.full((1, 300), constant_m)
        single = image_metrics(pred, gt_m[None], np.ones((1, 300), bool))
        assert list(row) == pytest.approx(list(single.as_dict().values()), rel=1e-9, abs=1e-9)


@pytest.fixture(scope="module")
def maps():
    images = [make_pair(seed, 20, 30, np.float64)[1] / (1 + seed) for seed in range(4)]
    images[2][:, :7] = 0.0
    return images


def brute_force(maps, protocol, name, aggregation, constants_m):
    """Score every constant with the protocol itself and take the best."""
    best = []
    for constant_m in constants_m:
        table = protocol.new_table()
        for index, gt in enumerate(maps):
            table.update(str(index), protocol.evaluate(np.full_like(gt, constant_m), gt))
        best.append(table.compute().as_dict()[aggregation][name])
    return max(best) if name in HIGHER_IS_BETTER else min(best)


@pytest.mark.parametrize("aggregation", ["per_image_mean", "pooled"])
@pytest.mark.parametrize("name", ["abs_rel", "rmse", "log10", "delta1"])
def test_no_constant_tried_one_by_one_is_better(maps, name, aggregation):
    protocol = whole_image(0.1, 10.0)
    ours = constant_baseline(maps, protocol).metrics[aggregation][name]
    expected = brute_force(maps, protocol, name, aggregation, np.linspace(0.1, 5.0, 50))
    assert (ours >= expected - 1e-3) if name in HIGHER_IS_BETTER else (ours <= expected * 1.0001)


def test_the_stated_constant_gives_the_stated_figure(maps):
    protocol = whole_image(0.1, 10.0)
    baseline = constant_baseline(maps, protocol)
    for aggregation, metrics in baseline.metrics.items():
        for name in METRIC_NAMES:
            constant_m = baseline.constants_m[aggregation][name]
            assert (constant_m is None) == (name == "silog")
            expected = brute_force(maps, protocol, name, aggregation, [constant_m or 1.0])
            assert metrics[name] == pytest.approx(expected, rel=1e-6, abs=1e-3)


def test_the_grid_is_fine_enough_for_the_closed_form(maps):
    """The pooled rmse of the best constant is the standard deviation of all depths."""
    depths = np.concatenate([gt[gt > 0.1].ravel() for gt in maps])
    baseline = constant_baseline(maps, whole_image(0.1, 10.0))
    assert baseline.pooled["rmse"] == pytest.approx(depths.std(), rel=1e-4)
    assert baseline.constants_m["pooled"]["rmse"] == pytest.approx(depths.mean(), rel=0.006)


def test_crop_and_validity_are_the_protocols():
    gt = np.full((48, 64), 5.0, np.float32)
    gt[:4], gt[:, 62:] = 9.0, 9.0
    gt[20, 20] = 0.0
    baseline = constant_baseline([gt], get_protocol("nyu_eigen"))
    assert baseline.per_image_mean["delta1"] == 1.0
    assert baseline.per_image_mean["abs_rel"] < 0.006


def test_under_median_scaling_every_constant_is_the_median_of_the_image(maps):
    protocol = whole_image(0.1, 10.0).with_median_scaling()
    baseline = constant_baseline(maps, protocol)
    expected = protocol.new_table()
    for index, gt in enumerate(maps):
        expected.update(str(index), protocol.evaluate(np.full_like(gt, 3.0), gt))
    summary = expected.compute()
    assert baseline.per_image_mean == pytest.approx(summary.per_image_mean, rel=1e-6)
    assert baseline.pooled == pytest.approx(summary.pooled, rel=1e-6)
    assert baseline.constants_m["pooled"]["rmse"] is None
    assert json.loads(json.dumps(baseline.as_dict())) == baseline.as_dict()


def test_images_without_a_valid_pixel_do_not_count(maps):
    empty = np.zeros((20, 30))
    protocol = whole_image(0.1, 10.0)
    with_empty = constant_baseline([empty, *maps], protocol)
    assert with_empty == constant_baseline(maps, protocol)
    assert with_empty.num_images == 4
    with pytest.raises(ValueError, match="no image has a valid pixel under whole_image"):
        constant_baseline([empty], protocol)


@pytest.mark.samples
def test_real_nyu_frames_give_the_figures_measured_by_a_separate_script(samples_root):
    """200 test frames; a plain script had found delta1 .375, rel .411, rms 1.255."""
    folder = samples_root / "nyu_densedepth"
    with (folder / "data/nyu2_test.csv").open() as file:
        paths = [folder / line[1] for line in csv.reader(file)]
    gt_depths_m = (np.asarray(Image.open(path), np.float32) / 1000 for path in paths)
    baseline = constant_baseline(gt_depths_m, get_protocol("nyu_densedepth"))
    assert baseline.num_images == 200
    assert baseline.per_image_mean["delta1"] >= 0.3745
    assert baseline.per_image_mean["abs_rel"] <= 0.4115
    assert baseline.per_image_mean["rmse"] <= 1.2555
