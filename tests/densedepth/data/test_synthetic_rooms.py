"""Rooms: the same numbers give the same picture, and pictures are worth learning from."""

import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from densedepth.data.synthetic.floorplan import KINDS
from densedepth.data.synthetic.raycast import cast
from densedepth.data.synthetic.rooms import (
    MAX_DEPTH_M,
    build_room,
    room_frame,
    room_kind,
    room_view,
)

SIZE = (36, 48)


def test_a_frame_is_a_function_of_its_numbers() -> None:
    first = room_frame(3, "train", 5, 1, SIZE)
    build_room.cache_clear()
    room_frame(3, "train", 6, 0, SIZE)
    again = room_frame(3, "train", 5, 1, SIZE)
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("change", [{"seed": 4}, {"split": "test"}, {"scene": 6}, {"frame": 2}])
def test_any_other_number_gives_another_frame(change: dict[str, Any]) -> None:
    numbers: dict[str, Any] = {"seed": 3, "split": "train", "scene": 5, "frame": 1}
    _, depth_m = room_frame(**numbers, size_px=SIZE)
    _, other_m = room_frame(**(numbers | change), size_px=SIZE)
    assert np.mean(np.abs(depth_m - other_m) > 0.05) > 0.5


def test_frames_of_a_scene_show_the_same_room() -> None:
    assert build_room(3, "train", 5) is build_room(3, "train", 5)
    assert build_room(3, "train", 5).solids != build_room(3, "test", 5).solids


def test_what_the_room_itself_shows_lies_on_its_walls_floor_and_ceiling() -> None:
    room = build_room(1, "train", 2)
    view = room_view(room, np.random.default_rng(0), SIZE)
    directions = view.directions()
    hits = cast(view, room.solids, directions)
    points = directions * hits.distance + view.origin_m.astype(np.float32)[:, None, None]
    low, high = points, np.array(room.size_m, np.float32)[:, None, None] - points
    to_nearest_wall = np.minimum(low, high).min(0)
    own = hits.solid == 0
    assert own.mean() > 0.1
    assert np.abs(to_nearest_wall[own]).max() < 1e-3
    assert to_nearest_wall.min() > -1e-3
    assert (to_nearest_wall[~own] > 0).all()


@pytest.fixture(scope="module")
def depths_m() -> np.ndarray:
    return np.stack([room_frame(2, "test", i, 0, (18, 24))[1] for i in range(24)])


def test_depth_is_dense_near_and_far(depths_m: np.ndarray) -> None:
    assert depths_m.min() > 0.25
    assert depths_m.max() <= MAX_DEPTH_M
    low, high = np.percentile(depths_m, (2, 98))
    assert low < 1.2
    assert high > 4.5


def test_a_constant_is_a_poor_prediction(depths_m: np.ndarray) -> None:
    delta1 = [
        np.mean(np.maximum(depths_m / guess, guess / depths_m) < 1.25)
        for guess in np.geomspace(0.5, 9, 60)
    ]
    assert max(delta1) < 0.5


def test_pictures_are_neither_dark_nor_blown_out() -> None:
    for scene in range(5):
        image, _ = room_frame(1, "train", scene, 0, SIZE)
        assert 60 < image.mean() < 200
        assert image.std() > 15


def test_a_larger_picture_shows_the_same_view() -> None:
    image, depth_m = room_frame(1, "train", 3, 0, (24, 32))
    large_image, large_m = room_frame(1, "train", 3, 0, (96, 128))
    mean_m = large_m.reshape(24, 4, 32, 4).mean((1, 3))
    assert np.median(np.abs(mean_m - depth_m) / depth_m) < 0.01
    mean_image = large_image.reshape(24, 4, 32, 4, 3).mean((1, 3))
    assert np.abs(mean_image - image).mean() < 12


def test_every_kind_of_room_comes_up() -> None:
    assert {room_kind(0, "train", i) for i in range(60)} == set(KINDS)


def test_the_generator_does_not_load_torch() -> None:
    code = "import sys, densedepth.data.synthetic, densedepth.pictures as p; p.to_png\n"
    code += "print([m for m in ('torch', 'matplotlib', 'ray') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
