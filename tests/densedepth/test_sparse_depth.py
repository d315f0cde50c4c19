"""Measured points over a picture: a lone one is seen, of several the nearest."""

import numpy as np

from densedepth.depth_colours import colorize_depth
from densedepth.sparse_depth import overlay_depth


def test_overlaid_points_are_coloured_and_the_rest_is_grey() -> None:
    image = np.full((20, 30, 3), (200, 100, 0), np.uint8)
    depth_m = np.zeros((20, 30))
    depth_m[10, 15] = 5.0
    out = overlay_depth(image, depth_m, 1.0, 50.0)
    expected = colorize_depth(np.array([[5.0]]), 1.0, 50.0)[0, 0]
    np.testing.assert_array_equal(out[9:12, 14:17].reshape(-1, 3), np.tile(expected, (9, 1)))
    rest = np.ones((20, 30), bool)
    rest[9:12, 14:17] = False
    assert (np.ptp(out[rest].astype(int), axis=1) == 0).all()


def test_where_points_crowd_the_nearest_is_drawn() -> None:
    depth_m = np.zeros((9, 9))
    depth_m[4, 3], depth_m[4, 5] = 40.0, 4.0
    out = overlay_depth(np.zeros((9, 9, 3), np.uint8), depth_m, 1.0, 50.0)
    near, far = colorize_depth(np.array([[4.0, 40.0]]), 1.0, 50.0)[0]
    np.testing.assert_array_equal(out[4, 4], near)
    np.testing.assert_array_equal(out[4, 3], far)


def test_a_dense_map_lets_the_picture_shine_through():
    depth_m = np.full((8, 8), 5.0, np.float32)
    image = np.zeros((8, 8, 3), np.uint8)
    image[:, 4:] = 200
    out = overlay_depth(image, depth_m, 1.0, 50.0)
    colour = colorize_depth(depth_m, 1.0, 50.0)[0, 0].astype(int)
    assert (out[:, :4] == colour // 2).all()
    assert (out[:, 4:] == colour // 2 + 60).all()  # 200 * 0.6 / 2
