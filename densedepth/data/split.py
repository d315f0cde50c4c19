"""A validation split that is taken from training scenes, never from the test list."""

import hashlib
import re
from collections.abc import Iterable, Sequence
from itertools import pairwise
from statistics import median

from densedepth.errors import DataError, EmptySplitError, MissingDataError
from densedepth.sample import Frame, Listing, Reader, Skipped, Split

_LAST_NUMBER = re.compile(r"(\d+)\D*$")
_MOST_OF_ALL = 1 / 3  # a whole scene may take so much more than was asked for


def require_fraction(setting: str, value: float) -> None:
    """Make sure that a setting is a part of a whole.

    Raises:
        DataError: it is not in [0, 1).
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
        raise DataError(f"{setting} = {value!r}: give a number of at least 0 and less than 1")


def split_validation(
    frames: Sequence[Frame], val_fraction: float, seed: int
) -> tuple[tuple[Frame, ...], tuple[Frame, ...]]:
    """Set whole scenes aside for validation.

    Frames of one room or one drive look alike: a network that has trained on one has seen the
    others. Scenes are taken in an order given by the seed as long as they fit into
    ``val_fraction``; when none fits, the smallest is taken. When there is one scene only, or the
    smallest has more than a third of all frames, scenes are cut into blocks of consecutive frame
    numbers: at gaps in the numbering first (in NYU's labelled set the numbers between two gaps
    are whole rooms), then, where no gap is, into pieces. The choice depends on the frames and
    the seed and not on the order of the list.

    Args:
        frames: a training list.
        val_fraction: part of the frames to set aside, in [0, 1).
        seed: another seed takes other scenes.

    Returns:
        Training and validation frames, each in the order of ``frames``. One frame alone, or a
        fraction of 0, gives no validation frame; else there is at least one of each.

    Raises:
        DataError: ``val_fraction`` is not in [0, 1).
    """
    require_fraction("val_fraction", val_fraction)
    if val_fraction == 0 or len(frames) < 2:
        return tuple(frames), ()
    target = min(max(1, round(len(frames) * val_fraction)), len(frames) - 1)
    scenes = _by_scene(frames)
    most = max(target, int(len(frames) * _MOST_OF_ALL))
    if len(scenes) == 1 or min(map(len, scenes)) > most:
        blocks = [block for scene in scenes for block in _blocks(scene, target)]
        held = _choose(blocks, target, seed)
    else:
        held = _choose(scenes, target, seed)
    return (
        tuple(frame for frame in frames if frame.key not in held),
        tuple(frame for frame in frames if frame.key in held),
    )


def part_of(
    listing: Listing, split: Split, reader: Reader, val_fraction: float, seed: int
) -> Listing:
    """Return a split of a data set that has a list for training and one for the test.

    Args:
        listing: what the split's list gives: the test list, or the training list whole.
        split: which part is wanted; the test list is it as it is.
        reader: lists the test frames: what is among them is left out of the others, and told.
        val_fraction: part of the training frames that validates, in [0, 1).
        seed: another seed takes other scenes.

    Raises:
        EmptySplitError: nothing is left, or ``val_fraction`` gives no validation frame.
        DataError: ``val_fraction`` is not in [0, 1).
    """
    if split == "test":
        return listing
    return take_split(_without_test(listing, reader), split, val_fraction, seed)


def _without_test(listing: Listing, reader: Reader) -> Listing:
    try:
        tested = {frame.key for frame in reader.list_frames("test").frames}
    except (MissingDataError, EmptySplitError):  # training alone needs no test list
        return listing
    overlap = [frame.key for frame in listing.frames if frame.key in tested]
    if len(overlap) == len(listing.frames):
        raise EmptySplitError(
            f"all {len(overlap)} training frames, the first {overlap[0]!r}, are in the test list "
            "too: give another train_list or test_list"
        )
    return Listing(
        tuple(frame for frame in listing.frames if frame.key not in tested),
        (*listing.skipped, *(Skipped(key, "it is in the test list too") for key in overlap)),
    )


def take_split(listing: Listing, split: Split, val_fraction: float, seed: int) -> Listing:
    """Return the training or the validation part of a training list.

    What the list skipped is told with the training part.

    Raises:
        EmptySplitError: validation frames are asked for and ``val_fraction`` gives none.
        DataError: ``val_fraction`` is not in [0, 1).
    """
    train, val = split_validation(listing.frames, val_fraction, seed)
    if split == "train":
        return Listing(train, listing.skipped)
    if not val and listing.frames:
        raise EmptySplitError(
            f"val_fraction = {val_fraction} of {len(listing.frames)} training frames sets none "
            "aside for validation; give a larger val_fraction or more frames"
        )
    return Listing(val)


def _by_scene(frames: Iterable[Frame]) -> list[list[Frame]]:
    scenes: dict[str, list[Frame]] = {}
    for frame in frames:
        scenes.setdefault(frame.scene, []).append(frame)
    return list(scenes.values())


def _choose(groups: Sequence[Sequence[Frame]], target: int, seed: int) -> frozenset[str]:
    """Take groups in the seed's order while they fit; the smallest when none does."""

    def rank(group: Sequence[Frame]) -> bytes:
        name = min(frame.key for frame in group)
        return hashlib.sha256(f"{seed}:{name}".encode()).digest()

    ordered = sorted(groups, key=rank)
    held: list[str] = []
    for group in ordered:
        if len(held) + len(group) <= target:
            held += [frame.key for frame in group]
    return frozenset(held or [frame.key for frame in min(ordered, key=len)])


def _blocks(scene: Sequence[Frame], target: int) -> list[list[Frame]]:
    """Cut a scene into runs of consecutive numbers, and runs longer than ``target`` into pieces."""
    numbered = sorted(scene, key=lambda frame: (_number(frame), frame.key))
    steps = [_number(b) - _number(a) for a, b in pairwise(numbered)]
    gap = 2 * median(steps) if steps else 0
    runs = [[numbered[0]]]
    for step, frame in zip(steps, numbered[1:], strict=True):
        if step > gap:
            runs.append([])
        runs[-1].append(frame)
    longest = max(target // 4, min(target, 8))
    blocks = []
    for run in runs:
        starts = range(0, len(run), longest) if len(run) > target else range(1)
        pieces = [run[a:b] for a, b in pairwise([*starts, len(run)])]
        if len(pieces) > 2:  # what is left over joins the piece before it
            pieces[-2:] = [pieces[-2] + pieces[-1]]
        blocks += pieces
    return blocks


def _number(frame: Frame) -> int:
    """Return the last number in a frame's key; -1 where there is none."""
    found = _LAST_NUMBER.search(frame.key)
    return int(found[1]) if found else -1
