import numpy as np
import pytest
from PIL import Image

from densedepth.data.encode import decode
from densedepth.data.nyu_sync import NyuSync
from densedepth.errors import BadFrameError, EmptySplitError
from tests.densedepth.data.tiny_frames import ramp, write_depth, write_pair


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
