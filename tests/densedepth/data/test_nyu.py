import pickle

import numpy as np
import pytest
from PIL import Image

from densedepth.data.depth_codec import unpack_depth
from densedepth.data.encode import decode
from densedepth.data.nyu import NyuDenseDepth, NyuSync, room_of
from densedepth.errors import BadFrameError, DataError, EmptySplitError, MissingDataError
from tests.densedepth.data.tiny_frames import ramp, write_depth, write_pair


def make_densedepth(data):
    """Three rooms with three training frames each, and two test frames."""
    rows = []
    for room in ("den_0001", "den_0002a", "den_0002b"):
        for i in range(3):
            name = f"nyu2_train/{room}_out/{i}"
            write_pair(data / f"{name}.jpg", data / f"{name}.png", ramp(np.uint8, 20, 255), i)
            rows.append(f"data/{name}.jpg,data/{name}.png")
    (data / "nyu2_train.csv").write_text("\n".join(rows))
    rows = []
    for i in (7, 8):
        image, depth = f"nyu2_test/{i:05d}_colors.png", f"nyu2_test/{i:05d}_depth.png"
        write_pair(data / image, data / depth, ramp(), i)
        rows.append(f"data/{image},data/{depth}")
    (data / "nyu2_test.csv").write_text("\r\n".join(rows) + "\r\n")


def test_the_root_is_the_folder_above_data_or_data_itself_or_has_another_name(tmp_path):
    make_densedepth(tmp_path / "nyu" / "data")
    make_densedepth(tmp_path / "other")
    keys = [
        [frame.key for frame in NyuDenseDepth(tmp_path / root).list_frames("test").frames]
        for root in ("nyu", "nyu/data", "other")
    ]
    assert keys[0] == ["nyu2_test-00007_colors", "nyu2_test-00008_colors"]
    assert keys[1] == keys[2] == keys[0]


def test_training_depth_has_8_bits_and_test_depth_16_told_by_the_file(tmp_path):
    make_densedepth(tmp_path / "data")
    reader = pickle.loads(pickle.dumps(NyuDenseDepth(tmp_path)))
    train = decode(reader.read(reader.list_frames("train").frames[0]))
    assert train.depth_m.max() == pytest.approx(10)  # 255 = 10 m
    test = reader.read(reader.list_frames("test").frames[0])
    assert decode(test).depth_m.max() == pytest.approx(5)  # 5000 mm
    assert test.depth_unit_m == 0.001
    assert test.image_format == "png"
    assert test.info["image_source"] == "nyu2_test/00007_colors.png"
    # The same list with the other kind of file: the header decides, not the split.
    frame = reader.list_frames("train").frames[0]
    write_depth(frame.depth_path, ramp())
    assert decode(reader.read(frame)).depth_m.max() == pytest.approx(5)


def test_validation_takes_whole_rooms_and_parts_of_a_room_stay_together(tmp_path):
    assert room_of("kitchen_0028a_out") == room_of("kitchen_0028b") == "kitchen_0028"
    assert room_of("living_room_0038_out") == "living_room_0038"
    assert room_of("labeled_out") == "labeled_out"
    make_densedepth(tmp_path / "data")
    for seed in range(4):
        reader = NyuDenseDepth(tmp_path, val_fraction=0.3, seed=seed)
        train, val = reader.list_frames("train").frames, reader.list_frames("val").frames
        assert {frame.scene for frame in train} == {"den_0002"}
        assert {frame.scene for frame in val} == {"den_0001"}


def test_lines_that_give_no_frame_are_skipped_with_the_reason(tmp_path):
    data = tmp_path / "data"
    make_densedepth(data)
    with (data / "nyu2_train.csv").open("a") as lines:
        lines.write("\ndata/nyu2_train/none/1.jpg,data/nyu2_train/den_0001_out/1.png\nhalf a row\n")
        lines.write("data/nyu2_train/den_0001_out/0.jpg,data/nyu2_train/den_0001_out/0.png\n")
    listing = NyuDenseDepth(tmp_path).list_frames("train")
    reasons = [skipped.reason for skipped in listing.skipped]
    assert [skipped.is_bad for skipped in listing.skipped] == [True, True, False]
    assert reasons[0].startswith("no such file: ")
    assert reasons[0].endswith("none/1.jpg")
    assert reasons[1:] == ["1 columns instead of 2 (picture, depth)", "listed before"]


def test_what_is_missing_is_named_with_the_setting(tmp_path):
    with pytest.raises(MissingDataError, match=r"nowhere does not exist; set `root` .*nyu2_train"):
        NyuDenseDepth(tmp_path / "nowhere").list_frames("train")
    with pytest.raises(MissingDataError, match=r"no nyu2_test\.csv: looked for .*; set `root`"):
        NyuDenseDepth(tmp_path).list_frames("test")
    (tmp_path / "nyu2_train.csv").write_text("data/a.jpg,data/a.png\n")
    with pytest.raises(EmptySplitError, match=r"nyu2_train\.csv has no frame: all 1 lines"):
        NyuDenseDepth(tmp_path).list_frames("train")
    with pytest.raises(DataError, match="val_fraction"):
        NyuDenseDepth(tmp_path, val_fraction=1.0)


def make_sync(root, slash):
    rows = []
    for room in ("den_0001", "den_0002"):
        for i in (0, 45):
            image, depth = f"{room}/rgb_{i:05d}.jpg", f"{room}/sync_depth_{i:05d}.png"
            write_pair(root / image, root / depth, ramp(), i)
            rows.append(f"{slash}{image} {slash}{depth} 518.8579")
    return "\n".join(rows)


def test_frames_of_the_test_list_neither_train_nor_validate(tmp_path):
    lines = make_sync(tmp_path, "").splitlines()
    (tmp_path / "train_files.txt").write_text("\n".join(lines))
    (tmp_path / "test_files.txt").write_text(lines[0])
    reader = NyuSync(tmp_path, val_fraction=0.3)
    train, val = reader.list_frames("train"), reader.list_frames("val")
    (tested,) = reader.list_frames("test").frames
    assert len(train.frames) + len(val.frames) == 3
    assert tested.key not in {frame.key for frame in train.frames + val.frames}
    assert [(s.line, s.reason) for s in train.skipped] == [
        (tested.key, "it is in the test list too")
    ]
    (tmp_path / "test_files.txt").write_text("\n".join(lines))
    for split in ("train", "val"):
        with pytest.raises(EmptySplitError, match=r"all 4 training frames.* in the test list too"):
            reader.list_frames(split)


@pytest.mark.parametrize("slash", ["", "/"])
def test_sync_lists_are_read_with_and_without_a_leading_slash(tmp_path, slash):
    (tmp_path / "train_files.txt").write_text(make_sync(tmp_path, slash))
    reader = NyuSync(tmp_path, val_fraction=0.5)
    train, val = reader.list_frames("train").frames, reader.list_frames("val").frames
    assert len(train) == len(val) == 2
    assert {frame.scene for frame in train + val} == {"den_0001", "den_0002"}
    frame = min(train + val, key=lambda frame: frame.key)
    assert frame.key == "den_0001-rgb_00000"
    encoded = reader.read(frame)
    assert encoded.info["focal_px"] == frame.focal_px == 518.8579
    assert encoded.info["depth_source"] == "den_0001/sync_depth_00000.png"
    assert decode(encoded).depth_m.max() == pytest.approx(5)


def test_sync_frames_lie_where_bts_unpacks_them_or_in_the_root(tmp_path):
    lines = make_sync(tmp_path / "sync", "").splitlines()
    make_sync(tmp_path / "official_splits" / "test", "")
    (tmp_path / "train.txt").write_text("\n".join(lines[:2]))
    (tmp_path / "test.txt").write_text(
        "\n".join([*lines[2:], "x/rgb_1.jpg x/sync_depth_1.png 1", "broken"])
    )
    reader = NyuSync(tmp_path, train_list="train.txt", test_list=tmp_path / "test.txt")
    assert "sync" in reader.list_frames("train").frames[0].image_path.parts
    test = reader.list_frames("test")
    assert "official_splits" in test.frames[0].depth_path.parts
    assert "no such file: x/rgb_1.jpg in" in test.skipped[0].reason
    assert test.skipped[1].reason == "not of the form: picture depth focal"
    assert all(skipped.is_bad for skipped in test.skipped[:2])


def test_8_bit_depth_in_a_sync_folder_is_a_bad_frame(tmp_path):
    (tmp_path / "test_files.txt").write_text(make_sync(tmp_path, ""))
    reader = NyuSync(tmp_path)
    frame = reader.list_frames("test").frames[0]
    write_depth(frame.depth_path, ramp(np.uint8, 1, 200))
    with pytest.raises(BadFrameError, match="8-bit depth; this data set has 16-bit"):
        reader.read(frame)


@pytest.mark.samples
def test_real_densedepth_frames_have_the_depth_that_their_files_say(samples_root):
    reader = NyuDenseDepth(samples_root / "nyu_densedepth")
    train, val, test = (reader.list_frames(split).frames for split in ("train", "val", "test"))
    assert (len(train) + len(val), len(test)) == (795, 200)
    for frame, step_m in [(train[0], 10 / 255), (val[-1], 10 / 255), (test[5], 0.001)]:
        encoded = reader.read(frame)
        assert encoded.image == frame.image_path.read_bytes()
        raw = np.asarray(Image.open(frame.depth_path))
        np.testing.assert_array_equal(unpack_depth(encoded.depth), raw)
        sample = decode(encoded)
        np.testing.assert_allclose(sample.depth_m, raw.astype(np.float64) * step_m, rtol=1e-6)
        assert sample.image.shape == (480, 640, 3)
        assert 0.4 < sample.depth_m.min() < sample.depth_m.max() <= 10


@pytest.mark.samples
def test_real_sync_frames_have_holes_and_millimetres(samples_root):
    reader = NyuSync(samples_root / "nyu_sync", test_list="files_with_gt.txt")
    listing = reader.list_frames("test")
    assert len(listing.frames) == 3
    for frame in listing.frames:
        raw = np.asarray(Image.open(frame.depth_path))
        depth_m = decode(reader.read(frame)).depth_m
        np.testing.assert_allclose(depth_m, raw / 1000, rtol=1e-6)
        assert 0.1 < (depth_m == 0).mean() < 0.5


@pytest.mark.samples
def test_the_official_sync_lists_name_the_published_numbers_of_frames(samples_root, tmp_path):
    for name, count in [("train", 24231), ("test", 654)]:
        path = samples_root / "splits" / f"nyudepthv2_{name}_files_with_gt.txt"
        lines = path.read_text().splitlines()
        assert len(lines) == count
        (tmp_path / f"{name}_files.txt").write_text("\n".join(lines[:300]))
        for cell in " ".join(line.rpartition(" ")[0] for line in lines[:299]).split():
            file = tmp_path / cell.lstrip("/")
            file.parent.mkdir(exist_ok=True)
            file.touch()
    reader = NyuSync(tmp_path)
    train, val, test = (reader.list_frames(split) for split in ("train", "val", "test"))
    assert (len(train.frames) + len(val.frames), len(train.skipped)) == (299, 1)
    assert (len(test.frames), len(test.skipped)) == (299, 1)
    assert {f.focal_px for f in train.frames + test.frames} == {518.8579}
