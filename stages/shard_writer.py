"""One shard's work: read its frames, check, fill, pack and store them, unless that was done before.

Tar and index lie under the tar's digest: equal content is one object, and is not uploaded again.
What became of a shard's frames is noted under a digest of all that decides it (the frames and
their files' marks, the code, the settings): a run that was killed, and any later one, finds it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import importlib.util
import json
import tempfile
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cluster.errors import ObjectMissing, from_os_error
from cluster.s3_transfer import patiently
from cluster.storage import ObjectRef, ObjectStore
from densedepth.errors import DataError
from stages.artifacts import SkippedFrame
from stages.manifest import ShardEntry
from stages.shard_jobs import file_mark

if TYPE_CHECKING:
    from densedepth.sample import EncodedSample, Frame, Reader

LIBRARIES = ("numpy", "scipy", "pillow", "simplejpeg", "pcodec", "h5py")
"""Distributions that decide a shard's bytes."""
FRAMES_AHEAD = 2
"""Frames that each thread reads ahead of the tar."""


class ShardResult(BaseModel):
    """What became of a shard's frames.

    Attributes:
        shard: tar, index and count; None where no frame could be used.
        is_dense: whether every pixel of every frame has a depth.
        skipped: frames that could not be used.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    shard: ShardEntry | None = Field(description="tar, index and count")
    is_dense: bool
    skipped: tuple[SkippedFrame, ...] = ()


@dataclass(frozen=True)
class ShardWriter:
    """How a data set's frames become shards; a value that Ray carries to the tasks.

    Attributes:
        store: where shards go.
        reader: the raw data set.
        fill: ``colorization`` where holes of training depth are filled.
        max_depth_m: farthest depth that the network is asked for.
    """

    store: ObjectStore
    reader: Reader
    fill: str = "none"
    max_depth_m: float = 10.0

    def write(self, split: str, frames: Sequence[Frame], num_threads: int = 1) -> ShardResult:
        """Store a shard of these frames, or find that it is stored; bad frames are left out.

        Raises:
            StorageError: it cannot be stored.
        """
        key = f"shard_results/{self.digest(split, frames)}.json"
        known = patiently(lambda: self._known(key))
        if known is not None:
            return known
        with tempfile.TemporaryDirectory(prefix="shard-") as scratch:
            result = self._write_anew(Path(scratch), split, frames, num_threads)
        self.store.put_bytes(key, result.model_dump_json().encode())
        return result

    def digest(self, split: str, frames: Sequence[Frame]) -> str:
        """Return a digest of all that decides what these frames become."""
        fills = self.fill != "none" and split == "train"
        parts = {
            "code": code_digest(),
            "reader": repr(self.reader),
            "fill": [self.fill, self.max_depth_m] if fills else None,
            "split": split,
            "frames": [
                [repr(frame), file_mark(frame.image_path), file_mark(frame.depth_path)]
                for frame in frames
            ],
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def make_tar(
        self, path: Path, split: str, frames: Sequence[Frame], num_threads: int = 1
    ) -> tuple[Any, bool, tuple[SkippedFrame, ...]]:
        """Write frames to a tar.

        Returns:
            The tar's ``ShardIndex``; whether every pixel has a depth; what was left out.
        """
        from densedepth.data.shards import write_shard

        skipped: list[SkippedFrame] = []
        num_with_holes = 0

        def usable() -> Iterator[EncodedSample]:
            nonlocal num_with_holes
            for frame, sample in self._read_ahead(split, frames, num_threads):
                if isinstance(sample, Exception):
                    reason = str(sample)
                    skipped.append(SkippedFrame(split=split, frame=frame.key, reason=reason))
                    continue
                num_with_holes += sample.depth.has_holes
                yield sample

        try:
            index = write_shard(path, usable())
        except OSError as error:
            raise from_os_error(error, str(path), writing=True) from error
        return index, num_with_holes == 0, tuple(skipped)

    def _known(self, key: str) -> ShardResult | None:
        """Return what an earlier run noted, if its objects are still there and whole."""
        try:
            result = ShardResult.model_validate_json(self.store.get_bytes(key))
        except (ObjectMissing, ValidationError):
            return None
        shard = result.shard
        is_whole = shard is None or (self.store.has(shard) and self.store.has(shard.index))
        return result if is_whole else None

    def _has(self, ref: ObjectRef) -> bool:
        """Ask the store, for as long as an upload is tried: a restart of it costs no shard."""
        return patiently(lambda: self.store.has(ref))

    def _write_anew(
        self, scratch: Path, split: str, frames: Sequence[Frame], num_threads: int
    ) -> ShardResult:
        path = scratch / "shard.tar"
        index, is_dense, skipped = self.make_tar(path, split, frames, num_threads)
        if not len(index):
            return ShardResult(shard=None, is_dense=True, skipped=skipped)
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        shard = entry_of(digest, path.stat().st_size, index)
        if not self._has(shard):
            self.store.put_file(shard.key, path)
        if not self._has(shard.index):
            self.store.put_bytes(shard.index.key, index.to_bytes())
        return ShardResult(shard=shard, is_dense=is_dense, skipped=skipped)

    def _read_ahead(
        self, split: str, frames: Sequence[Frame], num_threads: int
    ) -> Iterator[tuple[Frame, EncodedSample | Exception]]:
        """Yield frames as they are read, in order, a few of them ahead of use."""
        rest = iter(frames)
        reading: deque[tuple[Frame, Future[EncodedSample]]] = deque()
        with ThreadPoolExecutor(num_threads) as pool:
            while True:
                while len(reading) < FRAMES_AHEAD * num_threads:
                    frame = next(rest, None)
                    if frame is None:
                        break
                    reading.append((frame, pool.submit(self._read, split, frame)))
                if not reading:
                    return
                frame, future = reading.popleft()
                try:
                    yield frame, future.result()
                except DataError as error:  # of the frame, or of what it needs beside it
                    yield frame, error

    def _read(self, split: str, frame: Frame) -> EncodedSample:
        sample = self.reader.read(frame)
        if self.fill == "colorization" and split == "train":
            return fill_holes(sample, self.max_depth_m)
        return sample


@dataclass(frozen=True)
class RawData:
    """Where shards are made from.

    Attributes:
        writer: reader and settings, as they were.
        samples_per_shard: as it was.
        max_frames: as it was.
    """

    writer: ShardWriter
    samples_per_shard: int
    max_frames: int | None


def entry_of(digest: str, size_bytes: int, index: Any) -> ShardEntry:
    """Name a tar and its index by the tar's digest."""
    key = f"shards/{digest[:2]}/{digest}.tar"
    index_ref = ObjectRef.of(f"{key}.index.json", index.to_bytes())
    return ShardEntry(
        key=key, size_bytes=size_bytes, sha256=digest, index=index_ref, num_samples=len(index)
    )


def fill_holes(sample: EncodedSample, max_depth_m: float) -> EncodedSample:
    """Fill a sample's holes by colorization; steps are fine enough for the filled values."""
    from densedepth.data.colorization import fill_depth
    from densedepth.data.depth_codec import pack_depth
    from densedepth.data.encode import decode, quantise_depth

    arrays = decode(sample)
    unit_m = sample.depth_unit_m
    if sample.depth.bits == 8:  # steps of centimetres are too coarse for a smooth fill
        unit_m = 1 / 256 if max_depth_m > 60 else 1e-3
    units = quantise_depth(fill_depth(arrays.image, arrays.depth_m), unit_m, sample.key)
    return dataclasses.replace(
        sample,
        depth=pack_depth(units),
        depth_unit_m=unit_m,
        info={**sample.info, "filled": "colorization"},
    )


@cache
def code_digest() -> str:
    """Return a digest of the code and the libraries that decide a shard's bytes."""
    digest = hashlib.sha256()
    package = importlib.util.find_spec("densedepth")
    assert package is not None
    assert package.origin is not None
    root = Path(package.origin).parent
    # Rendered scenes are raw data like any other: their files' marks count.
    code = [p for p in sorted((root / "data").glob("**/*.py")) if p.parent.name != "synthetic"]
    for path in [*code, root / "sample.py", Path(__file__)]:
        digest.update(path.read_bytes())
    for library in LIBRARIES:
        digest.update(f"{library} {importlib.metadata.version(library)}".encode())
    return digest.hexdigest()
