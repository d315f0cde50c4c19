import pickle

import h5py
import numpy as np
import pytest
import scipy.io

from densedepth.data.encode import decode
from densedepth.data.nyu_labeled import NyuLabeled
from densedepth.errors import BadFrameError, DataError, MissingDataError

HEIGHT, WIDTH = 12, 20


def make_labeled(root, rooms=None):
    """Six frames as MATLAB writes them; depth of frame i at row y, column x is 1 + i + x/10 + y."""
    root.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (6, HEIGHT, WIDTH, 3), dtype=np.uint8)
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    depths = np.stack([1 + i / 10 + x / 100 + y / 4 for i in range(6)]).astype(np.float32)
    raw = depths.copy()
    raw[:, 3, 5] = 0
    with h5py.File(root / "nyu_depth_v2_labeled.mat", "w") as mat:
        mat["images"] = images.transpose(0, 3, 2, 1)
        mat["depths"] = depths.transpose(0, 2, 1)
        mat["rawDepths"] = raw.transpose(0, 2, 1)
        if rooms:
            cells = mat.create_dataset("scenes", (1, 6), dtype=h5py.ref_dtype)
            for i, room in enumerate(rooms):
                letters = np.array([[ord(letter)] for letter in room], dtype=np.uint16)
                cells[0, i] = mat.create_dataset(f"#refs#/{i}", data=letters).ref
    scipy.io.savemat(
        root / "splits.mat",
        {"trainNdxs": np.array([[2], [3], [4], [5]]), "testNdxs": np.array([[1], [6]])},
    )
    return images, depths, raw


@pytest.mark.parametrize("kind", ["depths", "rawDepths"])
def test_pictures_and_depth_come_out_upright_to_a_tenth_of_a_millimetre(tmp_path, kind):
    images, depths, raw = make_labeled(tmp_path)
    reader = pickle.loads(pickle.dumps(NyuLabeled(tmp_path, kind)))
    frames = reader.list_frames("test").frames
    assert [frame.key for frame in frames] == ["nyu_labeled_00000", "nyu_labeled_00005"]
    for frame, index in zip(frames, (0, 5), strict=True):
        sample = decode(reader.read(frame))
        np.testing.assert_array_equal(sample.image, images[index])
        expected = depths[index] if kind == "depths" else raw[index]
        np.testing.assert_allclose(sample.depth_m, expected, atol=1e-4)
        np.testing.assert_array_equal(sample.depth_m == 0, expected == 0)
        assert sample.info["depth_source"] == f"nyu_depth_v2_labeled.mat/{kind}/{index}"


def test_rooms_come_from_the_file_where_it_names_them(tmp_path):
    rooms = ["den_0001", "den_0002a", "den_0002b", "hall_0003", "hall_0003", "den_0001"]
    make_labeled(tmp_path, rooms)
    reader = NyuLabeled(tmp_path, val_fraction=0.5, seed=1)
    scenes = {s: {f.scene for f in reader.list_frames(s).frames} for s in ("train", "val", "test")}
    assert scenes["train"] | scenes["val"] == {"den_0002", "hall_0003"}
    assert scenes["train"].isdisjoint(scenes["val"])
    assert scenes["test"] == {"den_0001"}


def test_numbers_beyond_the_file_are_skipped(tmp_path):
    make_labeled(tmp_path)
    numbers = np.array([[1], [7]], dtype=np.uint16)
    scipy.io.savemat(tmp_path / "splits.mat", {"testNdxs": numbers})
    listing = NyuLabeled(tmp_path).list_frames("test")
    assert len(listing.frames) == 1
    assert listing.skipped[0].line == "splits.mat: 7"
    assert listing.skipped[0].reason == "nyu_depth_v2_labeled.mat holds 6 frames"
    with pytest.raises(MissingDataError, match=r"splits\.mat gives no trainNdxs"):
        NyuLabeled(tmp_path).list_frames("train")


def test_missing_and_cut_files_are_named(tmp_path):
    with pytest.raises(MissingDataError, match=r"no .*labeled\.mat; set `root`"):
        NyuLabeled(tmp_path).list_frames("train")
    make_labeled(tmp_path)
    (tmp_path / "splits.mat").unlink()
    with pytest.raises(MissingDataError, match=r"no .*splits\.mat; set `root`"):
        NyuLabeled(tmp_path).list_frames("train")
    mat = tmp_path / "nyu_depth_v2_labeled.mat"
    mat.write_bytes(mat.read_bytes()[:600])
    with pytest.raises(MissingDataError, match=r"is no whole HDF5 file: .*; copy it again"):
        NyuLabeled(tmp_path).list_frames("train")
    with h5py.File(mat, "w") as empty:
        empty["images"] = np.zeros((1, 3, 4, 4), np.uint8)
    with pytest.raises(MissingDataError, match="has no array rawDepths"):
        NyuLabeled(tmp_path, "rawDepths").list_frames("train")


def test_a_frame_that_is_all_holes_is_a_bad_frame(tmp_path):
    make_labeled(tmp_path)
    with h5py.File(tmp_path / "nyu_depth_v2_labeled.mat", "a") as mat:
        mat["rawDepths"][0] = 0
    reader = NyuLabeled(tmp_path, "rawDepths")
    with pytest.raises(BadFrameError, match=r"labeled\.mat\[0\]: no pixel is measured"):
        reader.read(reader.list_frames("test").frames[0])


def test_depth_beyond_16_bits_is_a_bad_frame(tmp_path):
    make_labeled(tmp_path)
    with h5py.File(tmp_path / "nyu_depth_v2_labeled.mat", "a") as mat:
        mat["depths"][5] = 11
    reader = NyuLabeled(tmp_path)
    with pytest.raises(BadFrameError, match=r"depth 11\.00 m is beyond 10\.92 m"):
        reader.read(reader.list_frames("test").frames[1])


@pytest.mark.samples
def test_the_official_split_file_gives_795_and_654_frames(samples_root, tmp_path):
    (tmp_path / "splits.mat").write_bytes((samples_root / "splits" / "splits.mat").read_bytes())
    with h5py.File(tmp_path / "nyu_depth_v2_labeled.mat", "w") as mat:
        for name, shape in [("images", (1449, 3, 4, 4)), ("depths", (1449, 4, 4))]:
            mat.create_dataset(name, shape, dtype=np.float32)  # takes no room until written
    reader = NyuLabeled(tmp_path)
    train, val, test = (reader.list_frames(split).frames for split in ("train", "val", "test"))
    assert (len(train) + len(val), len(test)) == (795, 654)
    assert [frame.key for frame in test[:3]] == [
        "nyu_labeled_00000", "nyu_labeled_00001", "nyu_labeled_00008",
    ]  # fmt: skip


@pytest.mark.samples
@pytest.mark.parametrize("kind", ["depths", "rawDepths"])
def test_real_labelled_frames_equal_the_file(samples_root, kind):
    root = samples_root / "nyu_labeled_mini"
    reader = NyuLabeled(root, kind)
    frame = reader.list_frames("test").frames[0]
    sample = decode(reader.read(frame))
    with h5py.File(root / "nyu_depth_v2_labeled.mat") as mat:
        for (y, x), channel in [((0, 0), 0), ((479, 639), 1), ((100, 500), 2)]:
            assert sample.image[y, x, channel] == mat["images"][0, channel, x, y]
        error_m = np.abs(sample.depth_m.T - mat[kind][0])
    assert error_m.max() < 1e-4
    assert ((sample.depth_m == 0).mean() > 0.05) == (kind == "rawDepths")


def test_an_unknown_kind_is_refused(tmp_path):
    with pytest.raises((DataError, TypeError), match=r"kind|rawdepth"):
        NyuLabeled(tmp_path, "rawdepths")
