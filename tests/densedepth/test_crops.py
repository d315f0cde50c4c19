"""The boxes of the field, index by index."""

import numpy as np
import pytest

from densedepth.crops import crop_box, kb_box

KITTI_SIZES = [(375, 1242), (370, 1226), (376, 1241), (374, 1238), (370, 1224)]


@pytest.mark.parametrize(
    ("kind", "size", "box"),
    [
        ("garg", (375, 1242), (153, 371, 44, 1197)),
        ("garg", (370, 1226), (151, 366, 44, 1181)),
        ("garg", (376, 1241), (153, 372, 44, 1196)),
        ("garg", (352, 1216), (143, 349, 43, 1172)),
        ("kitti_eigen", (375, 1242), (124, 342, 44, 1197)),
        ("nyu_densedepth", (480, 640), (20, 460, 24, 616)),
        ("nyu_eigen", (480, 640), (45, 471, 41, 601)),
        ("none", (37, 53), (0, 37, 0, 53)),
    ],
)
def test_boxes_of_official_sizes(kind, size, box):
    assert crop_box(kind, *size) == box


def test_the_nyu_boxes_have_the_published_sizes():
    """DenseDepth's box is stored inclusively: rows 20..459 and columns 24..615."""
    top, bottom, left, right = crop_box("nyu_densedepth", 480, 640)
    assert (bottom - 1, right - 1) == (459, 615)
    assert (bottom - top, right - left) == (440, 592)
    top, bottom, left, right = crop_box("nyu_eigen", 480, 640)
    assert (bottom - top, right - left) == (426, 560)


def test_densedepths_margins_are_equal_so_cropping_and_mirroring_commute():
    _, _, left, right = crop_box("nyu_densedepth", 480, 640)
    assert left == 640 - right == 24
    depth = np.random.default_rng(0).random((480, 640))
    np.testing.assert_array_equal(depth[:, ::-1][:, left:right], depth[:, left:right][:, ::-1])


@pytest.mark.parametrize(
    ("kind", "size", "box"),
    [
        ("nyu_densedepth", (240, 320), (10, 230, 12, 308)),
        ("nyu_eigen", (240, 320), (22, 235, 20, 300)),
        ("nyu_densedepth", (48, 64), (2, 46, 2, 61)),
    ],
)
def test_nyu_boxes_scale_in_proportion(kind, size, box):
    assert crop_box(kind, *size) == box


@pytest.mark.parametrize(
    ("size", "box"),
    [
        ((375, 1242), (23, 375, 13, 1229)),
        ((370, 1226), (18, 370, 5, 1221)),
        ((376, 1241), (24, 376, 12, 1228)),
        ((352, 1216), (0, 352, 0, 1216)),
    ],
)
def test_the_benchmark_box_is_at_the_bottom_in_the_middle(size, box):
    assert kb_box(*size) == box


@pytest.mark.parametrize("size", KITTI_SIZES)
@pytest.mark.parametrize("kind", ["garg", "kitti_eigen"])
def test_both_kitti_boxes_lie_inside_the_benchmark_box(kind, size):
    """So a prediction made on the 352x1216 crop alone covers all that is scored."""
    top, bottom, left, right = crop_box(kind, *size)
    kb_top, kb_bottom, kb_left, kb_right = kb_box(*size)
    assert kb_top <= top < bottom <= kb_bottom
    assert kb_left <= left < right <= kb_right


@pytest.mark.parametrize("size", [(351, 1216), (352, 1215), (128, 416)])
def test_a_map_smaller_than_the_benchmark_box_is_sent_elsewhere(size):
    with pytest.raises(ValueError, match=f"{size[0]}x{size[1]} map; use kitti_eigen_garg"):
        kb_box(*size)


@pytest.mark.parametrize("kind", ["garg", "kitti_eigen", "nyu_eigen", "nyu_densedepth"])
def test_a_map_too_small_for_any_box_is_refused(kind):
    with pytest.raises(ValueError, match="1x1 map is empty; score it under whole_image"):
        crop_box(kind, 1, 1)
