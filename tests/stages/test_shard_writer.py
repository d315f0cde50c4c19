"""Tests of stages/shard_writer.py: one shard's work, and what is not done twice."""

import os
import shutil
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cluster.cache import NodeCache
from cluster.local_store import LocalStore
from densedepth.data.depth_codec import pack_depth
from densedepth.data.encode import decode
from densedepth.data.formats import make_reader
from densedepth.data.loader import read_encoded
from densedepth.data.shard_source import ShardList
from densedepth.sample import Frame
from stages import shard_writer
from stages.shard_writer import ShardResult, ShardWriter, fill_holes
from stages.stored_shards import StoredShards
from tests.densedepth.data.tiny_kitti import DATE, drive_name, write_calibration, write_frame
from tests.stages.raw_frames import write_pair


@dataclass(frozen=True)
class Counting:
    """A reader that counts what it reads."""

    inner: Any
    counts: Counter = field(default_factory=Counter, repr=False)

    def read(self, frame: Frame):
        self.counts[frame.key] += 1
        return self.inner.read(frame)


@dataclass(frozen=True)
class NotedStore(LocalStore):
    """A store that notes what is written."""

    puts: list[str] = field(default_factory=list, compare=False)

    def _put(self, key: str, stream):
        self.puts.append(key)
        return super()._put(key, stream)


@pytest.fixture
def reader(root: Path) -> Counting:
    return Counting(make_reader("nyu_densedepth", str(root)))


@pytest.fixture
def frames(reader: Counting) -> tuple[Frame, ...]:
    return reader.inner.list_frames("train").frames


@pytest.fixture
def writer(reader: Counting, tmp_path: Path) -> ShardWriter:
    return ShardWriter(NotedStore(tmp_path / "store"), reader)


def read(writer: ShardWriter, result: ShardResult, folder: Path):
    shard = result.shard
    assert shard is not None
    source = StoredShards(NodeCache(writer.store, folder / "cache"), (shard,), (shard.index,))
    return list(read_encoded(ShardList((shard.num_samples,), source)))


def test_a_shard_holds_the_sources_own_bytes_under_its_digest(writer, frames, tmp_path: Path):
    result = writer.write("train", frames)
    assert result.shard.key.endswith(f"/{result.shard.sha256}.tar")
    assert result.shard.index.key == f"{result.shard.key}.index.json"
    samples = read(writer, result, tmp_path)
    assert [s.key for s in samples] == [f.key for f in frames]
    assert [s.image for s in samples] == [f.image_path.read_bytes() for f in frames]
    assert result.is_dense


@pytest.mark.parametrize("num_threads", [1, 3])
def test_the_number_of_threads_does_not_change_the_bytes(
    reader, frames, tmp_path: Path, num_threads: int
):
    one = ShardWriter(LocalStore(tmp_path / "one"), reader).write("train", frames)
    other = ShardWriter(LocalStore(tmp_path / "other"), reader)
    assert other.write("train", frames, num_threads) == one


def test_what_was_done_is_found_and_neither_read_nor_written_again(writer, reader, frames):
    first = writer.write("train", frames)
    reader.counts.clear()
    writer.store.puts.clear()
    assert ShardWriter(writer.store, reader).write("train", frames) == first
    assert not reader.counts
    assert not writer.store.puts


def test_a_changed_frame_makes_its_own_shard_anew_and_no_other(writer, reader, frames):
    ours, others = frames[:4], frames[4:]
    before = [writer.write("train", part) for part in (ours, others)]
    reader.counts.clear()
    writer.store.puts.clear()
    write_pair(Path(reader.inner.root), "nyu2_train", 99)
    place = frames[0].image_path.parent
    os.replace(place / "99.jpg", frames[0].image_path)
    after = [writer.write("train", part) for part in (ours, others)]
    assert after[1] == before[1]
    assert after[0].shard.sha256 != before[0].shard.sha256
    assert set(reader.counts) == {f.key for f in ours}


def test_equal_content_is_uploaded_once(writer, reader, frames, monkeypatch: pytest.MonkeyPatch):
    first = writer.write("train", frames)
    writer.store.puts.clear()
    monkeypatch.setattr(shard_writer, "code_digest", lambda: "another version of the code")
    assert writer.write("train", frames) == first
    assert [key.partition("/")[0] for key in writer.store.puts] == ["shard_results"]
    assert reader.counts[frames[0].key] == 2


@pytest.mark.parametrize("which", ["tar", "index"])
def test_what_was_damaged_in_the_store_is_written_again(writer, frames, which: str):
    result = writer.write("train", frames)
    ref = result.shard if which == "tar" else result.shard.index
    path = writer.store.root / ref.key
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    writer.store.puts.clear()
    assert writer.write("train", frames) == result
    assert ref.key in writer.store.puts
    assert writer.store.has(ref)


def test_a_note_that_cannot_be_read_is_no_note(writer, frames):
    result = writer.write("train", frames)
    key = f"shard_results/{writer.digest('train', frames)}.json"
    writer.store.put_bytes(key, b"{}")
    assert writer.write("train", frames) == result


def test_all_that_decides_the_bytes_is_in_the_digest(writer, frames, monkeypatch):
    seen = {writer.digest("train", frames)}
    for other in (
        replace(writer, fill="colorization"),
        replace(writer, fill="colorization", max_depth_m=80.0),
        replace(writer, reader=replace(writer.reader, inner="another")),
    ):
        seen.add(other.digest("train", frames))
    seen.add(writer.digest("train", frames[1:]))
    seen.add(writer.digest("train", (replace(frames[0], focal_px=500.0), *frames[1:])))
    os.utime(frames[0].depth_path, ns=(1, 1))
    seen.add(writer.digest("train", frames))
    monkeypatch.setattr(shard_writer, "code_digest", lambda: "another")
    seen.add(writer.digest("train", frames))
    assert len(seen) == 8
    filling = replace(writer, fill="colorization")
    assert filling.digest("test", frames) == writer.digest("test", frames)


def test_a_corrupt_jpeg_and_a_depth_of_another_size_are_left_out_and_told(
    writer, frames, tmp_path: Path
):
    broken, odd = frames[0], frames[1]
    broken.image_path.write_bytes(broken.image_path.read_bytes()[:300])
    write_pair(tmp_path / "raw", "nyu2_train", int(odd.image_path.stem), depth_size=(12, 32))
    result = writer.write("train", frames, 2)
    reasons = {s.frame: s.reason for s in result.skipped}
    assert set(reasons) == {broken.key, odd.key}
    assert result.shard.num_samples == len(frames) - 2
    assert broken.image_path.name in reasons[broken.key]
    assert "32x12" in reasons[odd.key]
    assert "32x24" in reasons[odd.key]


def test_a_damaged_calibration_costs_its_days_frames_and_is_told(tmp_path: Path):
    root, other = tmp_path / "kitti", "2011_09_28"
    write_frame(root, 1, 0)
    write_calibration(root / DATE)
    shutil.copytree(root / DATE, root / other)
    (root / other / "calib_velo_to_cam.txt").write_text("R: 1 2 3\nT: 0 0 0\n")
    for day in (DATE, other):
        (root / day / drive_name(1)).rename(root / day / f"{day}_drive_0001_sync")
    lines = [f"{day}/{day}_drive_0001_sync 0 l\n" for day in (DATE, other)]
    (root / "train_files.txt").write_text("".join(lines))
    (root / "test_files.txt").write_text("")
    reader = make_reader("kitti_eigen", str(root), ground_truth="velodyne", val_fraction=0.0)
    good, bad = reader.list_frames("train").frames
    result = ShardWriter(LocalStore(tmp_path / "store"), reader).write("train", [bad, good])
    assert result.shard.num_samples == 1
    (skipped,) = result.skipped
    assert skipped.frame == bad.key
    assert f"{other}/calib_velo_to_cam.txt: line 'R' is no (3, 3) matrix" in skipped.reason


def test_a_shard_without_a_usable_frame_is_none(writer, frames):
    for frame in frames:
        frame.image_path.write_bytes(b"nothing")
    result = writer.write("train", frames)
    assert result.shard is None
    assert len(result.skipped) == len(frames)
    assert list(writer.store.list_keys("shards/")) == []
    assert writer.write("train", frames) == result


def test_a_note_says_whether_depth_has_holes(writer, frames):
    from PIL import Image

    depth = np.asarray(Image.open(frames[2].depth_path)).copy()
    depth[3, 4] = 0
    Image.fromarray(depth).save(frames[2].depth_path)
    assert not writer.write("train", frames).is_dense
    assert writer.write("train", frames[:2]).is_dense


def test_filled_depth_has_no_hole_and_keeps_what_was_measured(reader, frames):
    sample = reader.read(frames[0])
    depth = np.full((24, 32), 2000, dtype=np.uint16)
    depth[5:12, 5:20] = 0
    holed = replace(sample, depth=pack_depth(depth), depth_unit_m=1e-3)
    filled = decode(fill_holes(holed, 10.0)).depth_m
    assert (filled > 0).all()
    np.testing.assert_allclose(filled, 2.0, atol=1e-3)
