"""Shards: what is written is read, byte for byte, and damage is found."""

import json
import tarfile
from pathlib import Path

import pytest
import webdataset

from densedepth.data.shards import read_shard, write_shard
from densedepth.errors import CorruptShardError
from densedepth.sample import EncodedSample


def sample(key: str, image_format: str = "jpg") -> EncodedSample:
    return EncodedSample(
        key=key,
        image=f"image of {key}".encode(),
        image_format=image_format,
        depth_png=f"depth of {key}".encode(),
        depth_unit_m=1 / 256,
        info={"dataset": "nyu", "focal_px": 518.8579},
    )


SAMPLES = [sample("a_1"), sample("a_2", "png"), sample("b-1")]


def test_samples_come_back_as_they_were(tmp_path: Path):
    assert write_shard(tmp_path / "s.tar", SAMPLES) == 3
    assert list(read_shard(tmp_path / "s.tar", 3)) == SAMPLES


def test_equal_samples_give_equal_bytes(tmp_path: Path):
    write_shard(tmp_path / "one.tar", SAMPLES)
    write_shard(tmp_path / "two.tar", iter(SAMPLES))
    assert (tmp_path / "one.tar").read_bytes() == (tmp_path / "two.tar").read_bytes()


def test_webdatasets_own_writer_would_write_the_same_bytes(tmp_path: Path):
    write_shard(tmp_path / "ours.tar", SAMPLES)
    with (
        (tmp_path / "theirs.tar").open("wb") as stream,
        webdataset.TarWriter(
            stream, encoder=False, mtime=0, user="depth", group="depth", mode=0o644
        ) as tar,
    ):
        for s in SAMPLES:
            facts = json.dumps({**s.info, "depth_unit_m": s.depth_unit_m}, sort_keys=True)
            parts = {s.image_format: s.image, "depth.png": s.depth_png, "json": facts.encode()}
            tar.write({"__key__": s.key, **parts})
    assert (tmp_path / "ours.tar").read_bytes() == (tmp_path / "theirs.tar").read_bytes()


def test_plain_webdataset_reads_it(tmp_path: Path):
    write_shard(tmp_path / "s.tar", SAMPLES)
    rows = list(webdataset.WebDataset(f"file:{tmp_path / 's.tar'}", shardshuffle=False))
    assert [row["__key__"] for row in rows] == ["a_1", "a_2", "b-1"]
    assert rows[0]["depth.png"] == b"depth of a_1"


def test_a_tar_cut_between_two_samples_is_found_by_the_count(tmp_path: Path):
    write_shard(tmp_path / "short.tar", SAMPLES[:2])
    with pytest.raises(CorruptShardError, match="2 samples where the manifest says 3"):
        list(read_shard(tmp_path / "short.tar", 3))


def test_a_tar_cut_inside_a_sample_is_found(tmp_path: Path):
    path = tmp_path / "s.tar"
    write_shard(path, SAMPLES)
    path.write_bytes(path.read_bytes()[:1700])
    with pytest.raises(CorruptShardError, match=r"s\.tar"):
        list(read_shard(path, 3))


def test_a_sample_without_depth_is_named(tmp_path: Path):
    path = tmp_path / "s.tar"
    with tarfile.open(path, "w") as tar:
        (tmp_path / "x").write_bytes(b"x")
        tar.add(tmp_path / "x", "k.jpg")
    with pytest.raises(CorruptShardError, match=r"sample k has no depth\.png, json"):
        list(read_shard(path))


def test_pickles_in_a_tar_are_left_alone(tmp_path: Path):
    path = tmp_path / "s.tar"
    write_shard(path, SAMPLES[:1])
    (tmp_path / "evil").write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    with tarfile.open(path, "a") as tar:
        tar.add(tmp_path / "evil", "a_1.pyd")
        tar.add(tmp_path / "evil", "a_1.pickle")
    assert list(read_shard(path, 1)) == SAMPLES[:1]
