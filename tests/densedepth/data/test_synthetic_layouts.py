"""Written data sets: the official layout, the same bytes, read by the readers of real data."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from densedepth.data.depth_codec import unpack_depth
from densedepth.data.kitti import GroundTruth, KittiEigen
from densedepth.data.nyu import NyuDenseDepth
from densedepth.data.synthetic import room_frame, street_frame, write_kitti_like, write_nyu_like
from densedepth.data.velodyne import project_velodyne, read_calibration, read_scan
from densedepth.errors import DataError

Writer = Callable[..., None]
NYU: dict[str, Any] = {
    "num_train_scenes": 3,
    "frames_per_scene": 2,
    "num_test": 2,
    "size_px": (48, 64),
    "seed": 4,
}
KITTI: dict[str, Any] = {
    "num_train_drives": 2,
    "frames_per_drive": 1,
    "num_test": 2,
    "size_px": (48, 160),
    "seed": 4,
}
WRITERS: list[tuple[Writer, dict[str, Any]]] = [(write_nyu_like, NYU), (write_kitti_like, KITTI)]


def contents(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def nyu(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("nyu")
    write_nyu_like(root, **NYU)
    return root


@pytest.fixture(scope="module")
def kitti(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("kitti")
    write_kitti_like(root, **KITTI)
    return root


def test_nyu_lists_name_pairs_relative_to_the_root(nyu: Path) -> None:
    for name, count in (("nyu2_train.csv", 6), ("nyu2_test.csv", 2)):
        lines = (nyu / "data" / name).read_text().splitlines()
        assert len(lines) == count
        for line in lines:
            image, depth = line.split(",")
            assert image.startswith("data/nyu2_")
            assert (nyu / image).is_file()
            assert (nyu / depth).is_file()


def test_the_nyu_reader_finds_every_frame_and_its_depth(nyu: Path) -> None:
    reader = NyuDenseDepth(nyu, val_fraction=0.34)
    listings = {split: reader.list_frames(split) for split in ("train", "val", "test")}
    assert {split: len(x.frames) for split, x in listings.items()} == {
        "train": 4,
        "val": 2,
        "test": 2,
    }
    assert all(not x.skipped for x in listings.values())
    for split, step_m in (("train", 10 / 255), ("test", 1 / 1000)):
        frame = listings[split].frames[1]
        encoded = reader.read(frame)
        assert encoded.depth_unit_m == pytest.approx(step_m)
        steps = unpack_depth(encoded.depth)
        folder, file = frame.image_path.parent.name, frame.image_path.stem
        if split == "train":
            image, depth_m = room_frame(4, "train", int(folder[-8:-4]), int(file) - 1, (48, 64))
        else:
            image, depth_m = room_frame(4, "test", int(file[:5]), 0, (48, 64))
        np.testing.assert_allclose(steps * step_m, depth_m, atol=step_m / 2 + 1e-6)
        shown = np.asarray(Image.open(io.BytesIO(encoded.image))).astype(int)
        assert np.abs(shown - image).mean() < 6


@pytest.mark.parametrize("ground_truth", ["annotated", "velodyne"])
def test_the_kitti_reader_finds_every_frame(kitti: Path, ground_truth: GroundTruth) -> None:
    reader = KittiEigen(kitti, ground_truth=ground_truth, val_fraction=0.5)
    counts = {split: len(reader.list_frames(split).frames) for split in ("train", "val", "test")}
    assert counts == {"train": 1, "val": 1, "test": 2}
    encoded = reader.read(reader.list_frames("test").frames[0])
    assert encoded.depth_unit_m == 1 / 256
    assert encoded.info["focal_px"] == pytest.approx(721.5377 * 160 / 1242, rel=1e-5)


def test_kitti_files_hold_what_was_rendered(kitti: Path) -> None:
    frame = street_frame(4, "train", 1, 0, (48, 160))
    day = kitti / "2000_01_01"
    drive = "2000_01_01_drive_0001_sync"
    image = np.asarray(Image.open(day / drive / "image_02/data/0000000000.png"))
    np.testing.assert_array_equal(image, frame.image)
    annotated = kitti / "data_depth_annotated/train" / drive / "proj_depth/groundtruth/image_02"
    stored = Image.open(annotated / "0000000000.png")
    assert stored.mode == "I;16"
    np.testing.assert_allclose(np.asarray(stored) / 256, frame.annotated_m, atol=1 / 512 + 1e-6)
    scan = read_scan(day / drive / "velodyne_points/data/0000000000.bin")
    np.testing.assert_array_equal(scan, frame.scan)


def test_the_projects_own_projection_agrees_with_the_rendered_depth(kitti: Path) -> None:
    day = kitti / "2000_01_01"
    calibration = read_calibration(day, 2)
    assert calibration.size_px == (48, 160)
    frame = street_frame(4, "train", 1, 0, (48, 160))
    projected_m = project_velodyne(frame.scan, calibration, calibration.size_px)
    both = (projected_m > 0) & (frame.depth_m > 0)
    assert both.mean() > 0.15
    error = np.abs(projected_m - frame.depth_m)[both] / frame.depth_m[both]
    assert np.median(error) < 0.03


def test_test_rooms_are_no_training_rooms(nyu: Path) -> None:
    files = [p.read_bytes() for p in (nyu / "data").rglob("*.jpg")]
    assert len(files) == 8
    assert len(set(files)) == 8


@pytest.mark.parametrize(("write", "arguments"), WRITERS, ids=["nyu", "kitti"])
def test_the_same_arguments_give_the_same_bytes(
    write: Writer, arguments: dict, tmp_path: Path, nyu: Path, kitti: Path
) -> None:
    seen: list[tuple[int, int]] = []
    write(tmp_path, **arguments, on_progress=lambda *x: seen.append(x))
    expected = contents(nyu if write is write_nyu_like else kitti)
    found = contents(tmp_path)
    assert found.keys() == expected.keys()
    assert [name for name in found if found[name] != expected[name]] == []
    total = seen[-1][1]
    assert seen == [(i + 1, total) for i in range(total)]


def test_what_is_there_is_not_written_again(tmp_path: Path) -> None:
    small = NYU | {"num_train_scenes": 1, "num_test": 1}
    write_nyu_like(tmp_path, **small)
    times = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}
    seen: list[tuple[int, int]] = []
    write_nyu_like(tmp_path, **small, on_progress=lambda *x: seen.append(x))
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")} == times
    assert seen == [(3, 3)]


def test_a_lost_file_or_another_seed_is_noticed(tmp_path: Path) -> None:
    small = NYU | {"num_train_scenes": 1, "num_test": 1}
    write_nyu_like(tmp_path, **small)
    before = contents(tmp_path)
    lost = next(tmp_path.rglob("*_depth.png"))
    lost.unlink()
    write_nyu_like(tmp_path, **small)
    assert contents(tmp_path) == before
    write_nyu_like(tmp_path, **(small | {"seed": 5}))
    changed = contents(tmp_path)
    assert changed[str(lost.relative_to(tmp_path))] != before[str(lost.relative_to(tmp_path))]


@pytest.mark.parametrize(("write", "arguments", "name"), [
    (write_nyu_like, NYU, "data/nyu2_train.csv"), (write_kitti_like, KITTI, "test_files.txt"),
], ids=["nyu", "kitti"])  # fmt: skip
def test_real_data_is_never_written_over(
    write: Writer, arguments: dict, name: str, tmp_path: Path
) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("mine\n")
    with pytest.raises(DataError, match=r"no synthetic data set.*set another root"):
        write(tmp_path, **arguments)
    assert contents(tmp_path) == {name: b"mine\n"}


def test_an_interrupted_writing_leaves_no_lists(tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_nyu_like(tmp_path, **NYU, on_progress=stop)
    assert not list(tmp_path.rglob("*.csv"))
    assert not (tmp_path / "synthetic.json").exists()


@pytest.mark.parametrize(("wrong", "message"), [
    ({"num_test": 0}, "num_test=0: give at least 1"),
    ({"num_train_scenes": -2}, "num_train_scenes=-2"),
    ({"size_px": (48, 4)}, r"size_px=\(48, 4\): give height and width, each at least 16"),
])  # fmt: skip
def test_numbers_that_make_no_data_set_are_refused(
    wrong: dict, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        write_nyu_like(tmp_path, **(NYU | wrong))
