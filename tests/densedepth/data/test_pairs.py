import pickle

import numpy as np
import pytest

from densedepth.data.encode import decode
from densedepth.data.pairs import ImagePairs
from densedepth.errors import DataError, EmptySplitError, MissingDataError
from tests.densedepth.data.tiny_frames import ramp, write_depth, write_pair


def make_flat(root, num_frames=10):
    for i in range(num_frames):
        write_pair(root / f"frame-{i:03d}.color.jpg", root / f"frame-{i:03d}.depth.png", ramp(), i)
    return {
        "root": root,
        "image_glob": "frame-*.color.jpg",
        "depth_glob": "frame-*.depth.png",
        "depth_unit_m": 0.001,
    }


def make_scenes(root, names=("attic", "bath", "cellar", "den")):
    for scene in names:
        for i in range(3):
            image, depth = root / scene / "rgb" / f"{i}.png", root / scene / "depth" / f"{i}.png"
            write_pair(image, depth, ramp(), i)
    return {
        "root": root,
        "image_glob": "*/rgb/*.png",
        "depth_glob": "*/depth/*.png",
        "depth_unit_m": 0.001,
    }


def all_frames(reader):
    return [f for split in ("train", "val", "test") for f in reader.list_frames(split).frames]


def test_files_are_paired_by_what_the_wildcards_matched(tmp_path):
    options = make_flat(tmp_path)
    (tmp_path / "frame-003.color.jpg").unlink()
    (tmp_path / "frame-005.depth.png").unlink()
    (tmp_path / "camera.txt").touch()
    reader = pickle.loads(pickle.dumps(ImagePairs(**options, test_fraction=0.2, val_fraction=0.2)))
    frames = all_frames(reader)
    assert len(frames) == 8
    for frame in frames:
        assert frame.image_path.name[:9] == frame.depth_path.name[:9]
    skipped = {s.line: s.reason for s in reader.list_frames("train").skipped}
    assert skipped == {
        "frame-005.color.jpg": "no depth map frame-005.depth.png",
        "frame-003.depth.png": "no picture frame-003.color.jpg",
    }
    assert reader.list_frames("test").skipped == ()


def test_scenes_are_what_all_wildcards_but_the_last_matched_and_stay_whole(tmp_path):
    options = make_scenes(tmp_path)
    reader = ImagePairs(**options, test_fraction=0.25, val_fraction=0.34)
    scenes = {s: {f.scene for f in reader.list_frames(s).frames} for s in ("train", "val", "test")}
    assert [len(scenes[split]) for split in ("train", "val", "test")] == [2, 1, 1]
    assert set.union(*scenes.values()) == {"attic", "bath", "cellar", "den"}
    assert len({frame.key for frame in all_frames(reader)}) == 12


def test_test_scenes_can_be_named(tmp_path):
    options = make_scenes(tmp_path)
    reader = ImagePairs(**options, test_scenes=("bath", "den"), val_fraction=0.5)
    assert {f.scene for f in reader.list_frames("test").frames} == {"bath", "den"}
    assert len(reader.list_frames("train").frames) == len(reader.list_frames("val").frames) == 3
    with pytest.raises(
        DataError, match=r"test_scenes names 'batt', .*4 scenes; did you mean 'bath"
    ):
        ImagePairs(**options, test_scenes=("batt",)).list_frames("test")


def test_double_stars_match_any_depth_of_folders(tmp_path):
    for folder in ("", "a/", "a/b/"):
        write_pair(tmp_path / f"{folder}c1.jpg", tmp_path / f"{folder}d1.png", ramp())
    reader = ImagePairs(tmp_path, "**/c?.jpg", "**/d?.png", 0.001, test_fraction=0.4)
    assert {frame.scene for frame in all_frames(reader)} == {".", "a", "a/b"}


def test_linked_folders_are_followed_once(tmp_path):
    make_scenes(tmp_path / "real", ("attic",))
    data = tmp_path / "data"
    data.mkdir()
    (data / "attic").symlink_to(tmp_path / "real" / "attic")
    (data / "loop").symlink_to(data)
    reader = ImagePairs(data, "**/rgb/*.png", "**/depth/*.png", 0.001)
    assert [frame.scene for frame in all_frames(reader)] == ["attic"] * 3


@pytest.mark.parametrize(("image", "depth"), [("*.png", "*_z.png"), ("*_rgb.png", "*.png")])
def test_of_two_patterns_that_match_a_file_the_narrower_takes_it(tmp_path, image, depth):
    for i in "abcd":
        write_pair(tmp_path / image.replace("*", i), tmp_path / depth.replace("*", i), ramp())
    reader = ImagePairs(tmp_path, image, depth, 0.001, test_fraction=0.3)
    frames = all_frames(reader)
    assert sorted(f.image_path.name for f in frames) == [image.replace("*", i) for i in "abcd"]
    assert reader.list_frames("train").skipped == ()


def test_depth_has_the_given_unit_and_values_that_mean_nothing_are_holes(tmp_path):
    options = make_flat(tmp_path)
    units = ramp()
    units[5, :] = 65535
    for path in tmp_path.glob("*.depth.png"):
        write_depth(path, units)
    options["depth_unit_m"] = 0.002
    reader = ImagePairs(**options, invalid_values=(65535,), focal_x_px=585.0)
    frame = reader.list_frames("train").frames[0]
    encoded = reader.read(frame)
    depth_m = decode(encoded).depth_m
    assert not depth_m[5].any()
    np.testing.assert_allclose(depth_m[6:], units[6:] * 0.002, rtol=1e-6)
    assert frame.focal_px == encoded.info["focal_px"] == 585
    assert encoded.info["centre_x_px"] is None


def test_nothing_found_says_where_and_what_was_looked_for(tmp_path):
    options = make_flat(tmp_path / "data", 2)
    with pytest.raises(MissingDataError, match=r"none does not exist; .* frame-\*\.color\.jpg"):
        ImagePairs(**options | {"root": tmp_path / "none"}).list_frames("train")
    wrong = options | {"image_glob": "img-*.jpg"}
    with pytest.raises(EmptySplitError, match=r"img-\*\.jpg and .* all 2 lines were skipped"):
        ImagePairs(**wrong).list_frames("train")
    with pytest.raises(EmptySplitError, match=r"test_fraction = 0\.0 of 2 frames .* leaves none"):
        ImagePairs(**options, test_fraction=0.0).list_frames("test")
    with pytest.raises(EmptySplitError, match=r"split 'train' of .* has no frame"):
        ImagePairs(**options, test_scenes=(".",)).list_frames("train")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"depth_unit_m": 0.0}, r"depth_unit_m = 0\.0: give the metres per step"),
        ({"depth_unit_m": float("nan")}, "depth_unit_m = nan"),
        ({"image_glob": "a.jpg", "depth_glob": "b.png"}, "at least one"),
        ({"image_glob": "*/*.jpg"}, "same wildcards"),
        ({"image_glob": "[ab]*.jpg"}, r"no \[ \]"),
        ({"test_fraction": 1.0}, "test_fraction = 1.0"),
    ],
)
def test_settings_without_sense_are_refused(tmp_path, change, message):
    options = {"image_glob": "*.jpg", "depth_glob": "*.png", "depth_unit_m": 0.001}
    with pytest.raises(DataError, match=message):
        ImagePairs(tmp_path, **options | change)


@pytest.mark.samples
def test_real_pairs_are_read_with_their_holes(samples_root):
    reader = ImagePairs(
        samples_root / "rgbd_7scenes",
        "frame-*.color.jpg",
        "frame-*.depth.png",
        0.001,
        invalid_values=(65535,),
        test_fraction=0.25,
    )
    assert len(all_frames(reader)) == 12
    assert len(reader.list_frames("test").frames) == 3
    for frame in reader.list_frames("test").frames:
        depth_m = decode(reader.read(frame)).depth_m
        assert depth_m.shape == (480, 640)
        assert 0.3 < np.median(depth_m[depth_m > 0]) < 4
        assert depth_m.max() < 10
        assert 0.01 < (depth_m == 0).mean() < 0.4
