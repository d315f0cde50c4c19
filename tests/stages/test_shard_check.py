"""Tests of stages/shard_check.py and stages/shard_repair.py: damage found, named and mended."""

import json
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from cluster import s3_transfer
from cluster.errors import NoSpaceLeft
from cluster.storage import ObjectStore
from densedepth.data import shard_index
from densedepth.data.formats import make_reader
from stages.artifacts import ShardSet
from stages.manifest import entries_of, make_manifest, publish_manifest
from stages.shard import ShardConfig, raw_data
from stages.shard_check import Damage, check, num_bytes
from stages.shard_jobs import write_jobs
from stages.shard_repair import Repair, repair
from stages.shard_writer import ShardWriter
from tests.cluster.faulty_proxy import Fault, FaultyProxy

RANGE_M = (0.1, 10.0)


def shard_all(config: ShardConfig, store: ObjectStore, scratch: Path) -> ShardSet:
    """Shard a data set without Ray."""
    reader = make_reader(config.format, config.root, **config.options)
    jobs = write_jobs(reader, scratch / "jobs", config.samples_per_shard, config.max_frames)
    writer = ShardWriter(store, reader, config.fill, config.max_depth_m)
    splits: dict[str, list] = {}
    for job in jobs.jobs:
        result = writer.write(job.split, jobs.frames(job))
        splits.setdefault(job.split, []).append(result.shard)
    return ShardSet(
        dataset="rooms",
        min_depth_m=RANGE_M[0],
        max_depth_m=RANGE_M[1],
        rendered=False,
        ground_truth="nyu_depths",
        dense=True,
        measured_m=(0.9, 5.0, 9.6),
        splits={
            name: publish_manifest(store, make_manifest(name, RANGE_M, shards))
            for name, shards in splits.items()
        },
    )


@pytest.fixture
def config(root: Path) -> ShardConfig:
    options = {"val_fraction": 0.0}
    return ShardConfig(
        format="nyu_densedepth", root=str(root), samples_per_shard=4, options=options
    )


@pytest.fixture
def shards(config: ShardConfig, store: ObjectStore, tmp_path: Path) -> ShardSet:
    return shard_all(config, store, tmp_path)


def mend(config, store, shards) -> list[Repair]:
    damages = check(store, shards)
    return repair(store, shards, damages, partial(raw_data, config, store))


def keys_of(store: ObjectStore, shards: ShardSet, number: int = 0) -> list[str]:
    index = json.loads(store.get_bytes(shards.splits["train"].indexes[number].key))
    return index["keys"]


def change(store: ObjectStore, key: str, how: Callable[[bytes], bytes]) -> None:
    store.put_bytes(key, how(store.get_bytes(key)))


def flip(data: bytes, place: int) -> bytes:
    changed = bytearray(data)
    changed[place] ^= 16
    return bytes(changed)


def offset(store: ObjectStore, shards: ShardSet, sample: int) -> int:
    index = json.loads(store.get_bytes(shards.splits["train"].indexes[0].key))
    return index["offsets"][sample]


def only(damages: list[Damage]) -> Damage:
    assert len(damages) == 1, [str(d) for d in damages]
    return damages[0]


def test_a_whole_data_set_has_no_damage_and_every_byte_is_read(store, shards):
    read: list[int] = []
    assert check(store, shards, read.append) == []
    assert sum(read) == num_bytes(shards)


def test_a_flipped_bit_names_shard_and_sample_and_is_mended(config, store, shards):
    tar = shards.splits["train"].shards[0]
    before = store.get_bytes(tar.key)
    change(store, tar.key, lambda data: flip(data, offset(store, shards, 2) + 700))
    damage = only(check(store, shards))
    assert (damage.split, damage.what, damage.problem) == ("train", "shard", "damaged")
    assert damage.samples == (keys_of(store, shards)[2],)
    assert tar.key in str(damage)
    assert keys_of(store, shards)[2] in str(damage)
    (done,) = mend(config, store, shards)
    assert not done.problem
    assert store.get_bytes(tar.key) == before
    assert check(store, shards) == []


@pytest.mark.parametrize(
    ("extra_bytes", "num_gone", "where"), [(0, 2, "between two samples"), (9, 2, "within a sample")]
)
def test_a_cut_tar_is_named_with_what_is_gone(
    config, store, shards, extra_bytes: int, num_gone: int, where: str
):
    tar, size_bytes = shards.splits["train"].shards[0], offset(store, shards, 2) + extra_bytes
    change(store, tar.key, lambda data: data[:size_bytes])
    damage = only(check(store, shards))
    assert damage.problem == "truncated"
    assert f"cut {where}; {num_gone} of 4 samples are gone" in damage.detail
    assert list(damage.samples) == keys_of(store, shards)[2:]
    assert not only(mend(config, store, shards)).problem
    assert check(store, shards) == []


def test_a_tar_without_its_end_is_named(store, shards):
    change(store, shards.splits["train"].shards[0].key, lambda data: data[:-512])
    damage = only(check(store, shards))
    assert damage.problem == "truncated"
    assert "cut after its last sample; 0 of 4 samples are gone" in damage.detail


@pytest.mark.s3
def test_a_line_that_often_breaks_is_no_damage(
    config, s3_store, proxy: FaultyProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(s3_transfer, "PAUSES_S", (0.01,))
    shards = shard_all(config, s3_store, tmp_path)
    proxy.spoiled_paths = r"\.tar$"
    proxy.spoil("GET", *6 * [Fault.CUT_BODY])
    assert check(s3_store, shards) == []


@pytest.mark.s3
def test_a_full_disk_is_no_damage_and_is_named(
    config, s3_store, tmp_path: Path, mounted, monkeypatch: pytest.MonkeyPatch
):
    shards = shard_all(config, s3_store, tmp_path)
    folder = mounted("size=4k")
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    with pytest.raises(NoSpaceLeft, match=f"^{folder}/check-.*: No space left"):
        check(s3_store, shards)
    assert list(folder.iterdir()) == []


def test_missing_objects_are_named_and_made_anew(config, store, shards):
    split = shards.splits["train"]
    for ref in (split.manifest, split.shards[1], split.indexes[1], split.indexes[0]):
        store.delete(ref.key)
    found = {(d.what, d.problem, d.ref) for d in check(store, shards)}
    assert found == {
        ("manifest", "missing", split.manifest),
        ("shard", "missing", split.shards[1]),
        ("index", "missing", split.indexes[1]),
        ("index", "missing", split.indexes[0]),
    }
    done = mend(config, store, shards)
    assert [d.problem for d in done] == [""] * 4
    assert check(store, shards) == []


def test_a_stale_manifest_is_told_from_a_damaged_one(config, store, shards):
    split = shards.splits["train"]
    other = make_manifest("train", RANGE_M, entries_of(split)[:1])
    store.put_bytes(split.manifest.key, other.to_bytes())
    damage = only(check(store, shards))
    assert damage.problem == "stale"
    assert "a manifest of 4 samples stands there; this data set has 8" in damage.detail
    assert "1 of its 2 shards are not in it" in damage.detail
    assert not only(mend(config, store, shards)).problem
    store.put_bytes(split.manifest.key, b'{"format": "depth-shards/1"}')
    assert only(check(store, shards)).problem == "damaged"
    assert not only(mend(config, store, shards)).problem
    assert check(store, shards) == []


def test_an_index_that_belongs_to_another_tar_is_told(store, shards):
    split = shards.splits["train"]
    swapped = split.model_copy(update={"indexes": split.indexes[::-1]})
    wrong = shards.model_copy(update={"splits": {"train": swapped}})
    manifest, *tars = check(store, wrong)
    assert (manifest.what, manifest.problem) == ("manifest", "stale")
    assert [(d.what, d.problem, d.ref) for d in tars] == [
        ("shard", "stale", tar) for tar in split.shards
    ]
    assert "its index does not fit: 4 samples are not where it says" in tars[0].detail
    assert list(tars[0].samples) == keys_of(store, shards, 1)


def test_an_index_with_another_count_is_told(store, shards):
    split = shards.splits["train"].model_copy(update={"num_samples_per_shard": (5, 4)})
    wrong = shards.model_copy(update={"splits": {"train": split}})
    manifest, index = check(store, wrong)
    assert (manifest.what, manifest.problem) == ("manifest", "stale")
    assert (index.what, index.problem, index.ref) == ("index", "stale", split.indexes[0])
    assert index.detail == "4 samples where the manifest says 5"


def test_a_damaged_index_is_made_of_its_tar(config, store, shards):
    index = shards.splits["train"].indexes[0]
    change(store, index.key, lambda data: data.replace(b"1", b"2", 1))
    damage = only(check(store, shards))
    assert (damage.what, damage.problem) == ("index", "damaged")
    assert not only(mend(config, store, shards)).problem
    assert check(store, shards) == []


def test_what_the_raw_data_lack_cannot_be_made_anew_and_is_told(config, store, shards, root):
    split = shards.splits["train"]
    gone = keys_of(store, shards, 0)[1]
    other = keys_of(store, shards, 1)[0]
    for tar in split.shards:
        store.delete(tar.key)
    raw = root / "data/nyu2_train/room_0001_out"
    lines = (root / "data/nyu2_train.csv").read_text().splitlines(keepends=True)
    kept = [line for line in lines if not line.startswith(f"data/{to_path(gone)}.")]
    assert len(kept) == len(lines) - 1
    (root / "data/nyu2_train.csv").write_text("".join(kept))
    picture = raw / f"{other.rpartition('-')[2]}.jpg"
    picture.write_bytes(picture.read_bytes()[:100])
    problems = {one.damage.ref: one.problem for one in mend(config, store, shards)}
    assert "1 of its 4 frames are not in the raw data any more" in problems[split.shards[0]]
    assert gone in problems[split.shards[0]]
    assert "1 raw frames cannot be used now" in problems[split.shards[1]]
    assert picture.name in problems[split.shards[1]]
    assert {d.ref for d in check(store, shards)} == set(split.shards), "nothing false was stored"


def to_path(key: str) -> str:
    folder, room, number = key.split("-")
    return f"{folder}/{room}/{number}"


def test_changed_raw_frames_do_not_replace_a_shard(config, store, shards, root):
    tar = shards.splits["train"].shards[0]
    store.delete(tar.key)
    number = keys_of(store, shards)[0].rpartition("-")[2]
    place = root / "data/nyu2_train/room_0001_out"
    others = [p for p in place.glob("*.jpg") if p.stem != number]
    (place / f"{number}.jpg").write_bytes(others[0].read_bytes())
    (done,) = mend(config, store, shards)
    assert "the raw frames, the code or a library are not those of the time" in done.problem
    assert store.stat(tar.key) is None


def test_an_index_that_is_made_otherwise_today_is_not_stored(config, store, shards, monkeypatch):
    split = shards.splits["train"]
    for ref in (split.shards[0], split.indexes[0]):
        store.delete(ref.key)
    damages = check(store, shards)
    monkeypatch.setattr(shard_index, "FORMAT", "depth-shards/9")
    tar, index = repair(store, shards, damages, partial(raw_data, config, store))
    assert (tar.damage.ref, tar.problem) == (split.shards[0], "")
    assert "its tar gives another index" in index.problem
    assert store.stat(split.indexes[0].key) is None, "something false was stored"


def test_a_shard_and_its_index_gone_without_a_note_cannot_be_made_anew(config, store, shards):
    split = shards.splits["train"]
    for ref in (split.shards[0], split.indexes[0]):
        store.delete(ref.key)
    for key in list(store.list_keys("shard_results/")):
        store.delete(key)
    problems = [one.problem for one in mend(config, store, shards)]
    assert "nothing else says which frames it held" in problems[0]
    assert "there is no such object" in problems[1]
