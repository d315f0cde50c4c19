"""Damaged objects of a data set made anew: byte for byte, from what is still there.

Manifests are made of the data set's record, indexes of their tars, tars of the raw frames. What
does not come out with the digest that it must have is not stored.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from cluster.errors import ObjectMissing, StorageError
from cluster.storage import ObjectRef, ObjectStore
from densedepth.errors import CorruptShardError, DataError
from stages.artifacts import ShardSet
from stages.manifest import ShardEntry, entries_of, make_manifest
from stages.shard_check import Damage, as_file, sha256_of
from stages.shard_jobs import JobList, write_jobs
from stages.shard_writer import RawData, ShardResult

if TYPE_CHECKING:
    from densedepth.sample import Frame

_ORDER = {"shard": 0, "index": 1, "manifest": 2}


@dataclass(frozen=True)
class Repair:
    """What became of one damaged object: ``problem`` is empty where it is whole again."""

    damage: Damage
    problem: str

    def __str__(self) -> str:
        what = f"{self.damage.split}: {self.damage.what} {self.damage.ref.key}"
        return f"{what}: cannot be made anew: {self.problem}" if self.problem else f"{what}: mended"


def repair(
    store: ObjectStore,
    shards: ShardSet,
    damages: Sequence[Damage],
    raw_data: Callable[[], RawData],
    progress: Callable[[int], None] = lambda _: None,
) -> list[Repair]:
    """Make damaged objects anew.

    Args:
        store: where they are.
        shards: the data set.
        damages: what ``check`` found.
        raw_data: asked where a tar is damaged.
        progress: told 1 after each object.
    """
    done: list[Repair] = []
    with tempfile.TemporaryDirectory(prefix="repair-") as folder:
        work = _Work(store, shards, raw_data, Path(folder))
        for damage in sorted(damages, key=lambda d: _ORDER[d.what]):
            try:
                if damage.what == "shard":
                    work.mend_tar(damage)
                elif damage.what == "index":
                    work.mend_index(damage)
                else:
                    work.mend_manifest(damage)
                problem = ""
            except (CorruptShardError, DataError, StorageError) as error:
                problem = str(error)
            done.append(Repair(damage, problem))
            progress(1)
    return done


@dataclass
class _Work:
    store: ObjectStore
    shards: ShardSet
    raw_data: Callable[[], RawData]
    folder: Path
    _raw: RawData | None = None
    _jobs: JobList | None = None
    _by_key: dict[str, dict[str, Frame]] = field(default_factory=dict)

    def mend_manifest(self, damage: Damage) -> None:
        split = self.shards.splits[damage.split]
        range_m = (self.shards.min_depth_m, self.shards.max_depth_m)
        data = make_manifest(damage.split, range_m, entries_of(split)).to_bytes()
        _require(hashlib.sha256(data).hexdigest(), damage.ref, "the record is of another version")
        self.store.put_bytes(damage.ref.key, data)

    def mend_index(self, damage: Damage) -> None:
        from densedepth.data.shards import index_shard

        entry = next(e for e in self._entries(damage) if e.index == damage.ref)
        with as_file(self.store, entry) as path:
            _require(sha256_of(path), entry, "its tar is damaged too")
            data = index_shard(path).to_bytes()
        _require(hashlib.sha256(data).hexdigest(), damage.ref, "its tar gives another index")
        self.store.put_bytes(damage.ref.key, data)

    def mend_tar(self, damage: Damage) -> None:
        entry = next(e for e in self._entries(damage) if e.key == damage.ref.key)
        if self._raw is None:
            self._raw = self.raw_data()
        frames: Sequence[Frame] | None = self._frames_by_index(entry, damage.split)
        if frames is None:
            frames = self._frames_by_note(entry, damage.split)
        path = self.folder / "shard.tar"
        _, _, skipped = self._raw.writer.make_tar(path, damage.split, frames)
        reason = "the raw frames, the code or a library are not those of the time"
        if skipped:
            first = skipped[0]
            reason = f"{len(skipped)} raw frames cannot be used now; {first.frame}: {first.reason}"
        _require(sha256_of(path), damage.ref, reason)
        self.store.put_file(damage.ref.key, path)

    def _entries(self, damage: Damage) -> tuple[ShardEntry, ...]:
        return entries_of(self.shards.splits[damage.split])

    def _frames_by_index(self, entry: ShardEntry, split: str) -> Sequence[Frame] | None:
        """Return the frames whose keys the tar's index names; None where it cannot be read."""
        from densedepth.data.shard_index import ShardIndex

        if not self.store.has(entry.index):
            return None
        index = ShardIndex.from_bytes(self.store.get_bytes(entry.index.key), entry.index.key)
        known = self._listed(split)
        gone = [e.key for e in index.entries if e.key not in known]
        if gone:
            raise DataError(
                f"{len(gone)} of its {len(index)} frames are not in the raw data any more, "
                f"{gone[0]} first"
            )
        return [known[e.key] for e in index.entries]

    def _frames_by_note(self, entry: ShardEntry, split: str) -> Sequence[Frame]:
        """Return the frames of which sharding noted that they gave this tar."""
        for frames in self._shards_of(split):
            assert self._raw is not None
            key = f"shard_results/{self._raw.writer.digest(split, frames)}.json"
            try:
                note = ShardResult.model_validate_json(self.store.get_bytes(key))
            except (ObjectMissing, ValidationError):
                continue
            if note.shard is not None and note.shard.sha256 == entry.sha256:
                bad = {skipped.frame for skipped in note.skipped}
                return [frame for frame in frames if frame.key not in bad]
        raise DataError("its index is damaged too, and nothing else says which frames it held")

    def _shards_of(self, split: str) -> Iterator[tuple[Frame, ...]]:
        assert self._raw is not None
        if self._jobs is None:
            raw, path = self._raw, self.folder / "frames"
            self._jobs = write_jobs(raw.writer.reader, path, raw.samples_per_shard, raw.max_frames)
        for job in self._jobs.jobs:
            if job.split == split:
                yield self._jobs.frames(job)

    def _listed(self, split: str) -> dict[str, Frame]:
        if split not in self._by_key:
            self._by_key[split] = {f.key: f for frames in self._shards_of(split) for f in frames}
        return self._by_key[split]


def _require(sha256: str, wanted: ObjectRef, reason: str) -> None:
    if sha256 != wanted.sha256:
        raise DataError(f"it would have the sha256 {sha256[:16]}..., not its own: {reason}")
