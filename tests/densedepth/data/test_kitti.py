import pickle

import numpy as np
import pytest
from PIL import Image

from densedepth.data.depth_codec import unpack_depth
from densedepth.data.encode import decode
from densedepth.data.kitti import KittiEigen
from densedepth.data.velodyne import project_velodyne, read_calibration
from densedepth.errors import BadFrameError, DataError, EmptySplitError, MissingDataError
from tests.densedepth.data.tiny_frames import ramp, write_depth, write_image
from tests.densedepth.data.tiny_kitti import (
    DATE,
    HEIGHT_PX,
    WIDTH_PX,
    bts_line,
    drive_name,
    scan,
    write_calibration,
    write_frame,
)


@pytest.fixture
def root(tmp_path):
    """Training drives 1 to 3 with two frames each, test drive 9."""
    write_calibration(tmp_path / DATE)
    train = [(drive, frame) for drive in (1, 2, 3) for frame in (5, 6)]
    for drive, frame in train:
        write_frame(tmp_path, drive, frame)
    write_frame(tmp_path, 9, 0, tree="val")
    (tmp_path / "train_files.txt").write_text("\n".join(bts_line(*pair) for pair in train))
    (tmp_path / "test_files.txt").write_text(bts_line(9, 0))
    return tmp_path


def test_annotated_depth_is_found_in_either_tree_and_loses_nothing(root):
    reader = pickle.loads(pickle.dumps(KittiEigen(root)))
    frame = reader.list_frames("test").frames[0]
    encoded = reader.read(frame)
    assert "val" in frame.depth_path.parts
    units = np.asarray(Image.open(frame.depth_path))
    np.testing.assert_array_equal(unpack_depth(encoded.depth), units)
    assert encoded.image == frame.image_path.read_bytes()
    sample = decode(encoded)
    assert sample.depth_m[12, 10] == 5
    assert sample.depth_m[0, 0] == 0
    assert encoded.info["focal_px"] == 30  # the calibration's; the list's stands in the frame
    assert frame.focal_px == 721.5377
    assert encoded.info["depth_source"].startswith("data_depth_annotated/val/")


def test_annotated_depth_may_be_merged_or_stand_elsewhere_or_beside_the_root(root, tmp_path):
    base = root / "data_depth_annotated"
    for tree in ("train", "val"):
        for drive in (base / tree).iterdir():
            drive.rename(base / drive.name)
        (base / tree).rmdir()
    assert len(KittiEigen(root).list_frames("test").frames) == 1
    base.rename(root / "depth")
    assert len(KittiEigen(root, annotated_root="depth").list_frames("test").frames) == 1
    with pytest.raises(MissingDataError, match=r"no annotated depth: .* set `annotated_root`"):
        KittiEigen(root).list_frames("test")
    (root / "kitti").mkdir()
    for name in (DATE, "train_files.txt", "test_files.txt"):
        (root / name).rename(root / "kitti" / name)
    (root / "depth").rename(root / "data_depth_annotated")
    assert len(KittiEigen(root / "kitti").list_frames("test").frames) == 1
    (root / "kitti" / "raw").mkdir()
    (root / "kitti" / DATE).rename(root / "kitti" / "raw" / DATE)
    assert len(KittiEigen(root / "kitti").list_frames("test").frames) == 1


@pytest.mark.parametrize("axis", ["camera_z", "velodyne_x"])
def test_a_scan_is_projected_to_steps_of_one_256th_metre(root, axis):
    reader = KittiEigen(root, ground_truth="velodyne", depth_axis=axis)
    frame = reader.list_frames("train").frames[0]
    encoded = reader.read(frame)
    depth_m = decode(encoded).depth_m
    calibration = read_calibration(root / DATE, 2)
    exact_m = project_velodyne(scan(105), calibration, (HEIGHT_PX, WIDTH_PX), axis)
    np.testing.assert_array_equal(depth_m > 0, exact_m > 0)
    np.testing.assert_allclose(depth_m, exact_m, atol=1 / 512 + 1e-6)
    assert encoded.info["depth_axis"] == axis
    assert encoded.info["centre_y_px"] == 12


def test_all_forms_of_lists_give_the_same_frames(root):
    keys = []
    for lines in (
        [bts_line(1, 5), bts_line(9, 0)],
        [bts_line(1, 5, "/"), bts_line(9, 0, "/")],
        [f"{DATE}/{drive_name(1)} 5 l", f"{DATE}/{drive_name(9)} 0000000000 l"],
    ):
        (root / "list.txt").write_text("\n".join(lines))
        frames = KittiEigen(root, test_list="list.txt").list_frames("test").frames
        keys.append([frame.key for frame in frames])
    assert keys[0] == ["2011_09_26_drive_0001_sync_02_0000000005",
                       "2011_09_26_drive_0009_sync_02_0000000000"]  # fmt: skip
    assert keys[1] == keys[2] == keys[0]


def test_pictures_that_were_made_jpeg_are_found(root):
    write_frame(root, 9, 1, ending=".jpg")
    (root / "test_files.txt").write_text(bts_line(9, 1))
    reader = KittiEigen(root)
    frame = reader.list_frames("test").frames[0]
    assert frame.image_path.suffix == ".jpg"
    assert reader.read(frame).image_format == "jpg"


def test_lines_without_ground_truth_are_skipped_with_the_reason(root):
    none = bts_line(9, 0).split()
    (root / "test_files.txt").write_text(
        f"{none[0]} None {none[2]}\n{bts_line(9, 7)}\n{bts_line(9, 0)}\nnonsense\n"
        f"{DATE}/{drive_name(1)} 5 r\n"
    )
    write_image(root / DATE / drive_name(9) / "image_02" / "data" / "0000000008.png")
    with (root / "test_files.txt").open("a") as lines:
        lines.write(bts_line(9, 8))
    annotated = KittiEigen(root).list_frames("test")
    assert len(annotated.frames) == 1
    reasons = [skipped.reason for skipped in annotated.skipped]
    assert reasons[0] == "the list says None: KITTI has no annotated depth for this frame"
    assert "no picture" in reasons[1]
    assert "neither 'picture depth focal'" in reasons[2]
    assert "image_03" in reasons[3]
    assert "no annotated depth" in reasons[4]
    assert [skipped.is_bad for skipped in annotated.skipped] == [False, True, True, True, False]
    velodyne = KittiEigen(root, ground_truth="velodyne").list_frames("test")
    assert len(velodyne.frames) == 1  # the first line's; the third repeats it
    assert "no velodyne scan" in velodyne.skipped[-1].reason
    assert velodyne.skipped[-1].is_bad


def test_validation_takes_whole_drives(root):
    reader = KittiEigen(root, val_fraction=0.34)
    train, val = reader.list_frames("train").frames, reader.list_frames("val").frames
    assert (len(train), len(val)) == (4, 2)
    assert {frame.scene for frame in train}.isdisjoint(frame.scene for frame in val)


def test_what_is_missing_is_named_with_the_setting(root):
    with pytest.raises(MissingDataError, match=r"none does not exist; set `root`"):
        KittiEigen(root / "none").list_frames("train")
    with pytest.raises(MissingDataError, match=r"train_list = 'x\.txt': neither"):
        KittiEigen(root, train_list="x.txt").list_frames("train")
    (root / "train_files.txt").unlink()
    with pytest.raises(MissingDataError, match=r"no train_files\.txt .* set `train_list` to it"):
        KittiEigen(root).list_frames("train")
    (root / DATE / "calib_cam_to_cam.txt").unlink()
    with pytest.raises(EmptySplitError, match=r"no calib_cam_to_cam\.txt and calib_velo_to_cam"):
        KittiEigen(root, ground_truth="velodyne").list_frames("test")
    (root / DATE).rename(root / "day")
    with pytest.raises(MissingDataError, match=r"no day's folder \(2011_09_26"):
        KittiEigen(root).list_frames("test")


def test_a_picture_of_another_size_than_its_calibration_is_a_bad_frame(root):
    reader = KittiEigen(root, ground_truth="velodyne")
    frame = reader.list_frames("test").frames[0]
    write_image(frame.image_path)
    with pytest.raises(BadFrameError, match="is 24x16 pixels, its calibration is for 40x24"):
        reader.read(frame)


def test_damaged_files_are_bad_frames(root):
    reader, lidar = KittiEigen(root), KittiEigen(root, ground_truth="velodyne")
    frame, lidar_frame = reader.list_frames("test").frames[0], lidar.list_frames("test").frames[0]
    write_depth(frame.depth_path, ramp())
    with pytest.raises(BadFrameError, match=r"is 24x16 pixels, its picture .* is 40x24"):
        reader.read(frame)
    behind = np.array([[-5, 0, 0, 0]], dtype=np.float32)
    lidar_frame.depth_path.write_bytes(behind.tobytes())
    with pytest.raises(BadFrameError, match=r"0\.bin: no pixel is measured"):
        lidar.read(lidar_frame)
    data = frame.image_path.read_bytes()
    frame.image_path.write_bytes(data[:-30])
    with pytest.raises(BadFrameError, match=r"0\.png: (truncated|corrupt) PNG"):
        lidar.read(lidar_frame)


@pytest.mark.parametrize(("option", "value"), [("ground_truth", "lidar"), ("depth_axis", "camera")])
def test_unknown_choices_are_refused(root, option, value):
    with pytest.raises((DataError, TypeError), match=option):
        KittiEigen(root, **{option: value})


@pytest.mark.samples
def test_the_eigen_test_list_has_652_frames_with_annotated_depth_and_697_scans(
    samples_root, tmp_path
):
    splits = samples_root / "splits"
    bts, mono = splits / "eigen_test_files_with_gt.txt", splits / "monodepth2_eigen_test_files.txt"
    for line in bts.read_text().splitlines():
        image, depth, _ = line.split()
        scan_path = image.replace("image_02", "velodyne_points").replace(".png", ".bin")
        files = [image, scan_path, f"{image[:10]}/calib_cam_to_cam.txt"]
        files.append(f"{image[:10]}/calib_velo_to_cam.txt")
        files += [] if depth == "None" else [f"data_depth_annotated/val/{depth}"]
        for name in files:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).touch()
    for path in (bts, mono):
        annotated = KittiEigen(tmp_path, test_list=path).list_frames("test")
        assert (len(annotated.frames), len(annotated.skipped)) == (652, 45)
        reader = KittiEigen(tmp_path, ground_truth="velodyne", test_list=path)
        velodyne = reader.list_frames("test")
        assert (len(velodyne.frames), len(velodyne.skipped)) == (697, 0)
    reader = KittiEigen(tmp_path, test_list=splits / "monodepth2_eigen_benchmark_test_files.txt")
    assert {f.key for f in reader.list_frames("test").frames} == {f.key for f in annotated.frames}


@pytest.mark.samples
def test_real_annotated_frames_are_metres_as_kitti_defines_them(samples_root):
    reader = KittiEigen(samples_root / "kitti", test_list="annotated_files_with_gt.txt")
    frames = reader.list_frames("test").frames
    assert len(frames) == 3
    for frame in frames:
        sample = decode(reader.read(frame))
        raw = np.asarray(Image.open(frame.depth_path))
        np.testing.assert_array_equal(sample.depth_m, (raw / 256).astype(np.float32))
        assert sample.image.shape == (375, 1242, 3)
        assert sample.info["focal_px"] == 707.0493


@pytest.mark.samples
def test_real_lidar_frames_give_a_training_and_a_test_split(samples_root):
    reader = KittiEigen(
        samples_root / "kitti",
        ground_truth="velodyne",
        train_list="raw_lidar_train_files.txt",
        test_list="raw_lidar_test_files.txt",
        val_fraction=0.2,
    )
    train, val, test = (reader.list_frames(split).frames for split in ("train", "val", "test"))
    assert len(train) + len(val) == 7
    assert len(val) >= 1
    assert len(test) == 3
    depth_m = decode(reader.read(test[0])).depth_m
    measured = depth_m[depth_m > 0]
    assert 3 < measured.min() < 8
    assert 60 < measured.max() < 90
    assert not depth_m[:100].any()  # no beam goes up into the sky
