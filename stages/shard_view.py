"""Stored data sets for people: what is in them, a contact sheet, plain files of their samples."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from cluster.errors import from_os_error
from cluster.storage import ObjectStore
from stages.artifacts import ShardSet
from stages.stored_shards import stored_shards

if TYPE_CHECKING:
    from densedepth.sample import EncodedSample, Sample

_PAPER, _INK = (255, 255, 255), (20, 20, 20)
_SHEET_PX, _GAP_PX, _LINE_PX, _TEXT_PX = 996, 6, 18, 12
_WIDE = 2.0
"""Width over height above which a sheet has one column instead of two."""
_SPARSE = 0.5


def describe(store: ObjectStore, shards: ShardSet, scratch: Path) -> dict[str, Any]:
    """Say what a data set consists of, JSON-ready; one sample of each split is looked at.

    Raises:
        StorageError, CorruptShardError: a split's first shard cannot be read.
    """
    splits: dict[str, Any] = {}
    for name, split in shards.splits.items():
        opened = stored_shards(store, split, scratch).open_shard(0)
        with opened.file:
            first = opened.read(0)
        formats = sorted({entry.image_format for entry in opened.index.entries})
        splits[name] = {
            "version": split.manifest.sha256,
            "manifest": split.manifest.key,
            "num_samples": split.num_samples,
            "num_shards": len(split.shards),
            "size_bytes": sum(ref.size_bytes for ref in split.shards),
            "colour": formats,
            "depth": f"pco, {first.depth.bits} bits, {first.depth_unit_m:.6g} m a step",
            "size_px": list(first.depth.size_px),
            "dataset": first.info.get("dataset", ""),
            "first_source": first.info.get("image_source", ""),
        }
    return {
        "dataset": shards.dataset,
        "rendered": shards.rendered,
        "ground_truth": shards.ground_truth,
        "depth_range_m": [shards.min_depth_m, shards.max_depth_m],
        "dense": shards.dense,
        "measured_m": list(shards.measured_m or ()),
        "num_skipped": len(shards.skipped),
        "splits": splits,
    }


def contact_sheet(
    store: ObjectStore, shards: ShardSet, split: str, num_samples: int, scratch: Path
) -> bytes:
    """Draw samples, evenly over a split, colour beside depth, as a PNG.

    Sparse depth is drawn over the darkened picture, its points thickened. Samples stand in two
    columns, wide ones in one.

    Raises:
        StorageError, CorruptShardError: a sample cannot be read.
    """
    import numpy as np
    from PIL import Image, ImageDraw, ImageFont

    from densedepth.data.encode import decode
    from densedepth.depth_colours import shown_range_m
    from densedepth.pictures import to_png

    part = shards.splits[split]
    count = min(num_samples, part.num_samples)
    chosen = [(2 * i + 1) * part.num_samples // (2 * count) for i in range(count)]
    source = stored_shards(store, part, scratch)
    samples = []
    for number, place in _places(part.num_samples_per_shard, chosen):
        opened = source.open_shard(number)
        with opened.file:
            samples.append(decode(opened.read(place)))
    min_m, max_m = shown_range_m([sample.depth_m for sample in samples])
    num_columns = 1 if any(s.image.shape[1] > _WIDE * s.image.shape[0] for s in samples) else 2
    width = _SHEET_PX // num_columns
    tiles = [_tile(sample, (width - 3 * _GAP_PX) // 2, min_m, max_m) for sample in samples]
    rows = [tiles[i : i + num_columns] for i in range(0, len(tiles), num_columns)]
    heights = [max(tile.height for tile, _ in row) + _LINE_PX + _GAP_PX for row in rows]
    canvas = Image.new("RGB", (_SHEET_PX, sum(heights) + _LINE_PX + _GAP_PX), _PAPER)
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(size=_TEXT_PX)
    title = (
        f"{shards.dataset} {split}: {count} of {part.num_samples} samples; depth from "
        f"{min_m:.2g} m (bright) to {max_m:.3g} m (dark)"
    )
    draw.text((_GAP_PX, 3), title, _INK, font)
    y = _LINE_PX + _GAP_PX
    for row, height in zip(rows, heights, strict=True):
        for column, (tile, caption) in enumerate(row):
            x = column * width + _GAP_PX
            draw.text((x, y), caption, _INK, font)
            canvas.paste(tile, (x, y + _LINE_PX))
        y += height
    return to_png(np.asarray(canvas))


def export(
    store: ObjectStore,
    shards: ShardSet,
    folder: Path,
    form: Literal["files", "tars"],
    scratch: Path,
    progress: Callable[[int], None] = lambda _: None,
) -> int:
    """Write every sample with its depth as a plain PNG; return how many.

    Args:
        store: where the data set is.
        shards: the data set.
        folder: gets ``SPLIT/KEY.jpg``, ``KEY.depth.png``, ``KEY.json``; or ``SPLIT-000000.tar``
            with the same members, as the data set is cut.
        form: which of the two.
        scratch: this node's folder for the cache.
        progress: told 1 after each sample.

    Raises:
        StorageError: the store cannot be read or the folder not written.
        CorruptShardError: a sample cannot be read.
    """
    count = 0
    try:
        for name, split in shards.splits.items():
            source = stored_shards(store, split, scratch)
            source.source.prefetch(range(min(2, len(split.shards))))
            for number in range(len(split.shards)):
                source.source.prefetch(range(number + 1, min(number + 3, len(split.shards))))
                opened = source.open_shard(number)
                with opened.file:
                    samples = (opened.read(i) for i in range(len(opened.index)))
                    if form == "files":
                        _write_files(folder / name, samples, progress)
                    else:
                        _write_tar(folder / f"{name}-{number:06d}.tar", samples, progress)
                count += len(opened.index)
    except OSError as error:
        raise from_os_error(error, str(folder), writing=True) from error
    return count


def plain_members(sample: EncodedSample) -> dict[str, bytes]:
    """Return a sample's files with depth as a grey PNG of its own 8 or 16 bits."""
    from densedepth.data.depth_codec import unpack_depth
    from densedepth.data.encode import encode_depth_png

    facts = {**sample.info, "depth_unit_m": sample.depth_unit_m}
    return {
        "depth.png": encode_depth_png(unpack_depth(sample.depth, sample.key)),
        sample.image_format: sample.image,
        "json": json.dumps(facts, sort_keys=True).encode(),
    }


def _write_files(
    folder: Path, samples: Iterator[EncodedSample], progress: Callable[[int], None]
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for sample in samples:
        for extension, data in plain_members(sample).items():
            (folder / f"{sample.key}.{extension}").write_bytes(data)
        progress(1)


def _write_tar(
    path: Path, samples: Iterator[EncodedSample], progress: Callable[[int], None]
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for sample in samples:
            for extension, data in sorted(plain_members(sample).items()):
                member = tarfile.TarInfo(f"{sample.key}.{extension}")
                member.size, member.mode = len(data), 0o644
                tar.addfile(member, io.BytesIO(data))
            progress(1)


def _places(counts: tuple[int, ...], positions: list[int]) -> Iterator[tuple[int, int]]:
    """Yield shard and place in it of samples counted through the split."""
    shard, first = 0, 0
    for position in positions:
        while position >= first + counts[shard]:
            first += counts[shard]
            shard += 1
        yield shard, position - first


def _tile(sample: Sample, width_px: int, min_m: float, max_m: float) -> tuple[Any, str]:
    """Draw one sample: colour beside depth, each of this width, and what is written above."""
    import numpy as np
    from PIL import Image

    from densedepth.depth_colours import colorize_depth
    from densedepth.sparse_depth import overlay_depth

    height = max(1, round(width_px * sample.image.shape[0] / sample.image.shape[1]))
    size = (width_px, height)
    colour = np.asarray(Image.fromarray(sample.image).resize(size, Image.Resampling.BICUBIC))
    measured = sample.depth_m > 0
    if measured.mean() < _SPARSE:
        depth = overlay_depth(colour, sample.depth_m, min_m, max_m)
    else:
        shown = Image.fromarray(colorize_depth(sample.depth_m, min_m, max_m))
        depth = np.asarray(shown.resize(size, Image.Resampling.NEAREST))
    gap = np.full((height, _GAP_PX, 3), 255, np.uint8)
    values = sample.depth_m[measured]
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)
    caption = f"{sample.key[-44:]}: {low:.2f} to {high:.2f} m, {measured.mean():.0%} measured"
    return Image.fromarray(np.hstack([colour, gap, depth])), caption
