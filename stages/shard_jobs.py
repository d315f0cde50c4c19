"""Which frames become which shard: a list on disk, of which one shard's frames are read at a time.

A listing takes about 2 kB of memory per frame. It is made in a process of its own, which
writes each shard's frames to a file and ends; sharding itself then needs the same memory for a
hundred frames and for a hundred million.
"""

from __future__ import annotations

import hashlib
import itertools
import pickle
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from densedepth.errors import EmptySplitError
from stages.artifacts import SkippedFrame

if TYPE_CHECKING:
    from densedepth.sample import Frame, Listing, Reader, Split

SPLITS: tuple[Split, ...] = ("train", "val", "test")
MANY_FILES = 20_000
"""Files of a split above which folders are marked and not files."""


@dataclass(frozen=True)
class ShardJob:
    """A shard to be written.

    Attributes:
        split: the split it belongs to.
        num_frames: its frames.
        offset: where they stand in the list's file, bytes.
    """

    split: Split
    num_frames: int
    offset: int


@dataclass(frozen=True)
class JobList:
    """All shards to be written, in order.

    Attributes:
        path: the file with their frames; of this machine and this run alone.
        jobs: the shards.
        skipped: lines of the lists that gave no frame.
        num_listed: frames of the lists, also where fewer were asked for.
        bad_lines: those of ``skipped`` that promise what is not there.
    """

    path: Path
    jobs: tuple[ShardJob, ...]
    skipped: tuple[SkippedFrame, ...]
    num_listed: int
    bad_lines: tuple[SkippedFrame, ...]

    @property
    def num_frames(self) -> int:
        """Frames of all shards."""
        return sum(job.num_frames for job in self.jobs)

    def frames(self, job: ShardJob) -> tuple[Frame, ...]:
        """Read a shard's frames."""
        with self.path.open("rb") as file:
            file.seek(job.offset)
            frames: tuple[Frame, ...] = pickle.load(file)  # this run's own file
            return frames


def write_jobs(
    reader: Reader, path: Path, samples_per_shard: int, max_frames: int | None
) -> JobList:
    """List a data set and write down which frames become which shard.

    Args:
        reader: the data set.
        path: the file to write.
        samples_per_shard: frames of a shard; the last of a split has what is left.
        max_frames: frames of each split at most.

    Raises:
        DataError: the data set is missing or a split empty.
    """
    jobs: list[ShardJob] = []
    skipped: list[SkippedFrame] = []
    bad_lines: list[SkippedFrame] = []
    num_listed = 0
    with path.open("wb") as file:
        for split, listing in _listings(reader):
            for line in listing.skipped:
                skipped.append(SkippedFrame(split=split, frame=line.line, reason=line.reason))
                if line.is_bad:
                    bad_lines.append(skipped[-1])
            num_listed += len(listing.frames)
            for frames in _cut(selected(listing.frames, split, max_frames), samples_per_shard):
                jobs.append(ShardJob(split, len(frames), file.tell()))
                pickle.dump(frames, file)
    return JobList(path, tuple(jobs), tuple(skipped), num_listed, tuple(bad_lines))


def source_marks(reader: Reader, max_frames: int | None) -> dict[str, str]:
    """Say what sharding reads: file -> a mark that changes when it does.

    Above ``MANY_FILES`` there is one mark for each folder and split: plans and records stay small.
    """
    marks: dict[str, str] = {}
    folders: dict[str, tuple[int, Any]] = {}
    for split, listing in _listings(reader):
        frames = selected(listing.frames, split, max_frames)
        has_many = 2 * len(frames) > MANY_FILES
        for path in (path for f in frames for path in (f.image_path, f.depth_path)):
            if not has_many:
                marks[str(path)] = file_mark(path)
                continue
            key = f"{path.parent} ({split})"
            count, digest = folders.get(key, (0, hashlib.sha256()))
            digest.update(f"{path.name} {file_mark(path)}\n".encode())
            folders[key] = (count + 1, digest)
    for name, (count, digest) in folders.items():
        marks[name] = f"{count} files, {digest.hexdigest()[:32]}"
    return marks


def file_mark(path: Path) -> str:
    """Return what changes when a file does."""
    try:
        status = path.stat()
    except OSError:
        return "missing"
    return f"{status.st_size}/{status.st_mtime_ns}"


def selected(frames: Sequence[Frame], split: str, max_frames: int | None) -> list[Frame]:
    """Return the frames that are sharded, in their order; training frames are mixed."""
    chosen = list(frames)
    if split == "train":
        chosen.sort(key=lambda f: hashlib.sha256(f.key.encode()).digest())
    return chosen[:max_frames]


def _listings(reader: Reader) -> Iterator[tuple[Split, Listing]]:
    """List every split; val_fraction = 0 asks for no validation."""
    for split in SPLITS:
        try:
            listing = reader.list_frames(split)
        except EmptySplitError:
            if split != "val":
                raise
            continue
        yield split, listing


def _cut(frames: Sequence[Any], size: int) -> Iterator[tuple[Any, ...]]:
    rest = iter(frames)
    while piece := tuple(itertools.islice(rest, size)):
        yield piece
