"""Tests of stages/stored_shards.py: reads through the node's cache, faults included."""

import hashlib
import pickle
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cluster import s3_transfer
from cluster.cache import NodeCache
from cluster.errors import NoSpaceLeft, ObjectCorrupt, ObjectMissing, StoreUnavailable
from cluster.local_store import LocalStore
from cluster.storage import ObjectStore, open_store
from densedepth.data.batch_plans import TrainBatches
from densedepth.data.depth_codec import pack_depth
from densedepth.data.encode import encode_image_png
from densedepth.data.loader import BatchLoader
from densedepth.data.shard_source import ShardList
from densedepth.data.shards import write_shard
from densedepth.errors import CorruptShardError
from densedepth.sample import EncodedSample
from stages.artifacts import ShardSplit
from stages.manifest import make_manifest, publish_manifest
from stages.shard_writer import entry_of
from stages.stored_shards import StoredShards, stored_shards
from tests.cluster.faulty_proxy import READ_FAULTS, Fault, FaultyProxy
from tests.cluster.objects import rot
from tests.cluster.seaweedfs import seaweedfs_server

NUM_SHARDS, NUM_PER_SHARD = 6, 4


def sample(number: int) -> EncodedSample:
    rng = np.random.default_rng(number)
    image = rng.integers(0, 256, (32, 64, 3), dtype=np.uint8)
    depth = pack_depth(rng.integers(1, 9999, (32, 64), dtype=np.uint16))
    return EncodedSample(f"s{number:02}", encode_image_png(image), "png", depth, 1e-3)


def publish(store: ObjectStore, folder: Path) -> ShardSplit:
    """Store a split of a few shards."""
    entries = []
    for shard in range(NUM_SHARDS):
        first = shard * NUM_PER_SHARD
        path = folder / "shard.tar"
        index = write_shard(path, [sample(first + n) for n in range(NUM_PER_SHARD)])
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        entry = entry_of(digest, path.stat().st_size, index)
        store.put_file(entry.key, path)
        store.put_bytes(entry.index.key, index.to_bytes())
        entries.append(entry)
    return publish_manifest(store, make_manifest("train", (0.1, 10.0), entries))


def an_epoch(shards: ShardList, processes: int = 0) -> BatchLoader:
    batches = TrainBatches(
        shards,
        seed=1,
        epoch=0,
        rank=0,
        world_size=1,
        global_batch_size=2,
        input_size_px=(32, 64),
    )
    return BatchLoader(batches, loader_processes=processes)


def seen(batches: Any) -> list[tuple[tuple[str, ...], str]]:
    """Return the keys of every batch and a digest of its pixels."""
    found = []
    for batch in batches:
        digest = hashlib.sha256(np.ascontiguousarray(batch.image.numpy()).tobytes())
        digest.update(batch.depth_units.numpy().tobytes())
        found.append((batch.keys, digest.hexdigest()))
    return found


@pytest.fixture(scope="module")
def expected(tmp_path_factory) -> list[tuple[tuple[str, ...], str]]:
    """What an epoch shows without faults, out of a folder."""
    folder = tmp_path_factory.mktemp("expected")
    local = LocalStore(folder / "store")
    return seen(an_epoch(stored_shards(local, publish(local, folder), folder)))


@pytest.mark.parametrize("processes", [0, 2])
def test_both_kinds_of_store_show_the_same_epoch(
    store: ObjectStore,
    tmp_path: Path,
    processes: int,
    expected,
):
    shards = stored_shards(store, publish(store, tmp_path), tmp_path / "scratch")
    shards = pickle.loads(pickle.dumps(shards))
    assert seen(an_epoch(shards, processes)) == expected
    assert len(expected) == NUM_SHARDS * NUM_PER_SHARD // 2
    assert len({key for keys, _ in expected for key in keys}) == NUM_SHARDS * NUM_PER_SHARD


def test_nothing_is_fetched_before_it_is_read(s3_store: ObjectStore, tmp_path: Path):
    split = publish(s3_store, tmp_path)
    shards = stored_shards(s3_store, split, tmp_path / "scratch")
    assert not (tmp_path / "scratch").exists()
    with shards.open_shard(2).file:
        pass
    kept = {p.name for p in (tmp_path / "scratch/cache").iterdir() if len(p.name) == 64}
    assert kept == {split.shards[2].sha256, split.indexes[2].sha256}


@pytest.mark.s3
def test_shards_that_are_announced_come_with_their_indexes(s3_store: ObjectStore, tmp_path: Path):
    split = publish(s3_store, tmp_path)
    stored_shards(s3_store, split, tmp_path / "scratch").source.prefetch([4, 1])
    wanted = {refs[n].sha256 for refs in (split.shards, split.indexes) for n in (4, 1)}
    deadline, kept = time.monotonic() + 20, set()
    while kept != wanted:
        assert time.monotonic() < deadline, "they did not come"
        time.sleep(0.02)
        kept = {p.name for p in (tmp_path / "scratch").glob("cache/*") if len(p.name) == 64}


@pytest.mark.parametrize("processes", [0, 1])
@pytest.mark.parametrize("fault", READ_FAULTS)
@pytest.mark.s3
def test_a_faulty_line_does_not_change_what_is_seen(
    s3_store: ObjectStore,
    proxy: FaultyProxy,
    tmp_path: Path,
    fault: Fault,
    processes: int,
    expected,
):
    shards = stored_shards(s3_store, publish(s3_store, tmp_path), tmp_path / "scratch")
    proxy.spoil("GET", *6 * [fault])
    assert seen(an_epoch(shards, processes)) == expected
    assert proxy.all_faults_happened


@pytest.mark.s3
def test_an_epoch_goes_on_when_the_server_was_killed_and_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, expected
):
    with seaweedfs_server(tmp_path / "seaweedfs") as server:
        for name, value in server.environment().items():
            monkeypatch.setenv(name, value)
        far = open_store(f"s3://{server.make_bucket('tests')}/data")
        split = publish(far, tmp_path)
        largest = max(ref.size_bytes for ref in split.shards)
        # So small that nothing is brought far ahead of use.
        cache = NodeCache(far, tmp_path / "cache", largest + 5000)
        source = StoredShards(cache, split.shards, split.indexes)
        batches = iter(an_epoch(ShardList(split.num_samples_per_shard, source)))
        first = seen([next(batches)])
        server.kill()
        with ThreadPoolExecutor(1) as pool:
            rest = pool.submit(seen, batches)
            time.sleep(2)
            assert not rest.done()
            server.start()
            assert first + rest.result(120) == expected


@pytest.mark.parametrize("what", ["shards", "indexes"])
@pytest.mark.s3
def test_a_copy_that_rotted_on_the_nodes_disk_is_brought_again(
    s3_store: ObjectStore, tmp_path: Path, what: str, expected
):
    split = publish(s3_store, tmp_path)
    shards = stored_shards(s3_store, split, tmp_path / "scratch")
    seen(an_epoch(shards))
    ref = getattr(split, what)[3]
    rot(tmp_path / "scratch/cache" / ref.sha256, ref.size_bytes // 2)
    assert seen(an_epoch(shards)) == expected
    assert hashlib.sha256((tmp_path / "scratch/cache" / ref.sha256).read_bytes()).hexdigest() == (
        ref.sha256
    )


def test_a_folders_own_shard_that_rotted_after_its_check_is_named(tmp_path: Path):
    local = LocalStore(tmp_path / "store")
    split = publish(local, tmp_path)
    shards = stored_shards(local, split, tmp_path / "scratch")
    seen(an_epoch(shards))
    rot(local.root / split.shards[3].key, 5000)
    with pytest.raises(ObjectCorrupt, match=rf"{split.shards[3].sha256}\.tar: its sha256 is"):
        seen(an_epoch(shards))


def gone(store: ObjectStore, split: ShardSplit) -> None:
    store.delete(split.shards[3].key)


def cut(store: ObjectStore, split: ShardSplit) -> None:
    store.put_bytes(split.shards[3].key, store.get_bytes(split.shards[3].key)[:-512])


def flipped(store: ObjectStore, split: ShardSplit) -> None:
    data = bytearray(store.get_bytes(split.shards[3].key))
    data[5000] ^= 4
    store.put_bytes(split.shards[3].key, bytes(data))


def index_flipped(store: ObjectStore, split: ShardSplit) -> None:
    data = store.get_bytes(split.indexes[3].key)
    store.put_bytes(split.indexes[3].key, data.replace(b"0", b"1", 1))


@pytest.mark.parametrize("processes", [0, 1])
@pytest.mark.parametrize(
    ("damage", "kind", "reason"),
    [
        (gone, ObjectMissing, "there is no such object"),
        (cut, ObjectCorrupt, r"it has \d+ bytes instead of"),
        (flipped, ObjectCorrupt, "its sha256 is"),
        (index_flipped, ObjectCorrupt, "its sha256 is"),
    ],
)
def test_damage_in_the_store_ends_the_epoch_with_the_objects_name(
    store: ObjectStore,
    tmp_path: Path,
    damage,
    kind: type[Exception],
    reason: str,
    processes: int,
):
    split = publish(store, tmp_path)
    damage(store, split)
    shards = stored_shards(store, split, tmp_path / "scratch")
    with pytest.raises(kind, match=rf"{split.shards[3].sha256}\.tar.*: {reason}") as caught:
        seen(an_epoch(shards, processes))
    assert "Traceback" not in str(caught.value)


@pytest.mark.s3
def test_a_store_that_stays_away_ends_the_epoch_with_its_address(
    s3_store: ObjectStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    split = publish(s3_store, tmp_path)
    monkeypatch.setattr(s3_transfer, "PAUSES_S", (0.01,))
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(StoreUnavailable, match=r"Could not connect.*Check that the store runs"):
        seen(an_epoch(stored_shards(s3_store, split, tmp_path / "scratch")))


@pytest.mark.s3
def test_the_nodes_limit_is_that_of_its_environment(
    s3_store: ObjectStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    split = publish(s3_store, tmp_path)
    monkeypatch.setenv("DEPTH_CACHE_GB", "0.000005")
    with pytest.raises(NoSpaceLeft, match=r"above the limit of 5000. Raise DEPTH_CACHE_GB"):
        seen(an_epoch(stored_shards(s3_store, split, tmp_path / "scratch")))


def test_an_index_of_another_version_is_refused(tmp_path: Path):
    local = LocalStore(tmp_path / "store")
    split = publish(local, tmp_path)
    other = local.put_bytes("other.json", b'{"format": "depth-shards/9"}')
    source = StoredShards(NodeCache(local, tmp_path / "cache"), split.shards[:1], (other,))
    with pytest.raises(CorruptShardError, match=r"other.json is no index .*'depth-shards/9'"):
        source.open_shard(0)
