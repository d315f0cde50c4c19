import pickle

import numpy as np
import pytest
from PIL import Image

from densedepth.data.depth_codec import unpack_depth
from densedepth.data.encode import decode
from densedepth.data.nyu import NyuDenseDepth, room_of
from densedepth.errors import DataError, EmptySplitError, MissingDataError
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
