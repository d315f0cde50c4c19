"""Writing pairs into shards, JPEGs passed through: this project's writer against others.

    DEPTH_SAMPLES=<folder of real frames> python -m benchmarks.bench_shard_writing

Every row begins with the same JPEG bytes and 16-bit depth arrays in memory, encodes the depth
without loss and writes files to the same folder, in one process; rounds go through all rows in
turn, and the median counts. ``checked`` is what the sharding stage does: the JPEG is decoded too,
sizes are compared, and the tar's sha256 is taken.
"""

import argparse
import hashlib
import importlib.util
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import numpy as np
import webdataset

from benchmarks.loader_peers import PER_SHARD, STEPS_PER_M, as_sample, packed_bytes
from benchmarks.pairs import Pair, make_pairs
from benchmarks.target import print_target
from densedepth.data.encode import encode_depth_png, encode_sample
from densedepth.data.shards import write_shard
from densedepth.sample import EncodedSample

Write = Callable[[Path, list[Pair]], None]
Encode = Callable[[Pair], bytes]


def write_ours(folder: Path, pairs: list[Pair], is_checked: bool = False) -> None:
    """Write shards and their indexes."""
    for number, part in enumerate(_parts(pairs)):
        path = folder / f"{number:05d}.tar"
        index = write_shard(path, (_checked(p) if is_checked else as_sample(p) for p in part))
        path.with_suffix(".index.json").write_bytes(index.to_bytes())
        if is_checked:
            with path.open("rb") as stream:
                hashlib.file_digest(stream, "sha256")


def _checked(pair: Pair) -> EncodedSample:
    return encode_sample(
        pair.key,
        pair.jpeg,
        pair.depth_units,
        1 / STEPS_PER_M,
        {},
        image_name="image",
        depth_name="depth",
    )


def write_webdataset(folder: Path, pairs: list[Pair], encode: Encode, extension: str) -> None:
    """Write tars by webdataset's writer."""
    for number, part in enumerate(_parts(pairs)):
        with webdataset.TarWriter(str(folder / f"{number:05d}.tar")) as tar:
            for pair in part:
                tar.write({"__key__": pair.key, "jpg": pair.jpeg, extension: encode(pair)})


def write_mosaic(folder: Path, pairs: list[Pair], encode: Encode) -> None:
    """Write Mosaic's shards."""
    from streaming import MDSWriter

    columns = {"key": "str", "jpg": "bytes", "depth": "bytes"}
    with MDSWriter(out=str(folder), columns=columns) as writer:
        for pair in pairs:
            writer.write({"key": pair.key, "jpg": pair.jpeg, "depth": encode(pair)})


def write_litdata(folder: Path, pairs: list[Pair], encode: Encode) -> None:
    """Write litdata's chunks."""
    from litdata.streaming.writer import BinaryWriter

    writer = BinaryWriter(str(folder), chunk_bytes="64MB")
    for index, pair in enumerate(pairs):
        writer[index] = {"key": pair.key, "jpg": pair.jpeg, "depth": encode(pair)}
    writer.done()
    writer.merge()


def rows() -> dict[str, Write]:
    """The writers whose packages are here."""
    found: dict[str, Write] = {
        "this project": write_ours,
        "this project, checked": partial(write_ours, is_checked=True),
        "webdataset, PNG by Pillow": partial(
            write_webdataset, encode=_pillow_default, extension="depth.png"
        ),
        "webdataset, PNG as this project's": partial(
            write_webdataset, encode=_pillow_4, extension="depth.png"
        ),
        "webdataset, pcodec": partial(write_webdataset, encode=packed_bytes, extension="pco"),
    }
    if importlib.util.find_spec("cv2"):
        found["webdataset, PNG by OpenCV"] = partial(
            write_webdataset, encode=_opencv, extension="depth.png"
        )
    if importlib.util.find_spec("zstandard"):
        found["webdataset, delta + zstd"] = partial(
            write_webdataset, encode=_zstandard, extension="zst"
        )
    for package, name, write in (
        ("litdata", "litdata", write_litdata),
        ("streaming", "Mosaic Streaming", write_mosaic),
    ):
        if not importlib.util.find_spec(package):
            print(f"{name} is not installed: its rows are left out (`make bench` installs it)")
            continue
        found[f"{name}, PNG as this project's"] = partial(write, encode=_pillow_4)
        found[f"{name}, pcodec"] = partial(write, encode=packed_bytes)
    return found


def _pillow_default(pair: Pair) -> bytes:
    import io

    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(pair.depth_units).save(stream, format="PNG")
    return stream.getvalue()


def _pillow_4(pair: Pair) -> bytes:
    return encode_depth_png(pair.depth_units)


def _opencv(pair: Pair) -> bytes:
    import cv2

    return bytes(cv2.imencode(".png", pair.depth_units)[1].tobytes())


def _zstandard(pair: Pair) -> bytes:
    import zstandard

    steps = pair.depth_units.copy()
    steps[:, 1:] -= pair.depth_units[:, :-1]
    return bytes(zstandard.ZstdCompressor(level=3).compress(np.ascontiguousarray(steps)))


def _parts(pairs: list[Pair]) -> Iterable[list[Pair]]:
    return (pairs[first : first + PER_SHARD] for first in range(0, len(pairs), PER_SHARD))


def main() -> None:
    """Time all writers in turn and print the medians."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--num-images", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    pairs, writers = make_pairs(options.num_images), rows()
    seconds: dict[str, list[float]] = {name: [] for name in writers}
    cpu_s: dict[str, list[float]] = {name: [] for name in writers}
    size_mb: dict[str, float] = {}
    for _ in range(options.rounds):
        for name, write in writers.items():
            with tempfile.TemporaryDirectory() as scratch:
                start_s, start_cpu_s = time.perf_counter(), time.process_time()
                write(Path(scratch), pairs)
                seconds[name].append(time.perf_counter() - start_s)
                cpu_s[name].append(time.process_time() - start_cpu_s)
                files = [f for f in Path(scratch).rglob("*") if f.is_file()]
                size_mb[name] = sum(f.stat().st_size for f in files) / 1e6
    ours = statistics.median(seconds["this project"])
    print(f"{'writer':38}{'images/s':>10}{'CPU ms/image':>14}{'MB':>8}{'ours is':>10}")
    for name, times in seconds.items():
        middle = statistics.median(times)
        cpu_ms = 1000 * statistics.median(cpu_s[name]) / len(pairs)
        print(
            f"{name:38}{len(pairs) / middle:10.0f}{cpu_ms:14.2f}{size_mb[name]:8.1f}"
            f"{middle / ours:9.2f} x"
        )
    peers = [statistics.median(times) for name, times in seconds.items() if ", pcodec" in name]
    share = min(peers) / ours
    print_target("speed beside the best peer with the same codec", share, 0.9, at_least=True)


if __name__ == "__main__":
    main()
