"""litdata and Mosaic Streaming for ``bench_loader``; imported where a row of theirs is run."""

import io
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image
from torch.utils.data import DataLoader
from torchvision.transforms.functional import to_tensor

from benchmarks.loader_peers import (
    BATCH_SIZE,
    Delivered,
    Loader,
    delivered,
    fast_pair,
    packed_bytes,
    stock_pair,
)
from benchmarks.pairs import Pair
from densedepth.data.encode import encode_depth_png


def _litdata_sample(pair: Pair, is_fast: bool) -> dict[str, Any]:
    if is_fast:
        return {"key": pair.key, "jpg": pair.jpeg, "depth": packed_bytes(pair)}
    from litdata.types import Jpeg

    png = encode_depth_png(pair.depth_units)
    return {"key": pair.key, "jpg": Jpeg(bytes=pair.jpeg), "depth": png}


def write_litdata(folder: Path, pairs: list[Pair], is_fast: bool) -> None:
    """Write litdata's chunks: JPEGs by its JPEG type (stock), or all as bytes."""
    import litdata

    litdata.optimize(
        fn=partial(_litdata_sample, is_fast=is_fast),
        inputs=pairs,
        output_dir=str(folder),
        chunk_bytes="64MB",
        num_workers=1,
        start_method="fork",
        verbose=False,
    )


def read_litdata(is_fast: bool) -> Loader:
    """Read litdata's chunks; its own JPEG decoder is torchvision's."""
    import litdata

    class Chunks(litdata.StreamingDataset):
        """Finishes each sample in the loader's process."""

        def __getitem__(self, index: Any) -> dict[str, Any]:
            row = super().__getitem__(index)
            if is_fast:
                return fast_pair(row["key"], row["jpg"], bytes(row["depth"]))  # views of its chunk
            return stock_pair(row["key"], row["jpg"].float().div_(255), row["depth"])

    def load(folder: Path, processes: int) -> Iterator[Delivered]:
        rows = Chunks(str(folder), shuffle=False)
        return delivered(
            litdata.StreamingDataLoader(rows, batch_size=BATCH_SIZE, num_workers=processes)
        )

    return load


def write_mosaic(folder: Path, pairs: list[Pair], is_fast: bool) -> None:
    """Write Mosaic's shards: pictures and depth by its JPEG and PNG types (stock), or as bytes."""
    from streaming import MDSWriter

    columns = {"key": "str", "jpg": "bytes", "depth": "bytes"}
    if not is_fast:  # its JPEG type takes a file on disk over byte for byte, else encodes anew
        columns = {"key": "str", "jpg": "jpeg", "depth": "png"}
    with MDSWriter(out=str(folder / "mds"), columns=columns) as writer:
        for pair in pairs:
            row: dict[str, Any] = {"key": pair.key, "jpg": pair.jpeg, "depth": None}
            if is_fast:
                row["depth"] = packed_bytes(pair)
            else:
                path = folder / "one.jpg"
                path.write_bytes(pair.jpeg)
                row["jpg"] = Image.open(path)
                row["depth"] = Image.open(io.BytesIO(encode_depth_png(pair.depth_units)))
            writer.write(row)


def read_mosaic(is_fast: bool) -> Loader:
    """Read Mosaic's shards."""
    from streaming import StreamingDataset

    class Shards(StreamingDataset):
        """Finishes each sample in the loader's process."""

        def __getitem__(self, at: Any) -> dict[str, Any]:
            row = super().__getitem__(at)
            if is_fast:
                return fast_pair(row["key"], row["jpg"], row["depth"])
            image = to_tensor(row["jpg"])
            depth_png = row["depth"].fp.getvalue()
            return stock_pair(row["key"], image, depth_png)

    def load(folder: Path, processes: int) -> Iterator[Delivered]:
        rows = Shards(local=str(folder / "mds"), shuffle=False, batch_size=BATCH_SIZE)
        return delivered(DataLoader(rows, batch_size=BATCH_SIZE, num_workers=processes))

    return load
