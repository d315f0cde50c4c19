"""Where each sample of a shard lies in its tar: what reads one sample without walking the others.

An index is a small object of its own beside the tar: a reader needs it only together with its
tar, and a manifest that held the places of a hundred million samples would be gigabytes.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

from densedepth.errors import CorruptShardError

FORMAT = "depth-shards/2"
DEPTH_EXTENSION = "depth.pco"
BLOCK_BYTES = 512
"""A tar's header, and the multiple to which a member's data is filled up."""

ImageFormat = Literal["jpg", "png"]


@dataclass(frozen=True)
class Member:
    """One file of a sample: its name in the tar, and where its data lies."""

    name: str
    offset: int
    size_bytes: int


@dataclass(frozen=True)
class SampleEntry:
    """One sample of a shard.

    Attributes:
        key: the sample's key.
        image_format: ``jpg`` or ``png``.
        offset: where the first member's header begins in the tar, bytes.
        depth_bytes: size of ``KEY.depth.pco``.
        image_bytes: size of the picture.
        json_bytes: size of ``KEY.json``.
        crc32: of all bytes of the sample in the tar, headers and filling included.
    """

    key: str
    image_format: ImageFormat
    offset: int
    depth_bytes: int
    image_bytes: int
    json_bytes: int
    crc32: int

    @property
    def members(self) -> tuple[Member, ...]:
        """The files, in the tar's order: by extension."""
        sizes = sorted(
            [
                (DEPTH_EXTENSION, self.depth_bytes),
                (self.image_format, self.image_bytes),
                ("json", self.json_bytes),
            ]
        )
        found, start = [], self.offset
        for extension, size_bytes in sizes:
            data = start + BLOCK_BYTES
            found.append(Member(f"{self.key}.{extension}", data, size_bytes))
            start = data + filled_up(size_bytes)
        return tuple(found)

    @property
    def span_bytes(self) -> int:
        """Bytes of the sample in the tar, from its first header to the filling of its last file."""
        sizes = (self.depth_bytes, self.image_bytes, self.json_bytes)
        return sum(BLOCK_BYTES + filled_up(size) for size in sizes)


@dataclass(frozen=True)
class ShardIndex:
    """The samples of a shard in the tar's order."""

    entries: tuple[SampleEntry, ...]

    def __len__(self) -> int:
        return len(self.entries)

    def to_bytes(self) -> bytes:
        """Return it as JSON, by column; equal indexes give equal bytes."""
        columns: dict[str, Any] = {
            "format": FORMAT,
            "num_samples": len(self.entries),
            "keys": [e.key for e in self.entries],
            "image_formats": [e.image_format for e in self.entries],
            "offsets": [e.offset for e in self.entries],
            "depth_bytes": [e.depth_bytes for e in self.entries],
            "image_bytes": [e.image_bytes for e in self.entries],
            "json_bytes": [e.json_bytes for e in self.entries],
            "crc32": [e.crc32 for e in self.entries],
        }
        return json.dumps(columns, separators=(",", ":")).encode()

    @classmethod
    def from_bytes(cls, data: bytes, name: str) -> "ShardIndex":
        """Read what ``to_bytes`` returned.

        Raises:
            CorruptShardError: it is no index of this version; ``name`` is what the error names.
        """
        try:
            columns = json.loads(data)
            if columns["format"] != FORMAT:
                raise ValueError(f"its format is {columns['format']!r}, not {FORMAT!r}")
            rows = zip(
                columns["keys"],
                columns["image_formats"],
                *(
                    _whole_numbers(columns[name])
                    for name in ("offsets", "depth_bytes", "image_bytes", "json_bytes", "crc32")
                ),
                strict=True,
            )
            index = cls(tuple(SampleEntry(key, cast(Any, fmt), *rest) for key, fmt, *rest in rows))
            if columns["num_samples"] != len(index):
                raise ValueError(f"{len(index)} samples where it says {columns['num_samples']}")
        except (ValueError, KeyError, TypeError) as error:
            raise CorruptShardError(
                f"{name} is no index of a shard: {error}; shard the data set again"
            ) from error
        return index


def filled_up(size_bytes: int) -> int:
    """Return a size filled up to whole blocks, as a tar stores it."""
    return -(-size_bytes // BLOCK_BYTES) * BLOCK_BYTES


def _whole_numbers(values: Any) -> Sequence[int]:
    if not isinstance(values, list) or not all(type(v) is int and v >= 0 for v in values):
        raise ValueError("a column holds something else than whole numbers")
    return values
