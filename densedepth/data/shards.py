"""Shards: plain WebDataset tars of encoded samples, byte-identical on every build.

Members of sample ``k``: ``k.jpg`` or ``k.png`` (colour), ``k.depth.png`` (grey, 8 or 16 bits)
and ``k.json`` (``depth_unit_m`` and the sample's facts).
"""

import io
import json
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, cast

from densedepth.errors import CorruptShardError
from densedepth.sample import EncodedSample

MEMBERS = ("jpg", "png", "depth.png", "json")
"""The only extensions that are read; anything else in a tar is left alone, pickles above all."""


def write_shard(path: Path, samples: Iterable[EncodedSample]) -> int:
    """Write samples to a tar and return how many there were.

    Equal samples in equal order give equal bytes: no time, owner or host goes in.
    """
    count = 0
    # Not by webdataset.TarWriter: its import brings torch, seconds for each process that writes.
    with tarfile.open(path, "w") as tar:
        for sample in samples:
            facts = {**sample.info, "depth_unit_m": sample.depth_unit_m}
            members = {
                sample.image_format: sample.image,
                "depth.png": sample.depth_png,
                "json": json.dumps(facts, sort_keys=True).encode(),
            }
            for extension, data in sorted(members.items()):
                member = tarfile.TarInfo(f"{sample.key}.{extension}")
                member.size, member.mode = len(data), 0o644
                member.uname = member.gname = "depth"
                tar.addfile(member, io.BytesIO(data))
            count += 1
    return count


def read_shard(path: Path, num_samples: int | None = None) -> Iterator[EncodedSample]:
    """Stream samples from a tar without decoding the pictures.

    Args:
        path: the tar.
        num_samples: how many it must hold: a tar that is cut between two samples reads without
            an error, so the manifest's count is what finds it out.

    Raises:
        CorruptShardError: the tar ends early, has fewer samples, or a sample lacks a member.
    """
    import webdataset

    stream = webdataset.DataPipeline(
        webdataset.SimpleShardList([f"file:{path}"]),
        webdataset.tarfile_to_samples(select_files=_is_member),
    )
    count = 0
    try:
        for raw in stream:
            yield _sample(path, raw)
            count += 1
    except (OSError, EOFError, tarfile.TarError, ValueError) as error:
        raise CorruptShardError(f"{path}: {error}; shard the data set again") from error
    if num_samples is not None and count != num_samples:
        raise CorruptShardError(
            f"{path}: {count} samples where the manifest says {num_samples}; "
            "shard the data set again"
        )


def _is_member(name: str) -> bool:
    return name.partition(".")[2] in MEMBERS


def _sample(path: Path, raw: dict[str, Any]) -> EncodedSample:
    key = raw["__key__"]
    image_format = "jpg" if "jpg" in raw else "png"
    missing = {image_format, "depth.png", "json"} - raw.keys()
    if missing:
        raise CorruptShardError(
            f"{path}: sample {key} has no {', '.join(sorted(missing))}; shard the data set again"
        )
    facts = json.loads(raw["json"])
    return EncodedSample(
        key=key,
        image=raw[image_format],
        image_format=cast(Any, image_format),
        depth_png=raw["depth.png"],
        depth_unit_m=float(facts.pop("depth_unit_m")),
        info=facts,
    )
