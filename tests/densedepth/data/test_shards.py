"""Shards: what is written is read, byte for byte, and damage is found."""

import io
import json
import os
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import webdataset

from densedepth.data.depth_codec import pack_depth, unpack_depth
from densedepth.data.shard_index import ShardIndex
from densedepth.data.shards import index_shard, read_sample, write_shard
from densedepth.errors import CorruptShardError
from densedepth.sample import MAX_KEY_LENGTH, EncodedSample


def sample(key: str, image_format: str = "jpg") -> EncodedSample:
    return EncodedSample(
        key=key,
        image=f"image of {key}".encode() * 40,
        image_format=image_format,
        depth=pack_depth(np.full((4, 6), len(key), np.uint16)),
        depth_unit_m=1 / 256,
        info={"dataset": "nyu", "focal_px": 518.8579},
    )


SAMPLES = [sample("a_1"), sample("a_2", "png"), sample("b-1"), sample("k" * MAX_KEY_LENGTH)]


@pytest.fixture
def tar(tmp_path: Path) -> Path:
    write_shard(tmp_path / "s.tar", SAMPLES)
    return tmp_path / "s.tar"


def read_all(path: Path, index: ShardIndex) -> list[EncodedSample]:
    with path.open("rb") as file:
        return [read_sample(file, entry, path.name) for entry in index.entries]


def test_samples_come_back_as_they_were_in_any_order(tmp_path: Path):
    index = write_shard(tmp_path / "s.tar", iter(SAMPLES))
    assert read_all(tmp_path / "s.tar", index) == SAMPLES
    backwards = ShardIndex(index.entries[::-1])
    assert read_all(tmp_path / "s.tar", backwards) == SAMPLES[::-1]
    descriptor = os.open(tmp_path / "s.tar", os.O_RDONLY)
    try:
        assert read_sample(descriptor, index.entries[2], "s.tar") == SAMPLES[2]
    finally:
        os.close(descriptor)


def test_a_shard_that_is_deleted_while_it_is_open_can_still_be_read(tar: Path):
    entries = index_shard(tar).entries
    with tar.open("rb") as file:
        tar.unlink()
        assert read_sample(file, entries[1], "s.tar") == SAMPLES[1]


def test_equal_samples_give_equal_bytes(tmp_path: Path):
    first = write_shard(tmp_path / "one.tar", SAMPLES)
    second = write_shard(tmp_path / "two.tar", iter(SAMPLES))
    assert (tmp_path / "one.tar").read_bytes() == (tmp_path / "two.tar").read_bytes()
    assert first.to_bytes() == second.to_bytes()


def test_webdatasets_own_writer_would_write_the_same_bytes(tar: Path, tmp_path: Path):
    with (
        (tmp_path / "theirs.tar").open("wb") as stream,
        webdataset.TarWriter(
            stream, encoder=False, mtime=0, user="depth", group="depth", mode=0o644
        ) as writer,
    ):
        for s in SAMPLES:
            facts = {
                **s.info,
                "depth_unit_m": s.depth_unit_m,
                "depth_bits": 16,
                "depth_crc32": s.depth.crc32,
                "height_px": 4,
                "width_px": 6,
                "num_measured_px": 24,
            }
            text = json.dumps(facts, sort_keys=True).encode()
            parts = {s.image_format: s.image, "depth.pco": s.depth.data, "json": text}
            writer.write({"__key__": s.key, **parts})
    assert tar.read_bytes() == (tmp_path / "theirs.tar").read_bytes()


def test_plain_webdataset_reads_it(tar: Path):
    rows = list(webdataset.WebDataset(f"file:{tar}", shardshuffle=False))
    assert [row["__key__"] for row in rows] == [s.key for s in SAMPLES]
    assert rows[0]["depth.pco"] == SAMPLES[0].depth.data
    assert [row.get("jpg") or row["png"] for row in rows] == [s.image for s in SAMPLES]


def test_an_index_made_anew_from_the_tar_is_the_one_that_was_written(tmp_path: Path):
    index = write_shard(tmp_path / "s.tar", SAMPLES)
    assert index_shard(tmp_path / "s.tar") == index
    assert ShardIndex.from_bytes(index.to_bytes(), "s") == index
    with tarfile.open(tmp_path / "s.tar") as tar:
        places = [(m.name, m.offset_data, m.size) for m in tar]
    assert places == [
        (m.name, m.offset, m.size_bytes) for entry in index.entries for m in entry.members
    ]


def test_an_empty_shard_is_a_whole_tar(tmp_path: Path):
    assert len(write_shard(tmp_path / "s.tar", [])) == 0
    assert len(index_shard(tmp_path / "s.tar")) == 0
    with tarfile.open(tmp_path / "s.tar") as tar:
        assert tar.getnames() == []


@pytest.mark.parametrize("place", [0, 60, 512, 700, 1100, 1600, 2000])
def test_a_flipped_bit_anywhere_in_a_sample_names_shard_and_key(tar: Path, place: int):
    index = index_shard(tar)
    data = bytearray(tar.read_bytes())
    data[index.entries[1].offset + place] ^= 4
    tar.write_bytes(data)
    with tar.open("rb") as file:
        assert read_sample(file, index.entries[0], "s.tar") == SAMPLES[0]
        with pytest.raises(CorruptShardError, match=r"s\.tar: .* not sample a_2 .*shards verify"):
            read_sample(file, index.entries[1], "s.tar")


def test_a_cut_tar_is_found_inside_a_sample_and_between_two(tar: Path):
    index = index_shard(tar)
    whole = tar.read_bytes()
    last = index.entries[3]
    end_of_samples = last.offset + last.span_bytes
    for end in (last.offset + 900, last.offset, end_of_samples, end_of_samples + 512):
        tar.write_bytes(whole[:end])
        with pytest.raises(CorruptShardError, match=r"s\.tar"):
            index_shard(tar)
    tar.write_bytes(whole[: last.offset])
    with pytest.raises(CorruptShardError, match=r"s\.tar: sample k+ ends after 0 of \d+ bytes"):
        read_all(tar, index)


def test_the_index_of_another_shard_is_found(tar: Path, tmp_path: Path):
    other = write_shard(tmp_path / "other.tar", SAMPLES[::-1])
    with pytest.raises(CorruptShardError, match=r"s\.tar: at byte 0 is not sample k+ .*a_1\.depth"):
        read_all(tar, other)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(format="depth-shards/1"), "its format is 'depth-shards/1'"),
        (lambda c: c["offsets"].pop(), "argument"),
        (lambda c: c["crc32"].__setitem__(0, -1), "something else than whole numbers"),
        (lambda c: c["offsets"].__setitem__(0, 1e9), "something else than whole numbers"),
        (lambda c: c.update(num_samples=7), "4 samples where it says 7"),
        (lambda c: c.pop("keys"), "'keys'"),
    ],
)
def test_a_damaged_index_is_refused(tar: Path, change, message: str):
    columns = json.loads(index_shard(tar).to_bytes())
    change(columns)
    with pytest.raises(CorruptShardError, match=f"^x.json is no index of a shard: .*{message}"):
        ShardIndex.from_bytes(json.dumps(columns).encode(), "x.json")
    with pytest.raises(CorruptShardError, match=r"x\.json is no index"):
        ShardIndex.from_bytes(b"\x00\xff", "x.json")


def rewrite(path: Path, names: list[str], facts: bytes = b"{}") -> None:
    with tarfile.open(path, "w") as tar:
        for name in names:
            data = facts if name.endswith("json") else b"x"
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))


@pytest.mark.parametrize(
    "names",
    [
        ["k.jpg", "k.json"],
        ["k.depth.png", "k.jpg", "k.json"],
        ["k.depth.pco", "k.jpg", "l.json"],
        ["k.jpg", "k.depth.pco", "k.json"],
        ["k.depth.pco", "k.jpg", "k.json", "k.pyd"],
    ],
)
def test_a_tar_of_something_else_is_refused(tmp_path: Path, names: list[str]):
    rewrite(tmp_path / "s.tar", names)
    with pytest.raises(CorruptShardError, match=rf"s\.tar: .*{names[0]}|k\.pyd|follow each other"):
        index_shard(tmp_path / "s.tar")


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        (b"{}", "height_px"),
        (b"no", "Expecting value"),
        (b"[]", "list"),
        (
            b'{"height_px": 1, "width_px": 1, "depth_bits": 12, "depth_crc32": 0, '
            b'"num_measured_px": 1, "depth_unit_m": 1}',
            "depth_bits = 12, which is neither 8 nor 16",
        ),
    ],
)
def test_facts_that_lack_something_are_told(tmp_path: Path, facts: bytes, message: str):
    rewrite(tmp_path / "s.tar", ["k.depth.pco", "k.jpg", "k.json"], facts)
    with pytest.raises(CorruptShardError, match=rf"sample k: its JSON .*{message}"):
        read_all(tmp_path / "s.tar", index_shard(tmp_path / "s.tar"))


def test_keys_that_are_too_long_or_come_twice_are_refused(tmp_path: Path):
    for bad in ([sample("k" * (MAX_KEY_LENGTH + 1))], [sample("a"), sample("a")]):
        with pytest.raises(ValueError, match="longer than 80 or comes twice"):
            write_shard(tmp_path / "s.tar", bad)


def test_depth_goes_on_to_a_plain_png(tar: Path):
    from PIL import Image

    from densedepth.data.encode import encode_depth_png

    deep = replace(SAMPLES[0], depth=pack_depth(np.arange(24, dtype=np.uint16).reshape(4, 6) * 999))
    png = encode_depth_png(unpack_depth(deep.depth))
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(png))), unpack_depth(deep.depth))
