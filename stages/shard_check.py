"""What is wrong with a stored data set: every shard, index and sample against its digest."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import ValidationError

from cluster.errors import ObjectCorrupt, ObjectMissing, from_os_error
from cluster.storage import ObjectRef, ObjectStore
from densedepth.errors import CorruptShardError
from stages.artifacts import ShardSet, ShardSplit
from stages.manifest import Manifest, ShardEntry, entries_of, make_manifest

if TYPE_CHECKING:
    from densedepth.data.shard_index import ShardIndex

Progress = Callable[[int], None]
"""Told the bytes that were read since the last call."""


@dataclass(frozen=True)
class Damage:
    """One object that is not what it should be.

    Attributes:
        split: the split it belongs to.
        what: which kind of object.
        problem: what is wrong with it; ``stale`` is another, whole manifest in the right one's
            place.
        ref: what should be there.
        detail: more words.
        samples: keys of the samples that cannot be read, where that is known.
    """

    split: str
    what: Literal["manifest", "shard", "index"]
    problem: Literal["missing", "truncated", "damaged", "stale"]
    ref: ObjectRef
    detail: str = ""
    samples: tuple[str, ...] = ()

    def __str__(self) -> str:
        some = ", ".join(self.samples[:5]) + (" ..." if len(self.samples) > 5 else "")
        parts = [self.detail, f"samples: {some}" if some else ""]
        more = "; ".join(part for part in parts if part)
        text = f"{self.split}: {self.problem} {self.what} {self.ref.key}"
        return f"{text}: {more}" if more else text


def num_bytes(shards: ShardSet) -> int:
    """How many bytes a check reads."""
    return sum(ref.size_bytes for ref in shards.objects())


def check(
    store: ObjectStore, shards: ShardSet, progress: Progress = lambda _: None
) -> list[Damage]:
    """Read every object of a data set and compare it with its digest, sample by sample.

    Raises:
        StorageError: the store cannot be read.
    """
    found: list[Damage] = []
    for name, split in shards.splits.items():
        range_m = (shards.min_depth_m, shards.max_depth_m)
        found += _check_manifest(store, name, split, range_m)
        progress(split.manifest.size_bytes)
        for entry in entries_of(split):
            index, damage = _check_index(store, name, entry)
            if damage is not None:
                found.append(damage)
            damage = _check_tar(store, name, entry, index)
            if damage is not None:
                found.append(damage)
            progress(entry.size_bytes + entry.index.size_bytes)
    return found


@contextmanager
def as_file(store: ObjectStore, ref: ObjectRef) -> Iterator[Path]:
    """Give an object's bytes as a file, whatever they are.

    Raises:
        ObjectMissing: no object has this key.
        NoSpaceLeft: the disk for it is full.
    """
    info, own = store.stat(ref.key), store.own_file(ref.key)
    if info is None:
        raise ObjectMissing(store.url_of(ref.key), "there is no such object")
    if own is not None:
        yield own
        return
    with tempfile.TemporaryDirectory(prefix="check-") as folder:
        path = Path(folder) / "object"
        try:
            with path.open("w+b", buffering=0) as file, suppress(ObjectCorrupt):
                store.download(ref.model_copy(update={"size_bytes": info.size_bytes}), file)
        except OSError as error:
            raise from_os_error(error, str(path), writing=True) from error
        yield path


def sha256_of(path: Path) -> str:
    """Digest of a file in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_manifest(
    store: ObjectStore, name: str, split: ShardSplit, range_m: tuple[float, float]
) -> list[Damage]:
    ref = split.manifest
    try:
        data = store.get_bytes(ref.key)
    except ObjectMissing:
        return [Damage(name, "manifest", "missing", ref)]
    if hashlib.sha256(data).hexdigest() != ref.sha256:
        try:
            other = Manifest.model_validate_json(data)
        except ValidationError:
            detail = f"{len(data)} bytes that are no manifest of this version"
            return [Damage(name, "manifest", "damaged", ref, detail)]
        ours = {entry.sha256 for entry in entries_of(split)}
        theirs = {entry.sha256 for entry in other.shards}
        detail = (
            f"a manifest of {other.num_samples} samples stands there; this data set has "
            f"{split.num_samples}, and {len(ours - theirs)} of its {len(ours)} shards are not in it"
        )
        return [Damage(name, "manifest", "stale", ref, detail)]
    if data != make_manifest(name, range_m, entries_of(split)).to_bytes():
        detail = "it does not list the shards of this data set's record"
        return [Damage(name, "manifest", "stale", ref, detail)]
    return []


def _check_index(
    store: ObjectStore, name: str, entry: ShardEntry
) -> tuple[ShardIndex | None, Damage | None]:
    from densedepth.data.shard_index import ShardIndex

    ref = entry.index
    try:
        data = store.get_bytes(ref.key)
    except ObjectMissing:
        return None, Damage(name, "index", "missing", ref)
    if hashlib.sha256(data).hexdigest() != ref.sha256:
        problem: Literal["truncated", "damaged"] = (
            "truncated" if len(data) < ref.size_bytes else "damaged"
        )
        return None, Damage(name, "index", problem, ref, f"{len(data)} of {ref.size_bytes} bytes")
    try:
        index = ShardIndex.from_bytes(data, ref.key)
    except CorruptShardError as error:
        return None, Damage(name, "index", "stale", ref, str(error))
    if len(index) != entry.num_samples:
        detail = f"{len(index)} samples where the manifest says {entry.num_samples}"
        return None, Damage(name, "index", "stale", ref, detail)
    return index, None


def _check_tar(
    store: ObjectStore, name: str, entry: ShardEntry, index: ShardIndex | None
) -> Damage | None:
    ref = ObjectRef(key=entry.key, size_bytes=entry.size_bytes, sha256=entry.sha256)
    try:
        with as_file(store, ref) as path:
            size_bytes, is_whole = path.stat().st_size, sha256_of(path) == ref.sha256
            bad = _bad_samples(path, index, ref.key)
    except ObjectMissing:
        return Damage(name, "shard", "missing", ref, f"{entry.num_samples} samples")
    if size_bytes < ref.size_bytes:
        detail = f"{size_bytes} of {ref.size_bytes} bytes"
        if index is not None:
            starts = {e.offset for e in index.entries}
            where = "between two samples" if size_bytes in starts else "within a sample"
            where = where if bad else "after its last sample"
            detail += f", cut {where}; {len(bad)} of {len(index)} samples are gone"
        return Damage(name, "shard", "truncated", ref, detail, bad)
    if not is_whole:
        detail = "its bytes changed"
        if size_bytes != ref.size_bytes:
            detail += f" and are {size_bytes} instead of {ref.size_bytes}"
        if index is not None:
            detail += f"; {len(bad)} of {len(index)} samples cannot be read"
        return Damage(name, "shard", "damaged", ref, detail, bad)
    if bad:
        detail = f"its index does not fit: {len(bad)} samples are not where it says"
        return Damage(name, "shard", "stale", ref, detail, bad)
    return None


def _bad_samples(path: Path, index: ShardIndex | None, name: str) -> tuple[str, ...]:
    """Return the keys of the samples whose bytes are not those that were written."""
    from densedepth.data.shards import read_sample

    bad = []
    with path.open("rb", buffering=0) as file:
        for entry in index.entries if index is not None else ():
            try:
                read_sample(file, entry, name)
            except CorruptShardError:
                bad.append(entry.key)
    return tuple(bad)
