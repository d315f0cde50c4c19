"""Shards: plain WebDataset tars of encoded samples, byte-identical on every build.

Members of sample ``k``: ``k.depth.pco`` (depth steps), ``k.jpg`` or ``k.png`` (colour) and
``k.json`` (how the depth is packed, ``depth_unit_m`` and the sample's facts). Samples are read by
position, through the shard's index.
"""

import json
import os
import tarfile
import zlib
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

from densedepth.data.shard_index import (
    BLOCK_BYTES,
    DEPTH_EXTENSION,
    ImageFormat,
    SampleEntry,
    ShardIndex,
    filled_up,
)
from densedepth.errors import CorruptShardError
from densedepth.sample import MAX_KEY_LENGTH, EncodedDepth, EncodedSample

_ADVICE = "the shard is damaged: `python -m pipeline shards verify` finds which, `repair` mends"


def write_shard(path: Path, samples: Iterable[EncodedSample]) -> ShardIndex:
    """Write samples to a tar and return where each lies.

    Equal samples in equal order give equal bytes: no time, owner or host goes in.

    Raises:
        ValueError: a key is longer than ``MAX_KEY_LENGTH``, or comes twice.
    """
    entries: list[SampleEntry] = []
    keys: set[str] = set()
    with path.open("wb") as stream:
        for sample in samples:
            if len(sample.key) > MAX_KEY_LENGTH or sample.key in keys:
                raise ValueError(
                    f"{path}: key {sample.key!r} is longer than {MAX_KEY_LENGTH} or comes twice: "
                    "make keys by safe_key, unique within the data set"
                )
            keys.add(sample.key)
            entry, blocks = _tar_blocks(sample, stream.tell())
            stream.writelines(blocks)
            entries.append(entry)
        end = stream.tell() + 2 * BLOCK_BYTES  # a tar ends in two empty blocks ...
        whole = -(-end // tarfile.RECORDSIZE) * tarfile.RECORDSIZE  # ... and fills a record
        stream.write(bytes(whole - stream.tell()))
    return ShardIndex(tuple(entries))


def _tar_blocks(sample: EncodedSample, offset: int) -> tuple[SampleEntry, list[bytes]]:
    """Return a sample's place and its bytes: for each member a header, the data, the filling."""
    facts = json.dumps(_facts(sample), sort_keys=True).encode()
    members = {
        DEPTH_EXTENSION: sample.depth.data,
        sample.image_format: sample.image,
        "json": facts,
    }
    blocks: list[bytes] = []
    crc32 = 0
    for extension, data in sorted(members.items()):
        member = tarfile.TarInfo(f"{sample.key}.{extension}")
        member.size, member.mode = len(data), 0o644
        member.uname = member.gname = "depth"
        blocks += [
            member.tobuf(tarfile.USTAR_FORMAT),
            data,
            bytes(filled_up(len(data)) - len(data)),
        ]
    for block in blocks:
        crc32 = zlib.crc32(block, crc32)
    entry = SampleEntry(
        key=sample.key,
        image_format=sample.image_format,
        offset=offset,
        depth_bytes=len(sample.depth.data),
        image_bytes=len(sample.image),
        json_bytes=len(facts),
        crc32=crc32,
    )
    return entry, blocks


def _facts(sample: EncodedSample) -> dict[str, Any]:
    height_px, width_px = sample.depth.size_px
    return {
        **sample.info,
        "depth_bits": sample.depth.bits,
        "depth_crc32": sample.depth.crc32,
        "depth_unit_m": sample.depth_unit_m,
        "height_px": height_px,
        "num_measured_px": sample.depth.num_measured,
        "width_px": width_px,
    }


def read_sample(file: BinaryIO | int, entry: SampleEntry, shard: str) -> EncodedSample:
    """Read one sample by its place, without decoding pictures; safe from several threads.

    Args:
        file: the tar, opened for reading, or its descriptor.
        entry: where the sample lies.
        shard: what an error names.

    Raises:
        CorruptShardError: what lies there is not the sample that the index promises.
    """
    descriptor = file if isinstance(file, int) else file.fileno()
    data = os.pread(descriptor, entry.span_bytes, entry.offset)
    if len(data) != entry.span_bytes:
        raise CorruptShardError(
            f"{shard}: sample {entry.key} ends after {len(data)} of {entry.span_bytes} bytes; "
            f"{_ADVICE}"
        )
    view, start = memoryview(data), entry.offset
    if zlib.crc32(view) != entry.crc32:
        raise CorruptShardError(
            f"{shard}: at byte {entry.offset} is not sample {entry.key} as it was written but "
            f"{_first_name(data)!r}, or its bytes changed; {_ADVICE}"
        )
    parts = {
        member.name: data[member.offset - start : member.offset - start + member.size_bytes]
        for member in entry.members
    }
    try:
        return sample_from_members(
            entry.key,
            entry.image_format,
            parts[f"{entry.key}.{entry.image_format}"],
            parts[f"{entry.key}.{DEPTH_EXTENSION}"],
            parts[f"{entry.key}.json"],
        )
    except (ValueError, KeyError, TypeError) as error:
        raise CorruptShardError(
            f"{shard}: sample {entry.key}: its JSON lacks or has wrong {error}; "
            "shard the data set again"
        ) from error


def sample_from_members(
    key: str, image_format: Any, image: bytes, depth: bytes, facts_json: bytes
) -> EncodedSample:
    """Put a sample together from its files, as a tar holds them.

    Raises:
        ValueError, KeyError, TypeError: the JSON is not what ``write_shard`` writes.
    """
    facts = json.loads(facts_json)
    if not isinstance(facts, dict):
        raise ValueError(f"type: a {type(facts).__name__} where an object should be")
    packed = EncodedDepth(
        data=depth,
        size_px=(int(facts.pop("height_px")), int(facts.pop("width_px"))),
        bits=int(facts.pop("depth_bits")),
        crc32=int(facts.pop("depth_crc32")),
        num_measured=int(facts.pop("num_measured_px")),
    )
    if packed.bits not in (8, 16):
        raise ValueError(f"depth_bits = {packed.bits}, which is neither 8 nor 16")
    unit_m = float(facts.pop("depth_unit_m"))
    return EncodedSample(key, image, image_format, packed, unit_m, facts)


def index_shard(path: Path) -> ShardIndex:
    """Make a tar's index anew from its headers and bytes; every member is read once.

    Raises:
        CorruptShardError: the tar is cut off, or is not what ``write_shard`` writes.
    """
    entries: list[SampleEntry] = []
    try:
        with path.open("rb") as stream, tarfile.open(fileobj=stream, mode="r:") as tar:
            members = list(tar)
            for first in range(0, len(members), 3):
                entries.append(_entry_of(members[first : first + 3], stream))
            end = entries[-1].offset + entries[-1].span_bytes if entries else 0
            stream.seek(end)
            if len(stream.read(2 * BLOCK_BYTES)) < 2 * BLOCK_BYTES:
                raise ValueError("it is cut off: a tar ends in two empty blocks")
    except (OSError, EOFError, tarfile.TarError, ValueError) as error:
        raise CorruptShardError(f"{path}: {error}; {_ADVICE}") from error
    return ShardIndex(tuple(entries))


def _entry_of(members: list[tarfile.TarInfo], stream: BinaryIO) -> SampleEntry:
    """Return the entry of three consecutive members, which must be one sample's."""
    names = [member.name.partition(".") for member in members]
    keys = {key for key, _, _ in names}
    sizes = {name[2]: member.size for name, member in zip(names, members, strict=True)}
    image_format: ImageFormat = "jpg" if "jpg" in sizes else "png"
    if len(keys) != 1 or sizes.keys() != {DEPTH_EXTENSION, image_format, "json"}:
        found = ", ".join(member.name for member in members)
        raise ValueError(
            f"{found}: a sample is KEY.{DEPTH_EXTENSION}, KEY.jpg or KEY.png, and KEY.json, "
            "one after another"
        )
    entry = SampleEntry(
        key=keys.pop(),
        image_format=image_format,
        offset=members[0].offset,
        depth_bytes=sizes[DEPTH_EXTENSION],
        image_bytes=sizes[image_format],
        json_bytes=sizes["json"],
        crc32=0,
    )
    if [(m.name, m.offset, m.size_bytes) for m in entry.members] != [
        (m.name, m.offset_data, m.size) for m in members
    ]:
        raise ValueError(f"sample {entry.key}: its files do not follow each other by extension")
    stream.seek(entry.offset)
    data = stream.read(entry.span_bytes)
    if len(data) != entry.span_bytes:
        raise ValueError(f"sample {entry.key} is cut off")
    return replace(entry, crc32=zlib.crc32(data))


def _first_name(data: bytes) -> str:
    """Return the name in a tar header, for an error."""
    return data[:100].split(b"\0")[0].decode("ascii", "replace")
