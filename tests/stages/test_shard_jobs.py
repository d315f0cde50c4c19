"""Tests of stages/shard_jobs.py: which frames become which shard."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from densedepth.errors import EmptySplitError
from densedepth.sample import Frame, Listing, Skipped, Split
from stages.shard_jobs import write_jobs


@dataclass(frozen=True)
class Listed:
    """A reader that only lists."""

    sizes: dict[str, int]

    def list_frames(self, split: Split) -> Listing:
        if not self.sizes[split]:
            raise EmptySplitError(f"{split} is empty")
        frames = tuple(
            Frame(f"{split}-{n}", "room", Path(f"{n}.jpg"), Path(f"{n}.png"))
            for n in range(self.sizes[split])
        )
        bad = Skipped(f"bad line of {split}", "no such file", is_bad=True)
        return Listing(frames, (Skipped(f"known line of {split}", "the list says None"), bad))


def keys(frames: Sequence[Frame]) -> list[str]:
    return [frame.key for frame in frames]


def test_every_frame_is_in_one_shard_and_shards_are_full_but_the_last(tmp_path: Path):
    jobs = write_jobs(Listed({"train": 10, "val": 4, "test": 5}), tmp_path / "jobs", 4, None)
    sizes = [(job.split, job.num_frames) for job in jobs.jobs]
    assert sizes == [("train", n) for n in (4, 4, 2)] + [("val", 4), ("test", 4), ("test", 1)]
    assert jobs.num_frames == 19
    found = {split: [] for split in ("train", "val", "test")}
    for job in reversed(jobs.jobs):  # they can be read in any order
        found[job.split] = keys(jobs.frames(job)) + found[job.split]
    assert sorted(found["train"]) == sorted(f"train-{n}" for n in range(10))
    assert found["train"] != sorted(found["train"]), "training frames are not mixed"
    assert found["val"] == [f"val-{n}" for n in range(4)]
    assert found["test"] == [f"test-{n}" for n in range(5)]
    lines = [f"{kind} line of {split}" for split in found for kind in ("known", "bad")]
    assert [s.frame for s in jobs.skipped] == lines
    assert [s.frame for s in jobs.bad_lines] == lines[1::2]


def test_training_frames_keep_their_order_when_others_are_added(tmp_path: Path):
    orders = []
    for count in (10, 12):
        jobs = write_jobs(Listed({"train": count, "val": 0, "test": 1}), tmp_path / "j", 99, None)
        orders.append(keys(jobs.frames(jobs.jobs[0])))
    assert [key for key in orders[1] if key in orders[0]] == orders[0]


def test_a_part_of_each_split_can_be_asked_for(tmp_path: Path):
    jobs = write_jobs(Listed({"train": 10, "val": 4, "test": 5}), tmp_path / "jobs", 2, 3)
    assert [(j.split, j.num_frames) for j in jobs.jobs] == [
        (split, n) for split in ("train", "val", "test") for n in (2, 1)
    ]
    assert jobs.num_listed == 19


def test_validation_alone_may_be_empty(tmp_path: Path):
    jobs = write_jobs(Listed({"train": 2, "val": 0, "test": 2}), tmp_path / "jobs", 4, None)
    assert [job.split for job in jobs.jobs] == ["train", "test"]
    with pytest.raises(EmptySplitError, match="test"):
        write_jobs(Listed({"train": 2, "val": 1, "test": 0}), tmp_path / "jobs", 4, None)
