import re
from typing import Literal

import pytest

from densedepth.data.listing import (
    FolderIndex,
    ListingBuilder,
    find_list,
    find_root,
    read_lines,
    require_choice,
    require_frames,
)
from densedepth.errors import DataError, EmptySplitError, MissingDataError
from densedepth.sample import MAX_KEY_LENGTH, Listing, Skipped


def test_files_are_found_with_one_scan_per_folder(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.jpg").touch()
    index = FolderIndex()
    found = tmp_path / "a" / "1.jpg"
    assert index.find("a/1.jpg", tmp_path) == index.find("/a/1.jpg", tmp_path) == found
    assert index.find("1.jpg", tmp_path, tmp_path / "b", tmp_path / "a") == found
    (tmp_path / "a" / "2.jpg").touch()
    assert index.find("a/2.jpg", tmp_path) is None  # scanned before
    assert index.find("1.jpg", tmp_path / "b") is None
    assert index.find("x", found) is None


def test_keys_are_safe_and_unique_and_repetitions_are_skipped(tmp_path):
    builder = ListingBuilder()
    for name in ("a/b.c", "a/b/c", "a/b.c", "a-b c"):
        builder.add(f"line {name}\n", name, "s", tmp_path / name, tmp_path / name)
    listing = builder.build()
    keys = [frame.key for frame in listing.frames]
    assert len(set(keys)) == 3
    assert keys[0] == "a-b-c"
    assert all(key.startswith("a-b-c-") and len(key) == 14 for key in keys[1:])
    assert listing.skipped == (Skipped("line a/b.c", "listed before"),)


@pytest.mark.parametrize("length", [70, 71, 72, 80, 81, 200])
def test_keys_that_meet_stay_as_short_as_a_tar_needs_them(tmp_path, length: int):
    builder = ListingBuilder()
    for name in ("a/".ljust(length, "x"), "a ".ljust(length, "x")):
        builder.add(name, name, "s", tmp_path / name, tmp_path / name)
    keys = [frame.key for frame in builder.build().frames]
    assert len(set(keys)) == 2
    assert all(len(key) <= MAX_KEY_LENGTH for key in keys)


def test_names_in_other_alphabets_have_keys_of_their_own(tmp_path):
    builder = ListingBuilder()
    for name in ("\u043a\u0430\u0434\u0440", "\u5199\u771f", "..."):
        builder.add(name, name, "s", tmp_path / name, tmp_path / name)
    keys = [frame.key for frame in builder.build().frames]
    assert len(set(keys)) == 3
    assert all(re.fullmatch("[A-Za-z0-9_-]{1,80}", key) for key in keys)


def test_lists_are_read_whatever_made_them(tmp_path):
    path = tmp_path / "list.txt"
    path.write_bytes(b"\xef\xbb\xbfone\r\n\r\n  \ntwo")
    assert read_lines(path, "x_list") == ["one", "two"]
    path.write_bytes(b"\x89PNG\xff")
    with pytest.raises(DataError, match="is no text"):
        read_lines(path, "x_list")
    with pytest.raises(MissingDataError, match=r"no list file .*none\.txt; set x_list to it"):
        read_lines(tmp_path / "none.txt", "x_list")


def test_a_missing_root_is_named_with_what_it_should_hold(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("HOME", str(tmp_path))
    assert find_root("~", "x") == tmp_path
    for root, problem in [("none", "does not exist"), ("file", "is not a folder")]:
        with pytest.raises(
            MissingDataError, match=rf"{root} {problem}; set `root` .* holds a\.csv"
        ):
            find_root(tmp_path / root, "a.csv")
    with pytest.raises(MissingDataError, match=r"s3://raw/nyu is a URL; .* mount it"):
        find_root("s3://raw/nyu", "a.csv")


def test_a_list_stands_below_the_root_or_anywhere(tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    (root / "train_files.txt").touch()
    (tmp_path / "mine.txt").touch()
    default = root / "train_files.txt"
    assert find_list(root, None, "train_list", "train_files.txt") == default
    assert find_list(root, "train_files.txt", "train_list", "x") == default
    assert find_list(root, tmp_path / "mine.txt", "train_list", "x") == tmp_path / "mine.txt"
    with pytest.raises(MissingDataError, match=r"no x\.txt in .*root; .* set `train_list` to it"):
        find_list(root, None, "train_list", "x.txt")
    with pytest.raises(MissingDataError, match=r"train_list = 'y\.txt': neither .* is a file"):
        find_list(root, "y.txt", "train_list", "x.txt")


def test_a_split_without_a_frame_says_why():
    with pytest.raises(EmptySplitError, match=r"split 'val' of L has no frame: nothing is listed"):
        require_frames(Listing(()), "val", "L")
    skipped = (Skipped("l1", "no such file"), Skipped("l2", "x"))
    with pytest.raises(EmptySplitError, match="all 2 lines were skipped, the first, 'l1': no such"):
        require_frames(Listing((), skipped), "val", "L")


def test_a_wrong_choice_is_told_the_nearest():
    kinds = Literal["annotated", "velodyne"]
    require_choice("kind", "velodyne", kinds)
    with pytest.raises(DataError, match=r"kind = 'velodine': .* did you mean 'velodyne'"):
        require_choice("kind", "velodine", kinds)
