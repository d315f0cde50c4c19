"""Depth maps without loss: the shards' codec against PNG and its rivals, on real maps.

    DEPTH_SAMPLES=<folder of real frames> python -m benchmarks.bench_depth_codec
    python -m benchmarks.bench_depth_codec              # a rendered room, where there are none

For every kind of depth map: bytes, and CPU milliseconds to encode and to decode one, the best of
several passes over the same maps. Each codec's result must be the map that it was given. Rivals
that are not installed are left out; `make bench` installs them.
"""

import argparse
import importlib.util
import io
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from benchmarks.pairs import make_pairs
from densedepth.data.depth_codec import pack_depth, unpack_depth
from densedepth.data.encode import decode_depth_png, encode_depth_png, quantise_depth

Map = np.ndarray[Any, Any]


class Codec(NamedTuple):
    """A way to pack a map: ``decode`` is given the packed map and an array of the map's kind."""

    encode: Callable[[Map], Any]
    decode: Callable[[Any, Map], Map]
    size_bytes: Callable[[Any], int] = len


def main() -> None:
    """Measure all codecs on all kinds of maps and print a table for each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--passes", type=int, default=5)
    options = parser.parse_args()
    for kind, maps in real_maps().items():
        pixels = f"{maps[0].shape[1]}x{maps[0].shape[0]}"
        print(f"\n{kind}: {len(maps)} maps of {pixels}, {8 * maps[0].itemsize} bits")
        print(f"{'codec':34}{'kB':>8}{'encode ms':>11}{'decode ms':>11}")
        for name, codec in codecs().items():
            packed = [codec.encode(m) for m in maps]
            for given, data in zip(maps, packed, strict=True):
                if not np.array_equal(codec.decode(data, given), given):
                    raise SystemExit(f"{name} lost something: its figures would mean nothing")
            encode_ms = best_ms(lambda m, c=codec: c.encode(m), maps, min(2, options.passes))
            both = list(zip(packed, maps, strict=True))
            decode_ms = best_ms(lambda b, c=codec: c.decode(*b), both, options.passes)
            kilobytes = sum(codec.size_bytes(data) for data in packed) / len(packed) / 1000
            print(f"{name:34}{kilobytes:8.1f}{encode_ms:11.2f}{decode_ms:11.2f}", flush=True)


def best_ms(work: Callable[[Any], object], items: list[Any], passes: int) -> float:
    """CPU milliseconds an item, in the best of some passes."""
    times = []
    for _ in range(passes):
        start_s = time.process_time()
        for item in items:
            work(item)
        times.append(time.process_time() - start_s)
    return 1000 * min(times) / len(items)


def codecs() -> dict[str, Codec]:
    """The codecs whose packages are here."""
    found = {
        "pcodec (this project's)": Codec(
            pack_depth, lambda data, _: unpack_depth(data), lambda depth: len(depth.data)
        ),
        "PNG, Pillow, level 4": Codec(encode_depth_png, lambda data, _: decode_depth_png(data)),
        "PNG, Pillow, unchecked": Codec(
            encode_depth_png, lambda data, like: np.asarray(Image.open(io.BytesIO(data)))
        ),
    }
    for package, add in (("cv2", _opencv), ("blosc2", _blosc2), ("zstandard", _zstandard)):
        if importlib.util.find_spec(package):
            found |= add()
        else:
            print(f"{package} is not installed: its rows are left out")
    return found


def _opencv() -> dict[str, Codec]:
    import cv2

    return {
        "PNG, OpenCV": Codec(
            lambda m: cv2.imencode(".png", m)[1].tobytes(),
            lambda data, _: cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED),
        )
    }


def _blosc2() -> dict[str, Codec]:
    import blosc2

    def with_filter(codec: Any, filters: list[Any], level: int) -> Codec:
        def encode(m: Map) -> bytes:
            data: bytes = blosc2.compress2(
                m,
                codec=codec,
                clevel=level,
                filters=filters,
                filters_meta=[0] * len(filters),
                typesize=m.itemsize,
                nthreads=1,
            )
            return data

        def decode(data: bytes, like: Map) -> Map:
            out = np.empty_like(like)
            blosc2.decompress2(data, dst=out, nthreads=1)
            return out

        return Codec(encode, decode)

    names, filters = blosc2.Codec, blosc2.Filter
    return {
        "blosc2 bitshuffle + lz4": with_filter(names.LZ4, [filters.BITSHUFFLE], 5),
        "blosc2 bitshuffle + zstd 5": with_filter(names.ZSTD, [filters.BITSHUFFLE], 5),
        "blosc2 shuffle + zstd 5": with_filter(names.ZSTD, [filters.SHUFFLE], 5),
        "blosc2 bytedelta + zstd 5": with_filter(
            names.ZSTD, [filters.SHUFFLE, filters.BYTEDELTA], 5
        ),
    }


def _zstandard() -> dict[str, Codec]:
    import zstandard

    packer, unpacker = zstandard.ZstdCompressor(level=3), zstandard.ZstdDecompressor()

    def encode(m: Map) -> bytes:
        steps = m.copy()
        steps[:, 1:] -= m[:, :-1]
        return packer.compress(steps.tobytes())

    def decode(data: bytes, like: Map) -> Map:
        steps = np.frombuffer(unpacker.decompress(data), like.dtype).reshape(like.shape)
        return np.cumsum(steps, axis=1, dtype=like.dtype)

    return {"delta + zstd 3": Codec(encode, decode)}


def real_maps() -> dict[str, list[Map]]:
    """Depth maps by what they are."""
    samples = os.environ.get("DEPTH_SAMPLES")
    if not samples:
        return {"rendered": [pair.depth_units for pair in make_pairs(4)]}
    root = Path(samples)
    found = {
        "NYU, Kinect with holes": _pngs(root, "nyu_sync/*/sync_depth_*.png"),
        "NYU, labelled .mat, 1/6000 m": _labelled(root / "nyu_labeled_mini"),
        "NYU, DenseDepth's test": _pngs(root, "nyu_densedepth/data/nyu2_test/*.png", 20),
        "NYU, DenseDepth's training": _pngs(root, "nyu_densedepth/data/nyu2_train/*/*.png", 50),
        "7-Scenes, Kinect with holes": _pngs(root, "rgbd_7scenes/**/*depth*.png", 2),
        "KITTI, annotated": _pngs(root, "kitti/data_depth_annotated/**/*.png"),
    }
    return {kind: maps for kind, maps in found.items() if maps}


def _pngs(root: Path, pattern: str, every: int = 1) -> list[Map]:
    paths = sorted(root.glob(pattern))[::every]
    return [decode_depth_png(path.read_bytes()) for path in paths]


def _labelled(root: Path) -> list[Map]:
    import h5py

    path = root / "nyu_depth_v2_labeled.mat"
    if not path.is_file():
        return []
    with h5py.File(path) as mat:
        return [np.ascontiguousarray(quantise_depth(m.T, 1 / 6000)) for m in mat["depths"]]


if __name__ == "__main__":
    main()
