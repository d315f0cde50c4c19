"""From the lines of a list to a ``Listing``: frames, and what was skipped and why."""

import hashlib
import os
from difflib import get_close_matches
from pathlib import Path
from typing import get_args

from densedepth.errors import DataError, EmptySplitError, MissingDataError
from densedepth.sample import MAX_KEY_LENGTH, Frame, Listing, Skipped, safe_key


class FolderIndex:
    """Answers which files exist with one scan per folder.

    A list names tens of thousands of files in a few hundred folders; asking for each file alone
    is slow on a network disk.
    """

    def __init__(self) -> None:
        self._names: dict[str, frozenset[str]] = {}

    def find(self, name: str, *folders: Path) -> Path | None:
        """Return the file of that name (with folders before it) below the first that has it."""
        for folder in folders:
            parent, _, base = f"{folder}/{name.lstrip('/')}".rpartition("/")
            if base in self._scan(parent):
                return Path(parent, base)
        return None

    def _scan(self, folder: str) -> frozenset[str]:
        if folder not in self._names:
            try:
                self._names[folder] = frozenset(os.listdir(folder))
            except (FileNotFoundError, NotADirectoryError):
                self._names[folder] = frozenset()
        return self._names[folder]


class ListingBuilder:
    """Collects frames with unique keys, and the lines that gave none."""

    def __init__(self) -> None:
        self._frames: dict[str, Frame] = {}
        self._skipped: list[Skipped] = []

    def skip(self, line: str, reason: str, *, is_bad: bool = False) -> None:
        """Note a line that gives no frame; see ``Skipped``."""
        self._skipped.append(Skipped(line.strip(), reason, is_bad))

    def add(
        self,
        line: str,
        name: str,
        scene: str,
        image_path: Path,
        depth_path: Path,
        focal_px: float | None = None,
    ) -> None:
        """Add a frame; its key is made from ``name``, which differs for different frames.

        A frame that is listed twice is skipped; two names that differ only in characters that no
        key may have are told apart by a digest.
        """
        key = safe_key(name)
        frame = Frame(key, scene, image_path, depth_path, focal_px)
        before = self._frames.get(key)
        if before is not None and before.image_path != image_path:
            digest = hashlib.sha256(name.encode()).hexdigest()[:8]
            key = f"{key[: MAX_KEY_LENGTH - 9]}-{digest}"
            frame = Frame(key, scene, image_path, depth_path, focal_px)
            before = self._frames.get(key)
        if before is not None:
            self.skip(line, "listed before")
            return
        self._frames[key] = frame

    def build(self) -> Listing:
        """Return what was collected, in the order of the list."""
        return Listing(tuple(self._frames.values()), tuple(self._skipped))


def read_lines(path: Path, setting: str) -> list[str]:
    """Read a list file's lines; blank ones are dropped.

    Args:
        path: the list.
        setting: the option that names it, for the error.

    Raises:
        MissingDataError: there is no such file.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        raise MissingDataError(f"no list file {path}; set {setting} to it") from None
    except UnicodeDecodeError as error:
        raise DataError(f"list file {path} is no text: {error}") from error
    return [line for line in text.splitlines() if line.strip()]


def find_root(root: str | Path, wanted: str) -> Path:
    """Return a data set's root folder as a path.

    Args:
        root: as the user gave it; ``~`` is the home folder.
        wanted: what stands in that folder, for the error.

    Raises:
        MissingDataError: it is no folder of this machine.
    """
    if "://" in str(root):
        raise MissingDataError(
            f"data root {root} is a URL; raw data is read from a folder: mount it and set "
            f"`root` to the folder that holds {wanted}"
        )
    path = Path(root).expanduser()
    if not path.is_dir():
        problem = "is not a folder" if path.exists() else "does not exist"
        raise MissingDataError(
            f"data root {path} {problem}; set `root` to the folder that holds {wanted}"
        )
    return path


def find_list(root: Path, given: str | Path | None, setting: str, default: str) -> Path:
    """Return where a list file stands: as given (below the root, or a path), or by default.

    Raises:
        MissingDataError: it is in none of these places.
    """
    if given is None:
        path = root / default
        if not path.is_file():
            raise MissingDataError(
                f"no {default} in {root}; put the list there or set `{setting}` to it"
            )
        return path
    below, alone = root / given, Path(given).expanduser()
    for path in (below, alone):
        if path.is_file():
            return path
    raise MissingDataError(f"{setting} = {str(given)!r}: neither {below} nor {alone} is a file")


def require_frames(listing: Listing, split: str, source: str) -> Listing:
    """Return the listing when it has a frame.

    Raises:
        EmptySplitError: it has none; the error says what was skipped first.
    """
    if listing.frames:
        return listing
    why = "nothing is listed"
    if listing.skipped:
        first = listing.skipped[0]
        why = f"all {len(listing.skipped)} lines were skipped, the first, {first.line!r}: "
        why += first.reason
    raise EmptySplitError(f"split {split!r} of {source} has no frame: {why}")


def require_choice(setting: str, value: str, choices: object) -> None:
    """Make sure that an option has one of a Literal's values.

    Raises:
        DataError: it has another; the error names the nearest.
    """
    names = get_args(choices)
    if value not in names:
        near = get_close_matches(str(value), names, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise DataError(f"{setting} = {value!r}: choose one of {', '.join(map(repr, names))}{hint}")
