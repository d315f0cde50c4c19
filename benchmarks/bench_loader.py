"""Reading real pairs into batches: this project's loader against loose files and other loaders.

    DEPTH_SAMPLES=<folder of real frames> python -m benchmarks.bench_loader
    python -m benchmarks.bench_loader --num-images 120 --rounds 1  # rendered rooms, quickly

Every row delivers the same tensors in batches of 8: pictures 3x480x640 as floats in 0..1 and depth
1x240x320 in metres, its inverse averaged. They are compared before anything is timed. ``stock``
rows use the loader as its manual shows it, with depth as 16-bit PNG. ``same decoders`` rows give
the loader this project's decoders (simplejpeg, pcodec) and its transport: uint8 and uint16 until
the main process, which makes floats of them by this project's code. The last rows are this
project's: to floats, and as uint8 and uint16, which is where training on a GPU takes over.

Each figure is taken in a process of its own; rounds go through all rows in turn; medians count.
Speed is measured from the fifth batch to the last. CPU is that of the main process and of the
loader's, their start and end included. Files are in the page cache.
"""

import argparse
import importlib
import multiprocessing
import resource
import statistics
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import simplejpeg
import torch
from pcodec import standalone
from torch import Tensor

from benchmarks import loader_peers as peers
from benchmarks.pairs import SIZE_PX, Pair, make_pairs
from benchmarks.target import print_target
from densedepth.data.loader import read_encoded

WARM_UP = 5
PACKAGES = (
    "torch",
    "pillow",
    "simplejpeg",
    "pcodec",
    "webdataset",
    "litdata",
    "mosaicml-streaming",
)


class Row(NamedTuple):
    """A line of the table: its folder, how that is written, and how it is read."""

    folder: str
    write: Callable[[Path, list[Pair]], None]
    read: Callable[[], peers.Loader]
    is_stock: bool


def _package(name: str, is_fast: bool) -> Row:
    def write(folder: Path, pairs: list[Pair]) -> None:
        from benchmarks import loader_packages

        getattr(loader_packages, f"write_{name}")(folder, pairs, is_fast)

    def read() -> peers.Loader:
        from benchmarks import loader_packages

        loader: peers.Loader = getattr(loader_packages, f"read_{name}")(is_fast)
        return loader

    return Row(f"{name}{'-fast' if is_fast else ''}", write, read, not is_fast)


ROWS: dict[str, Row] = {
    "loose files, as the DenseDepth port": Row(
        "files", peers.write_files, lambda: peers.read_files("port"), True
    ),
    "loose files, PIL + ToTensor": Row(
        "files", peers.write_files, lambda: peers.read_files("totensor"), True
    ),
    "webdataset, PIL": Row("tars", peers.write_tars, lambda: peers.read_tars(False), True),
    "litdata": _package("litdata", False),
    "Mosaic Streaming": _package("mosaic", False),
    "loose files, same decoders": Row(
        "files", peers.write_files, lambda: peers.read_files("fast"), False
    ),
    "webdataset, same decoders": Row(
        "tars", peers.write_tars, lambda: peers.read_tars(True), False
    ),
    "litdata, same decoders": _package("litdata", True),
    "Mosaic Streaming, same decoders": _package("mosaic", True),
}
OURS = Row("ours", peers.write_ours, lambda: peers.read_ours, False)
FLOAT, PACKED = "this project", "this project, as uint8 and uint16"
ALONE = "decoding alone, no loader"


def write(folder: Path, rows: list[str], num_images: int) -> None:
    """Write the pairs in every row's form."""
    pairs = make_pairs(num_images)
    for row in {r.folder: r for r in (*(ROWS[name] for name in rows), OURS)}.values():
        (folder / row.folder).mkdir()
        row.write(folder / row.folder, pairs)


def measure(name: str, folder: Path, processes: int) -> dict[str, float]:
    """Pass over all pairs once, in this process."""
    torch.set_num_threads(1)
    if name == ALONE:
        return decode_alone(folder / OURS.folder)
    if name == PACKED:
        batches: Iterator[Any] = peers.read_packed(folder / OURS.folder, processes)
    else:
        row = OURS if name == FLOAT else ROWS[name]
        batches = row.read()(folder / row.folder, processes)
    before_s, came_s = _cpu_s(), []
    for _ in batches:
        came_s.append(time.perf_counter())
    del batches
    images = peers.BATCH_SIZE * len(came_s)
    seconds = came_s[-1] - came_s[WARM_UP - 1]
    return {
        "images_per_s": (images - peers.BATCH_SIZE * WARM_UP) / seconds,
        "cpu_ms": 1000 * (_cpu_s() - before_s) / images,
    }


def decode_alone(folder: Path) -> dict[str, float]:
    """Decode all pairs out of memory into memory that is used again: what no loader can beat."""
    encoded = list(read_encoded(peers.ours_in(folder)))
    image, units = np.zeros((*SIZE_PX, 3), np.uint8), np.zeros(SIZE_PX, np.uint16)
    start_s = time.perf_counter()
    for sample in encoded:
        simplejpeg.decode_jpeg(sample.image, colorspace="RGB", buffer=image)
        standalone.simple_decompress_into(sample.depth.data, units.reshape(-1))
    seconds = time.perf_counter() - start_s
    return {"images_per_s": len(encoded) / seconds, "cpu_ms": 1000 * seconds / len(encoded)}


def compare(folder: Path, rows: list[str]) -> None:
    """Make sure that all rows deliver the same tensors."""
    reference = {}
    for batch in peers.read_files("totensor")(folder / "files", 0):
        for key, image, depth_m in zip(*batch, strict=True):
            reference[key] = (_digest(image), depth_m.clone())
    for name in [*rows, FLOAT]:
        row = OURS if name == FLOAT else ROWS[name]
        seen, largest = 0, 0.0
        for batch in row.read()(folder / row.folder, 0):
            for key, image, depth_m in zip(*batch, strict=True):
                digest, expected_m = reference[key]
                largest = max(largest, float((depth_m / expected_m - 1).abs().max()))
                if _digest(image) != digest or largest > 1e-5:
                    raise SystemExit(f"{name}: {key} differs, the timing would mean nothing")
                seen += 1
        if seen < len(reference) - peers.BATCH_SIZE:
            raise SystemExit(f"{name}: {seen} of {len(reference)} pairs")
        print(f"equal: {name:38} {seen} pairs, depth to {largest:.0e}", flush=True)


def _digest(image: Tensor) -> int:
    return zlib.crc32(image.contiguous().numpy())


def _cpu_s() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used)


def _apart(work: Callable[..., Any], *arguments: Any) -> Any:
    """Do something in a process of its own, forked from this one, which has only imported."""
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=lambda: there.send(work(*arguments)))
    process.start()
    there.close()
    try:
        result = here.recv()
    except EOFError:
        raise SystemExit(f"{work.__name__}{arguments} failed, see above") from None
    process.join()
    return result


def _installed() -> list[str]:
    """Rows whose packages are here; say which are not, and the versions of the others."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
            if package in ("litdata", "mosaicml-streaming"):
                importlib.import_module("litdata" if package == "litdata" else "streaming")
        except PackageNotFoundError:
            print(f"{package} is not installed: its rows are left out (`make bench` installs it)")
    print(", ".join(f"{name} {number}" for name, number in found.items()))
    missing = {"litdata", "mosaicml-streaming"} - found.keys()
    return [
        name
        for name in ROWS
        if not any(name.lower().startswith(m.split("ml-")[0]) for m in missing)
    ]


def main() -> None:
    """Write all forms, compare what rows deliver, time them in turn and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--num-images", type=int, default=600)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    if options.num_images <= peers.PER_SHARD:
        parser.error(f"--num-images is at most {peers.PER_SHARD}: two processes need two shards")
    rows = _installed()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        _apart(write, folder, rows, options.num_images)
        _apart(compare, folder, rows)
        figures: dict[tuple[str, int], list[dict[str, float]]] = {}
        for _ in range(options.rounds):
            for name in (*rows, FLOAT, PACKED, ALONE):
                for processes in (1,) if name == ALONE else (1, 2):
                    found = _apart(measure, name, folder, processes)
                    figures.setdefault((name, processes), []).append(found)
    report(figures, rows)


def report(figures: dict[tuple[str, int], list[dict[str, float]]], rows: list[str]) -> None:
    """Print medians, their spread, and the ratios."""

    def median(name: str, processes: int, what: str) -> float:
        return statistics.median(f[what] for f in figures[name, processes])

    print("\nimages/s: median (lowest-highest)")
    print(f"{'loader':38} {'1 process':>16} {'2 processes':>16}  CPU ms/image of 1, of 2")
    for name in (*rows, FLOAT, PACKED, ALONE):
        cells = []
        for processes in (1, 2):
            speeds = [f["images_per_s"] for f in figures.get((name, processes), [])]
            spread = f"({min(speeds):.0f}-{max(speeds):.0f})" if speeds else ""
            middle = f"{statistics.median(speeds):.0f}" if speeds else "-"
            cells.append(f"{middle} {spread}")
        cpu_ms = [f"{median(name, n, 'cpu_ms'):6.2f}" for n in (1, 2) if (name, n) in figures]
        print(f"{name:38} {cells[0]:>16} {cells[1]:>16}  {'  '.join(cpu_ms)}")
    ours = median(FLOAT, 1, "images_per_s")
    print("\none loader process, to floats: this project against")
    for name in rows:
        kind = "stock" if ROWS[name].is_stock else "     "
        print(f"  {kind} {name:38} {ours / median(name, 1, 'images_per_s'):5.2f} x")
    stock = max(median(n, 1, "images_per_s") for n in rows if ROWS[n].is_stock)
    fast = max(median(n, 1, "images_per_s") for n in rows if not ROWS[n].is_stock)
    share = median(PACKED, 1, "images_per_s") / median(ALONE, 1, "images_per_s")
    print_target("times the best stock peer", ours / stock, 3.5, at_least=True)
    print_target("times the best peer with the same decoders", ours / fast, 1.3, at_least=True)
    for limit in (0.6, 0.85):  # what it must be, and what it should come near to
        print_target("as uint8 and uint16, share of decoding alone", share, limit, at_least=True)


if __name__ == "__main__":
    main()
