"""Pictures for people: what stands where, a lone point is seen."""

import io

import numpy as np
import pytest
from PIL import Image

from densedepth.depth_colours import HOLE, colorize_depth, colorize_error
from densedepth.pictures import PanelRow, depth_view, panel, to_jpeg, to_png


def row(height: int = 30, width: int = 40, caption: str = "a") -> PanelRow:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (height, width, 3)).astype(np.uint8)
    truth_m = rng.uniform(1, 8, (height, width)).astype(np.float32)
    return PanelRow(image, truth_m, truth_m * np.float32(1.2), caption)


def test_a_panel_has_a_row_for_each_sample() -> None:
    one, three = panel([row()]), panel([row(caption=c) for c in "abc"])
    assert one.shape[1] == three.shape[1] == 4 * 300 + 5 * 6
    assert three.shape[0] - one.shape[0] == 2 * (225 + 19)
    assert one.dtype == np.uint8


def test_a_panel_shows_truth_prediction_and_error_in_their_columns() -> None:
    image = np.full((30, 40, 3), 90, np.uint8)
    flat_m = np.full((30, 40), 3.0, np.float32)
    out = panel([PanelRow(image, flat_m, flat_m * 1.5, "x")], range_m=(1.0, 10.0))
    y = 19 + 19 + 100
    shown = [out[y, 6 + i * 306 + 150] for i in range(4)]
    np.testing.assert_array_equal(shown[0], [90, 90, 90])
    np.testing.assert_array_equal(shown[1], colorize_depth(flat_m[:1, :1], 1.0, 10.0)[0, 0])
    np.testing.assert_array_equal(shown[2], colorize_depth(flat_m[:1, :1] * 1.5, 1.0, 10.0)[0, 0])
    np.testing.assert_array_equal(shown[3], colorize_error(np.array([[0.5]]))[0, 0])


def test_a_lone_lidar_point_survives_the_shrinking() -> None:
    for place in [(200, 601), (201, 602), (202, 603)]:
        truth_m = np.zeros((375, 1242), np.float32)
        truth_m[place] = 20.0
        image = np.zeros((375, 1242, 3), np.uint8)
        out = panel([PanelRow(image, truth_m, truth_m + 1, "x")], range_m=(3.0, 80.0))
        tile = out[38 : 38 + 91, 6 + 306 : 6 + 306 + 300]
        colour = colorize_depth(np.array([[20.0]]), 3.0, 80.0)[0, 0]
        assert (tile == colour).all(-1).sum() == 9


def test_captions_and_titles_are_drawn() -> None:
    with_text, without = panel([row(caption="abs_rel 0.1")]), panel([row(caption="")])
    assert (with_text[19:38] != without[19:38]).any()
    assert (with_text[:19] < 100).any()


def test_a_panel_without_measurements_is_still_drawn() -> None:
    empty = np.zeros((30, 40), np.float32)
    out = panel([PanelRow(np.zeros((30, 40, 3), np.uint8), empty, empty + 1, "none")])
    assert (out[100, 306 + 150] == HOLE).all()


def test_an_empty_panel_is_refused() -> None:
    with pytest.raises(ValueError, match="rows is empty"):
        panel([])


def test_encoding_is_lossless_as_png_and_repeatable_as_jpeg() -> None:
    picture = panel([row()])
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(to_png(picture)))), picture)
    jpeg = to_jpeg(picture)
    assert jpeg == to_jpeg(picture)
    assert len(to_jpeg(picture, quality=40)) < len(jpeg)
    shown = np.asarray(Image.open(io.BytesIO(jpeg))).astype(int)
    assert np.abs(shown - picture).mean() < 8


def test_a_view_shows_a_picture_its_depth_in_colour_and_a_bar_of_metres() -> None:
    one = row()
    view = depth_view(one.image, one.truth_m, range_m=(1.0, 8.0))
    np.testing.assert_array_equal(view[6:36, 6:46], one.image)
    np.testing.assert_array_equal(view[6:36, 52:92], colorize_depth(one.truth_m, 1.0, 8.0))
    bar = view[42, 52:92].astype(int)
    ends = colorize_depth(np.array([[1.0, 8.0]]), 1.0, 8.0)[0]
    np.testing.assert_array_equal(bar[[0, -1]], ends)
    assert (view[42:, :52] == 255).all(), "nothing stands below the picture"


def test_a_large_picture_is_shown_smaller_in_its_own_shape() -> None:
    image = np.zeros((300, 1000, 3), np.uint8)
    view = depth_view(image, np.full((300, 1000), 2.0, np.float32), tile_width_px=500)
    black = (view == 0).all(axis=2)
    assert black.sum() == 150 * 500
    assert black[6:156, 6:506].all()
