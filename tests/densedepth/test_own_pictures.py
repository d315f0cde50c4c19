"""A user's own pictures: found, turned upright, refused with a reason; depth written as metres."""

import resource
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from densedepth.errors import BadFrameError, MissingDataError
from densedepth.own_pictures import find_pictures, read_picture, write_depth

COLOURS = np.random.default_rng(0).integers(0, 255, (20, 31, 3)).astype(np.uint8)


def test_a_folders_pictures_are_found_whatever_their_endings_case(tmp_path: Path):
    for name in ("b.JPG", "a.png", "c.jpeg", "notes.txt"):
        (tmp_path / name).write_bytes(b"")
    assert [p.name for p in find_pictures(tmp_path)] == ["a.png", "b.JPG", "c.jpeg"]
    assert find_pictures(tmp_path / "notes.txt") == [tmp_path / "notes.txt"]
    with pytest.raises(MissingDataError, match=r"no picture at .*nowhere"):
        find_pictures(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(MissingDataError, match=r"no picture in .*\.jpeg"):
        find_pictures(tmp_path / "empty")


@pytest.mark.parametrize(("mark", "turns"), [(1, 0), (3, 2), (6, 3), (8, 1)])
def test_a_phones_turn_mark_is_applied(tmp_path: Path, mark: int, turns: int):
    exif = Image.Exif()
    exif[0x0112] = mark
    Image.fromarray(COLOURS).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(read_picture(tmp_path / "a.png"), np.rot90(COLOURS, turns))


def test_grey_and_transparent_pictures_are_read_as_colours(tmp_path: Path):
    Image.fromarray(COLOURS).convert("L").save(tmp_path / "grey.png")
    Image.fromarray(COLOURS).convert("RGBA").save(tmp_path / "clear.png")
    assert read_picture(tmp_path / "grey.png").shape == COLOURS.shape
    np.testing.assert_array_equal(read_picture(tmp_path / "clear.png"), COLOURS)


def test_what_is_no_colour_picture_is_refused_by_name(tmp_path: Path):
    Image.fromarray(np.full((4, 4), 3000, np.uint16)).save(tmp_path / "depth.png")
    with pytest.raises(BadFrameError, match=r"depth\.png: .*a depth map"):
        read_picture(tmp_path / "depth.png")
    Image.fromarray(COLOURS).save(tmp_path / "whole.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:300])
    with pytest.raises(BadFrameError, match=r"cut\.png: no picture that can be read"):
        read_picture(tmp_path / "cut.png")


def test_depth_is_written_as_float32_metres_and_beside_the_picture(tmp_path: Path):
    depth_m = np.linspace(1, 9, 20 * 31, dtype=np.float32).reshape(20, 31)
    metres, view = write_depth(depth_m, COLOURS, tmp_path / "new" / "room.v2")
    assert (metres.name, view.name) == ("room.v2.npy", "room.v2.depth.png")
    again = np.load(metres)
    assert again.dtype == np.float32
    np.testing.assert_array_equal(again, depth_m)
    shown = np.asarray(Image.open(view))
    np.testing.assert_array_equal(shown[6:26, 6:37], COLOURS)


def test_a_write_that_falls_short_says_why_and_leaves_what_was_there(tmp_path: Path):
    old = np.ones((300, 300), np.float32)
    write_depth(old, np.zeros((300, 300, 3), np.uint8), tmp_path / "room")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))  # the system's signal is off
    try:
        with pytest.raises(OSError, match="File too large") as caught:
            write_depth(2 * old, np.zeros((300, 300, 3), np.uint8), tmp_path / "room")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert caught.value.strerror == "File too large"
    np.testing.assert_array_equal(np.load(tmp_path / "room.npy"), old)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["room.depth.png", "room.npy"]
