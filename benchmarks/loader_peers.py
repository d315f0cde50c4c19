"""The loaders that ``bench_loader`` compares: each writes the pairs in its own form and reads them.

A loader reads in one of two ways. ``stock``: depth as PNG, pictures by its own decoder (PIL where
it has none), floats made in the loader's processes, as its manual shows it. ``same decoders``:
bytes are decoded by simplejpeg and pcodec and delivered as uint8 and uint16, which the main
process makes floats of by the same code for all.
"""

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import simplejpeg
import torch
import webdataset
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms.functional import to_tensor

from benchmarks.pairs import SIZE_PX, Pair
from densedepth.data.batch import PackedBatch, resize_depth
from densedepth.data.batch_plans import TrainBatches
from densedepth.data.depth_codec import pack_depth, unpack_depth
from densedepth.data.encode import encode_depth_png
from densedepth.data.loader import BatchLoader
from densedepth.data.shard_source import LocalShards, ShardList
from densedepth.data.shards import write_shard
from densedepth.sample import EncodedDepth, EncodedSample

BATCH_SIZE = 8
TARGET_PX = (SIZE_PX[0] // 2, SIZE_PX[1] // 2)
STEPS_PER_M = 1000
PER_SHARD = 100
CPU = torch.device("cpu")


class Delivered(NamedTuple):
    """What every row delivers: float pictures 3x480x640 and metres 1x240x320."""

    keys: list[str]
    image: Tensor
    depth_m: Tensor


Loader = Callable[[Path, int], Iterator[Delivered]]


def stock_pair(key: str, image: Tensor, depth_png: bytes) -> dict[str, Any]:
    """Finish a sample in the loader's process: metres of the target's size."""
    units = np.asarray(Image.open(io.BytesIO(depth_png)))
    depth_m = torch.from_numpy(units.astype(np.float32) / STEPS_PER_M)
    has_holes = bool((units == 0).any())
    target = resize_depth(depth_m[None], TARGET_PX, has_holes=has_holes)
    return {"key": key, "image": image, "depth_m": target}


def fast_pair(key: str, jpeg: bytes, packed: bytes) -> dict[str, Any]:
    """Decode a sample as this project does, into arrays of its own."""
    image = simplejpeg.decode_jpeg(jpeg, colorspace="RGB")
    size_px, crc32 = SIZE_PX, int.from_bytes(packed[:4], "little")
    depth = EncodedDepth(packed[4:], size_px, 16, crc32, 0)
    units = torch.from_numpy(unpack_depth(depth))
    holes = bool((units.view(torch.int16) == 0).any())
    return {"key": key, "image": torch.from_numpy(image), "units": units, "holes": holes}


def packed_bytes(pair: Pair) -> bytes:
    """Depth as ``fast_pair`` takes it: checksum, then the pco file."""
    depth = pack_depth(pair.depth_units)
    return depth.crc32.to_bytes(4, "little") + depth.data


def delivered(rows: Any) -> Iterator[Delivered]:
    """Make floats of what came as whole numbers, in the main process."""
    for row in rows:
        if "depth_m" in row:
            yield Delivered(row["key"], row["image"], row["depth_m"])
            continue
        batch = PackedBatch(
            keys=tuple(row["key"]),
            image=row["image"].permute(0, 3, 1, 2),
            depth_units=row["units"],
            has_holes=bool(row["holes"].any()),
            steps_per_m=torch.full((len(row["key"]),), float(STEPS_PER_M)),
            depth_m=None,
            sample_seeds=torch.zeros(len(row["key"]), dtype=torch.int64),
            target_size_px=TARGET_PX,
        )
        yield floats(batch)


def floats(packed: PackedBatch) -> Delivered:
    """Make floats of a packed batch."""
    batch = packed.to(CPU)
    return Delivered(list(batch.keys), batch.image.float().div_(255), batch.depth_m)


# Loose files -------------------------------------------------------------------------------------


def write_files(folder: Path, pairs: list[Pair]) -> None:
    """Write a JPEG, a PNG and a packed depth of each pair."""
    for pair in pairs:
        (folder / f"{pair.key}.jpg").write_bytes(pair.jpeg)
        (folder / f"{pair.key}.png").write_bytes(encode_depth_png(pair.depth_units))
        (folder / f"{pair.key}.pco").write_bytes(packed_bytes(pair))


class Files(Dataset[dict[str, Any]]):
    """Loose files, decoded as ``how`` says."""

    def __init__(self, folder: Path, how: str) -> None:
        self.paths = sorted(folder.glob("*.jpg"))
        self.how = how

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> dict[str, Any]:
        path = self.paths[index]
        if self.how == "fast":
            packed = path.with_suffix(".pco").read_bytes()
            return fast_pair(path.stem, path.read_bytes(), packed)
        picture = Image.open(path)
        if self.how == "totensor":
            image = to_tensor(picture)
        else:  # the DenseDepth port: bytes of the picture, turned, made floats
            raw = torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8)
            image = raw.view(picture.size[1], picture.size[0], 3)
            image = image.transpose(0, 1).transpose(0, 2).contiguous().float().div(255)
        return stock_pair(path.stem, image, path.with_suffix(".png").read_bytes())


def read_files(how: str) -> Loader:
    """Read loose files."""
    return lambda folder, processes: delivered(
        DataLoader(Files(folder, how), batch_size=BATCH_SIZE, num_workers=processes)
    )


# WebDataset --------------------------------------------------------------------------------------


def write_tars(folder: Path, pairs: list[Pair]) -> None:
    """Write WebDataset tars with both kinds of depth beside each other."""
    for first in range(0, len(pairs), PER_SHARD):
        with webdataset.TarWriter(str(folder / f"{first:05d}.tar")) as tar:
            for pair in pairs[first : first + PER_SHARD]:
                png, pco = encode_depth_png(pair.depth_units), packed_bytes(pair)
                tar.write({"__key__": pair.key, "jpg": pair.jpeg, "png": png, "pco": pco})


def _tar_stock(sample: dict[str, Any]) -> dict[str, Any]:
    image = to_tensor(Image.open(io.BytesIO(sample["jpg"])))
    return stock_pair(sample["__key__"], image, sample["png"])


def _tar_fast(sample: dict[str, Any]) -> dict[str, Any]:
    return fast_pair(sample["__key__"], sample["jpg"], sample["pco"])


def read_tars(is_fast: bool) -> Loader:
    """Read tars by webdataset; the members that a row does not use are left out while reading."""
    unused = ".png" if is_fast else ".pco"

    def load(folder: Path, processes: int) -> Iterator[Delivered]:
        tars = sorted(str(path) for path in folder.glob("*.tar"))
        rows = webdataset.WebDataset(
            tars, shardshuffle=False, select_files=lambda name: not name.endswith(unused)
        ).map(_tar_fast if is_fast else _tar_stock)
        return delivered(DataLoader(rows, batch_size=BATCH_SIZE, num_workers=processes))

    return load


# This project ------------------------------------------------------------------------------------


def write_ours(folder: Path, pairs: list[Pair]) -> None:
    """Write shards of this project and their indexes."""
    for first in range(0, len(pairs), PER_SHARD):
        path = folder / f"{first:05d}.tar"
        index = write_shard(path, (as_sample(p) for p in pairs[first : first + PER_SHARD]))
        path.with_name(path.name + ".index.json").write_bytes(index.to_bytes())


def as_sample(pair: Pair) -> EncodedSample:
    """Pack a pair as shards hold it."""
    return EncodedSample(pair.key, pair.jpeg, "jpg", pack_depth(pair.depth_units), 1 / STEPS_PER_M)


def ours_in(folder: Path) -> ShardList:
    """Find the shards that ``write_ours`` wrote, and how many samples each has."""
    paths = tuple(sorted(folder.glob("*.tar")))
    local = LocalShards(paths)
    counts = []
    for number in range(len(paths)):
        shard = local.open_shard(number)
        counts.append(len(shard.index))
        shard.file.close()
    return ShardList(tuple(counts), local)


def read_packed(folder: Path, processes: int) -> Iterator[PackedBatch]:
    """Read as training does, in an epoch's order, up to where training on a GPU takes over."""
    source = TrainBatches(
        ours_in(folder),
        seed=0,
        epoch=0,
        rank=0,
        world_size=1,
        global_batch_size=BATCH_SIZE,
        input_size_px=SIZE_PX,
    )
    return iter(BatchLoader(source, loader_processes=processes))


def read_ours(folder: Path, processes: int) -> Iterator[Delivered]:
    """Read as training does, and make floats."""
    return (floats(packed) for packed in read_packed(folder, processes))
