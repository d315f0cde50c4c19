"""Sharding without Ray: one shard's task, the choice of frames, what the planner watches."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cluster.local_store import LocalStore
from densedepth.data.formats import make_reader
from densedepth.data.shards import read_shard
from densedepth.errors import EmptySplitError, MissingDataError
from stages.shard import ShardConfig, _jobs, fill_holes, sources, write_one_shard


def write_pair(root: Path, folder: str, number: int, depth_size=(24, 32)) -> str:
    """Write a colour and a depth picture in DenseDepth's layout; return the list's line."""
    rng = np.random.default_rng(number)
    place = root / "data" / folder / "room_0001_out"
    place.mkdir(parents=True, exist_ok=True)
    colour = rng.integers(0, 255, (24, 32, 3), dtype=np.uint8)
    depth = rng.integers(20, 250, depth_size, dtype=np.uint8)
    Image.fromarray(colour).save(place / f"{number}.jpg", quality=95)
    Image.fromarray(depth).save(place / f"{number}.png")
    base = f"data/{folder}/room_0001_out/{number}"
    return f"{base}.jpg,{base}.png\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "raw"
    train = "".join(write_pair(root, "nyu2_train", n) for n in range(1, 9))
    test = "".join(write_pair(root, "nyu2_test", n) for n in range(1, 3))
    (root / "data/nyu2_train.csv").write_text(train)
    (root / "data/nyu2_test.csv").write_text(test)
    return root


def config(root: Path, **changes) -> ShardConfig:
    return ShardConfig(format="nyu_densedepth", root=str(root), samples_per_shard=4, **changes)


def write(root: Path, store: LocalStore, split: str = "train", **changes):
    settings = config(root, **changes)
    reader = make_reader("nyu_densedepth", str(root))
    frames = reader.list_frames(split).frames
    return write_one_shard(settings, store, reader, split, frames)


def test_a_shard_holds_the_sources_own_bytes_under_its_digest(root: Path, tmp_path: Path):
    store = LocalStore(tmp_path / "store")
    result = write(root, store)
    assert result["ref"].key.endswith(f"/{result['ref'].sha256}.tar")
    samples = list(read_shard(store.fetch(result["ref"], tmp_path), result["count"]))
    originals = {p.read_bytes() for p in (root / "data/nyu2_train").rglob("*.jpg")}
    assert {s.image for s in samples} <= originals
    assert result["dense"]


def test_equal_frames_are_one_object(root: Path, tmp_path: Path):
    store = LocalStore(tmp_path / "store")
    first, second = write(root, store), write(root, store)
    assert first["ref"] == second["ref"]
    assert len(list(store.list_keys("shards/"))) == 1


def test_a_corrupt_jpeg_and_a_depth_of_another_size_are_left_out_and_told(
    root: Path, tmp_path: Path
):
    place = root / "data/nyu2_train/room_0001_out"
    names = sorted(
        f.image_path.stem
        for f in make_reader("nyu_densedepth", str(root)).list_frames("train").frames
    )
    broken, odd = names[0], names[1]
    (place / f"{broken}.jpg").write_bytes((place / f"{broken}.jpg").read_bytes()[:300])
    write_pair(root, "nyu2_train", int(odd), depth_size=(12, 32))
    result = write(root, LocalStore(tmp_path / "store"))
    reasons = {s.frame: s.reason for s in result["skipped"]}
    assert len(reasons) == 2
    assert result["count"] == len(names) - 2
    text = " ".join(reasons.values())
    assert f"{broken}.jpg" in text
    assert "32x24" in text
    assert "32x12" in text


def test_the_planner_sees_a_changed_and_a_missing_file(root: Path):
    before = sources(config(root))
    assert len(before) == 2 * (8 + 2)
    (root / "data/nyu2_train/room_0001_out/3.png").write_bytes(b"other")
    (root / "data/nyu2_train/room_0001_out/4.jpg").unlink()
    after = sources(config(root))
    changed = [Path(name).name for name in before if before[name] != after.get(name)]
    assert sorted(changed) == ["3.png", "4.jpg", "4.png"]


def test_the_planner_watches_just_the_frames_that_are_sharded(root: Path):
    settings = config(root, max_frames=2)
    reader = make_reader("nyu_densedepth", str(root))
    jobs, _ = _jobs(settings, reader)
    used = {str(f.image_path) for _, frames in jobs for f in frames}
    watched = {name for name in sources(settings) if name.endswith(".jpg")}
    assert watched == used


def test_a_missing_root_is_named_with_the_setting(tmp_path: Path):
    with pytest.raises(MissingDataError, match="nowhere"):
        sources(config(tmp_path / "nowhere"))


def test_an_empty_list_is_an_empty_split(root: Path):
    (root / "data/nyu2_test.csv").write_text("")
    with pytest.raises(EmptySplitError, match="test"):
        sources(config(root))


def test_filled_depth_has_no_hole_and_keeps_what_was_measured(root: Path):
    from dataclasses import replace

    from densedepth.data.encode import decode, encode_depth_png

    reader = make_reader("nyu_densedepth", str(root))
    sample = reader.read(reader.list_frames("train").frames[0])
    depth = np.full((24, 32), 2000, dtype=np.uint16)
    depth[5:12, 5:20] = 0
    holed = replace(sample, depth_png=encode_depth_png(depth), depth_unit_m=1e-3)
    filled = decode(fill_holes(holed, 10.0)).depth_m
    assert (filled > 0).all()
    np.testing.assert_allclose(filled, 2.0, atol=1e-3)
