"""The metrics of a data set, collected on one or several workers."""

import json
import pickle

import numpy as np
import pytest

from densedepth.metric_table import AGGREGATIONS, MetricTable
from densedepth.metrics import METRIC_NAMES, image_metrics
from tests.densedepth.reference_metrics import (
    image_reference,
    make_pair,
    metrics_of_pairs,
    pixel_pairs,
)

EDGES = (0.0, 2.0, 5.0, 10.0)


def pairs_of(num_images, dtype=np.float64):
    """Images of different size and different difficulty, so that aggregations differ."""
    images = {}
    for index in range(num_images):
        pred, gt, valid = make_pair(index, 6 + index, 9, dtype, share_valid=0.2 + 0.1 * index)
        images[f"image-{index}"] = (pred * (1.0 + 0.1 * index), gt, valid)
    return images


def table_of(images, protocol="nyu_eigen"):
    table = MetricTable(protocol, EDGES)
    for key, (pred, gt, valid) in images.items():
        table.update(key, image_metrics(pred, gt, valid, range_edges_m=EDGES))
    return table


def test_both_aggregations_equal_their_definitions():
    images = pairs_of(6)
    summary = table_of(images).compute()
    rows = [image_reference(*image) for image in images.values()]
    for name in METRIC_NAMES:
        mean = sum(row[name] for row in rows) / len(rows)
        assert summary.per_image_mean[name] == pytest.approx(mean, rel=1e-12)
    pixels = [pair for image in images.values() for pair in pixel_pairs(*image)]
    assert summary.pooled == pytest.approx(metrics_of_pairs(pixels), rel=1e-12)
    assert summary.num_images == 6
    assert summary.num_pixels == len(pixels)


def test_the_two_aggregations_differ_so_a_label_is_needed():
    summary = table_of(pairs_of(6)).compute()
    for name in METRIC_NAMES:
        assert abs(summary.pooled[name] / summary.per_image_mean[name] - 1) > 1e-3, name


def test_the_metrics_of_a_depth_range_pool_its_pixels():
    images = pairs_of(5)
    pixels = [pair for image in images.values() for pair in pixel_pairs(*image)]
    for entry in table_of(images).compute().by_range:
        inside = [(q, d) for q, d in pixels if entry.lower_m <= d < entry.upper_m]
        assert entry.num_pixels == len(inside)
        assert entry.pooled == pytest.approx(metrics_of_pairs(inside), rel=1e-11)


def test_a_depth_range_without_a_pixel_is_empty():
    gt = np.full((3, 3), 9.0)
    table = table_of({"far": (gt, gt, np.ones((3, 3), bool))})
    assert [entry.pooled == {} for entry in table.compute().by_range] == [True, True, False]


@pytest.mark.parametrize("num_workers", [1, 2, 3, 6])
def test_any_number_of_workers_gives_the_same_bits(num_workers):
    images = pairs_of(6, np.float32)
    whole = table_of(images)
    keys = sorted(images, reverse=True)
    merged = MetricTable("nyu_eigen", EDGES)
    for rank in range(num_workers):
        part = table_of({key: images[key] for key in keys[rank::num_workers]})
        merged.merge(pickle.loads(pickle.dumps(part)))
    ours, expected = merged.compute(), whole.compute()
    assert ours.per_image_mean == expected.per_image_mean
    assert ours.pooled == expected.pooled
    assert merged.intervals(50) == whole.intervals(50)
    for got, want in zip(ours.by_range, expected.by_range, strict=True):
        assert got.num_pixels == want.num_pixels
        assert got.pooled == pytest.approx(want.pooled, rel=1e-10)


def test_an_image_without_a_valid_pixel_is_counted_as_skipped():
    images = pairs_of(3)
    pred, gt, valid = images["image-1"]
    images["image-1"] = (pred, gt, np.zeros_like(valid))
    table = table_of(images)
    summary = table.compute()
    assert summary.skipped == ("image-1",)
    assert (summary.num_images, summary.num_skipped, table.num_skipped) == (2, 1, 1)
    assert all(np.isfinite(list(summary.per_image_mean.values())))


def test_no_image_at_all_is_an_error_that_says_where_to_look():
    table = MetricTable("nyu_eigen")
    table.update("a", image_metrics(*make_pair(0)[:2], np.zeros((12, 17), bool)))
    with pytest.raises(ValueError, match=r"nyu_eigen: 1 images without .* check the ground truth"):
        table.compute()


def test_an_image_scored_twice_is_refused():
    images = pairs_of(2)
    table = table_of(images)
    with pytest.raises(ValueError, match="counted twice, first 'image-0'"):
        table.update("image-0", image_metrics(*images["image-0"], range_edges_m=EDGES))
    with pytest.raises(ValueError, match="2 images would be counted twice"):
        table.merge(table_of(images))
    pred, gt, valid = images["image-0"]
    hole = image_metrics(pred, gt, np.zeros_like(valid), range_edges_m=EDGES)
    table.update("hole", hole)
    with pytest.raises(ValueError, match="counted twice, first 'hole'"):
        table.update("hole", hole)
    other = MetricTable("nyu_eigen", EDGES)
    other.update("hole", hole)
    with pytest.raises(ValueError, match="1 images would be counted twice, first 'hole'"):
        table.merge(other)


def test_tables_of_different_protocols_do_not_merge():
    with pytest.raises(ValueError, match=r"'nyu_eigen' .* 'kitti_benchmark'"):
        table_of(pairs_of(1)).merge(table_of({}, "kitti_benchmark"))


def test_metrics_without_the_depth_ranges_of_the_table_are_refused():
    with pytest.raises(ValueError, match="0 depth ranges, the table 3"):
        MetricTable("nyu_eigen", EDGES).update("a", image_metrics(*make_pair(0)))


def test_json_and_back_gives_an_equal_table():
    table = table_of(pairs_of(4))
    table.update("hole", image_metrics(*make_pair(0)[:2], np.zeros((12, 17), bool),
                                       range_edges_m=EDGES))  # fmt: skip
    again = MetricTable.from_dict(json.loads(json.dumps(table.to_dict())))
    assert again.compute() == table.compute()
    assert again.to_dict() == table.to_dict()
    again.merge(table_of({"new": make_pair(9)}))
    assert again.num_images == 5


def test_a_table_of_another_version_is_refused():
    data = table_of(pairs_of(1)).to_dict() | {"sum_names": ["num_pixels"]}
    with pytest.raises(ValueError, match="score the images again"):
        MetricTable.from_dict(data)


def test_a_summary_is_json_and_names_both_aggregations():
    data = table_of(pairs_of(3)).compute().as_dict()
    assert json.loads(json.dumps(data)) == data
    assert set(AGGREGATIONS) <= set(data)


def test_per_image_values_come_by_key():
    images = pairs_of(3)
    values = table_of(images).per_image("abs_rel")
    assert list(values) == sorted(images)
    for key, image in images.items():
        assert values[key] == pytest.approx(image_reference(*image)["abs_rel"], rel=1e-12)
    with pytest.raises(ValueError, match="no metric 'rms'; there are abs_rel"):
        table_of(images).per_image("rms")


def test_intervals_enclose_the_value_of_both_aggregations():
    table = table_of(pairs_of(8))
    summary = table.compute().as_dict()
    for aggregation, intervals in table.intervals(200).items():
        for name, interval in intervals.items():
            assert interval.low < summary[aggregation][name] < interval.high


def test_intervals_are_those_of_data_sets_of_drawn_images():
    """Each resample is scored anew from its images' pixels, in both aggregations."""
    images = pairs_of(5)
    generator, resampled = np.random.default_rng(3), {name: [] for name in AGGREGATIONS}
    for _ in range(40):
        drawn = [images[f"image-{i}"] for i in generator.integers(5, size=5)]
        single = [image_reference(*image)["rmse"] for image in drawn]
        resampled["per_image_mean"].append(np.mean(single))
        pixels = [pair for image in drawn for pair in pixel_pairs(*image)]
        resampled["pooled"].append(metrics_of_pairs(pixels)["rmse"])
    found = table_of(images).intervals(40, seed=3)
    for aggregation, values in resampled.items():
        interval = found[aggregation]["rmse"]
        assert interval.level == 0.95
        expected = np.quantile(values, [0.025, 0.975])
        np.testing.assert_allclose([interval.low, interval.high], expected, rtol=1e-9)
