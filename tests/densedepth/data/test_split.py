import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from densedepth.data.formats import make_reader
from densedepth.data.split import split_validation, take_split
from densedepth.errors import DataError, EmptySplitError
from densedepth.sample import Frame, Listing, Skipped


def frames_of(scenes: dict[str, list[int]]) -> list[Frame]:
    return [
        Frame(f"{scene}_{number:05d}", scene, Path(f"{number}.jpg"), Path(f"{number}.png"))
        for scene, numbers in scenes.items()
        for number in numbers
    ]


def numbers(frames):
    return sorted(int(frame.key.rsplit("_", 1)[1]) for frame in frames)


def test_whole_scenes_are_set_aside_and_nothing_is_lost():
    frames = frames_of({f"room{i}": list(range(i % 7 + 1)) for i in range(60)})
    train, val = split_validation(frames, 0.1, seed=0)
    assert {f.scene for f in train}.isdisjoint(f.scene for f in val)
    assert sorted(f.key for f in train + val) == sorted(f.key for f in frames)
    assert 0.08 * len(frames) <= len(val) <= 0.1 * len(frames)
    assert list(train) == [f for f in frames if f in train]  # in the list's order


def test_the_seed_decides_and_the_order_of_the_list_does_not():
    frames = frames_of({f"room{i}": list(range(4)) for i in range(40)})
    shuffled = random.Random(0).sample(frames, len(frames))
    chosen = [{f.key for f in split_validation(frames, 0.1, seed)[1]} for seed in range(5)]
    assert chosen[0] == {f.key for f in split_validation(shuffled, 0.1, 0)[1]}
    assert len(set(map(frozenset, chosen))) == 5


def test_where_no_scene_fits_the_smallest_is_taken():
    frames = frames_of({"a": list(range(50)), "b": list(range(30)), "c": list(range(40))})
    _, val = split_validation(frames, 0.05, seed=3)
    assert {f.scene for f in val} == {"b"}
    assert len(val) == 30


def test_two_halves_are_cut_into_blocks_and_not_lost_whole():
    frames = frames_of({"a": list(range(100)), "b": list(range(100))})
    _, val = split_validation(frames, 0.1, seed=0)
    assert 10 <= len(val) <= 20


def test_one_scene_is_cut_where_its_numbers_have_gaps():
    rooms = [list(range(10 * i, 10 * i + 4 + i % 3)) for i in range(40)]
    frames = frames_of({"labeled": [n for room in rooms for n in room]})
    _, val = split_validation(frames, 0.1, seed=0)
    held = set(numbers(val))
    assert all(held.issuperset(room) or held.isdisjoint(room) for room in rooms)
    assert 0.08 * len(frames) <= len(held) <= 0.1 * len(frames)


def test_one_video_is_cut_into_blocks_of_neighbours():
    frames = frames_of({"video": list(range(0, 4000, 4))})
    _, val = split_validation(frames, 0.05, seed=0)
    held = numbers(val)
    assert 40 <= len(held) <= 50
    starts = [n for n in held if n - 4 not in held]
    assert 2 <= len(starts) <= 6


def test_few_frames_give_one_block_and_training_keeps_the_rest():
    train, val = split_validation(frames_of({"s": [0, 6, 12, 18, 30, 42, 54]}), 0.3, seed=0)
    assert len(val) == 2
    assert len(train) == 5
    assert split_validation(frames_of({"s": [1]}), 0.5, 0)[1] == ()
    assert len(split_validation(frames_of({"s": [1, 2]}), 0.05, 0)[1]) == 1


def test_keys_without_numbers_are_cut_by_name():
    frames = [Frame(c, "s", Path(c), Path(c)) for c in "abcdefghij"]
    _, val = split_validation(frames, 0.3, seed=1)
    letters = "".join(frame.key for frame in val)
    assert len(letters) == 3
    assert letters in "abcdefghij"


@given(
    st.lists(st.integers(1, 12), min_size=1, max_size=12),
    st.floats(0, 0.9),
    st.integers(0, 3),
)
def test_every_frame_lands_on_exactly_one_side(sizes, fraction, seed):
    frames = frames_of({f"s{i}": list(range(size)) for i, size in enumerate(sizes)})
    train, val = split_validation(frames, fraction, seed)
    assert sorted(f.key for f in train + val) == sorted(f.key for f in frames)
    assert train
    assert bool(val) == (fraction > 0 and len(frames) > 1)


def test_what_was_skipped_is_told_once_and_an_empty_validation_is_an_error():
    listing = Listing(tuple(frames_of({"s": [1, 2, 3]})), (Skipped("l", "r"),))
    assert take_split(listing, "train", 0.4, 0).skipped == listing.skipped
    assert take_split(listing, "val", 0.4, 0).skipped == ()
    with pytest.raises(EmptySplitError, match=r"val_fraction = 0\.0 of 3 training frames"):
        take_split(listing, "val", 0.0, 0)
    with pytest.raises(DataError, match=r"val_fraction = 1\.5: give a number of at least 0"):
        take_split(listing, "val", 1.5, 0)


@pytest.mark.samples
def test_nyus_labelled_rooms_are_not_cut_in_two(samples_root):
    reader = make_reader("nyu_densedepth", samples_root / "nyu_densedepth", val_fraction=0.1)
    train = {int(f.key.rsplit("-")[-1]) for f in reader.list_frames("train").frames}
    val = {int(f.key.rsplit("-")[-1]) for f in reader.list_frames("val").frames}
    assert len(train) + len(val) == 795
    assert 70 <= len(val) <= 80
    # NYU's test frames lie between its rooms: no validation frame has a training neighbour.
    assert not {n + 1 for n in val} & train
    assert not {n - 1 for n in val} & train
