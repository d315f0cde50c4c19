"""Depth filling by colorization, against the field's way and a plain vectorised one.

Run:
    OMP_NUM_THREADS=1 python -m benchmarks.bench_colorization
    OMP_NUM_THREADS=1 DEPTH_SAMPLES=<folder of real frames> python -m benchmarks.bench_colorization
    OMP_NUM_THREADS=1 python -m benchmarks.bench_colorization --no-loop  # without the slow peer

The field's way is the NYU toolbox's and its ports': two loops over the pixels for the weights,
then a sparse direct solution of all pixels. It is written here from the definition
(densedepth/data/colorization.py). The second peer has the same solution after vectorised weights.
One thread counts: frames are filled in parallel. Without DEPTH_SAMPLES the frames are synthetic.
"""

import argparse
import os
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.sparse
from PIL import Image
from scipy.sparse.linalg import spsolve

from benchmarks.target import print_target
from densedepth.data.colorization import fill_depth

GREY = np.array([0.2125, 0.7154, 0.0721])
OFFSETS = [(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1) if (y, x) != (0, 0)]


@dataclass(frozen=True)
class Frame:
    """A picture and its depth with holes, and how long filling it may take on one core."""

    name: str
    image: np.ndarray
    depth_m: np.ndarray
    at_most_s: float


MAX_DIFFERENCE_M = 1e-3
NYU_AT_MOST_S, KITTI_AT_MOST_S = 0.7, 1.2


def loop_weights(image: np.ndarray) -> scipy.sparse.csr_matrix:
    """Weigh neighbours in the field's way, pixel by pixel."""
    grey = image / 255 @ GREY
    height, width = grey.shape
    places = np.arange(grey.size).reshape(height, width)
    rows = np.zeros(9 * grey.size, np.intp)
    columns = np.zeros(9 * grey.size, np.intp)
    weights = np.zeros(9 * grey.size)
    filled, near = 0, np.zeros(9)
    for x in range(width):
        for y in range(height):
            first, count = filled, 0
            for v in range(max(0, y - 1), min(height, y + 2)):
                for u in range(max(0, x - 1), min(width, x + 2)):
                    if v == y and u == x:
                        continue
                    rows[filled], columns[filled] = places[y, x], places[v, u]
                    near[count] = grey[v, u]
                    filled, count = filled + 1, count + 1
            near[count] = grey[y, x]
            window, squares = near[: count + 1], (near[:count] - grey[y, x]) ** 2
            scale = 0.6 * np.mean((window - np.mean(window)) ** 2)
            scale = max(scale, -np.min(squares) / np.log(0.01), 2e-6)
            weight = np.exp(-squares / scale)
            weights[first:filled] = weight / np.sum(weight)
    entries = weights[:filled], (rows[:filled], columns[:filled])
    return scipy.sparse.csr_matrix(entries, (grey.size, grey.size))


def array_weights(image: np.ndarray) -> scipy.sparse.csr_matrix:
    """Weigh neighbours with whole-frame arrays, float64."""
    grey = image / 255 @ GREY
    height, width = grey.shape
    framed = np.pad(grey, 1, constant_values=np.nan)
    windows = [framed[1 + y : 1 + y + height, 1 + x : 1 + x + width] for y, x in OFFSETS]
    near = np.stack(windows)
    squares = (near - grey) ** 2
    every = np.concatenate([near, grey[None]])
    variance = np.nanmean((every - np.nanmean(every, axis=0)) ** 2, axis=0)
    scale = np.maximum(0.6 * variance, -np.nanmin(squares, axis=0) / np.log(0.01))
    weights = np.nan_to_num(np.exp(-squares / np.maximum(scale, 2e-6)))
    weights /= weights.sum(axis=0)
    places = np.pad(np.arange(grey.size).reshape(height, width), 1)
    columns = [places[1 + y : 1 + y + height, 1 + x : 1 + x + width] for y, x in OFFSETS]
    rows = np.broadcast_to(places[1:-1, 1:-1], near.shape)
    inside = weights > 0
    entries = weights[inside], (rows[inside], np.stack(columns)[inside])
    return scipy.sparse.csr_matrix(entries, (grey.size, grey.size))


def solve(weights: scipy.sparse.csr_matrix, depth_m: np.ndarray) -> np.ndarray:
    """Solve the definition for all pixels at once and put the measured ones back."""
    known = (depth_m.reshape(-1) > 0).astype(np.float64)
    matrix = scipy.sparse.identity(depth_m.size) - weights + scipy.sparse.diags(known)
    solution = spsolve(matrix.tocsc(), known * depth_m.reshape(-1))
    return np.where(depth_m > 0, depth_m, solution.reshape(depth_m.shape))


def shaded(height: int, width: int, num_areas: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Picture and depth of slanted planes: areas of their own colour, texture and noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width] / width
    image, depth_m = np.zeros((height, width, 3)), np.zeros((height, width))
    for number in range(num_areas):
        size = 1.5 if number == 0 else rng.uniform(0.05, 0.3)
        turn, up, across = rng.uniform(0, np.pi), *rng.uniform(0, (height / width, 1))
        along = (x - across) * np.cos(turn) + (y - up) * np.sin(turn)
        apart = (y - up) * np.cos(turn) - (x - across) * np.sin(turn)
        inside = (abs(along) < size) & (abs(apart) < size * rng.uniform(0.3, 1))
        colour, light = rng.uniform(20, 230, 3), 1 + 0.4 * along + 0.1 * np.sin(300 * apart)
        image[inside] = (colour * light[..., None])[inside]
        depth_m[inside] = (rng.uniform(1.5, 8) + rng.uniform(-3, 3) * along)[inside]
    image += rng.normal(0, 3, image.shape)
    return image.clip(0, 255).astype(np.uint8), depth_m.clip(0.7, 9.9).astype(np.float32)


def nyu_like(seed: int = 0) -> Frame:
    """640x480 with a frame and blobs missing, 20 % of the pixels."""
    image, depth_m = shaded(480, 640, 40, seed)
    rng = np.random.default_rng(seed + 1)
    y, x = np.mgrid[:480, :640]
    depth_m[(y < 8) | (y >= 472) | (x < 8) | (x >= 632)] = 0
    while (depth_m == 0).mean() < 0.2:
        up, across, size = rng.uniform(0, 480), rng.uniform(0, 640), rng.exponential(12)
        depth_m[abs(y - up) ** 1.5 + abs(x - across) ** 1.5 < size**1.5] = 0
    return Frame("NYU-like", image, depth_m, NYU_AT_MOST_S)


def kitti_like(seed: int = 0) -> Frame:
    """1242x375, 79 % missing: no LiDAR in the upper third, scattered rows below."""
    image, depth_m = shaded(375, 1242, 80, seed)
    rng = np.random.default_rng(seed + 1)
    row = np.arange(375)[:, None]
    depth_m *= 8
    depth_m[rng.random(depth_m.shape) > 0.324 * (row >= 130) * (1 - 0.15 * np.sin(row))] = 0
    return Frame("KITTI-like", image, depth_m, KITTI_AT_MOST_S)


def real_frames(samples: Path) -> list[Frame]:
    """Read one frame of NYU's labelled set and one of KITTI's annotated depth."""
    import h5py

    with h5py.File(samples / "nyu_labeled_mini" / "nyu_depth_v2_labeled.mat") as file:
        image = np.ascontiguousarray(file["images"][0].transpose(2, 1, 0))
        depth_m = np.ascontiguousarray(file["rawDepths"][0].T.astype(np.float32))
    frames = [Frame("NYU real", image, depth_m, NYU_AT_MOST_S)]
    truth = min((samples / "kitti" / "data_depth_annotated").rglob("image_02/*.png"))
    picture = next((samples / "kitti" / "raw").rglob(f"*_0000_sync/image_02/data/{truth.name}"))
    depth_m = (np.asarray(Image.open(truth)) / 256).astype(np.float32)
    image = np.asarray(Image.open(picture))
    return [*frames, Frame("KITTI real", image, depth_m, KITTI_AT_MOST_S)]


def seconds(start: float) -> float:
    """Wall time since ``start``."""
    return time.perf_counter() - start


def compare(frame: Frame, repeats: int, with_loop: bool) -> None:
    """Print times of the three ways and the largest difference to the direct solution."""
    start = time.perf_counter()
    weights = array_weights(frame.image)
    weights_s = seconds(start)
    direct = solve(weights, frame.depth_m)
    vectorised_s = seconds(start)
    times_s = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        filled = fill_depth(frame.image, frame.depth_m)
        times_s.append(seconds(start))
    ours_s = statistics.median(times_s[1:])
    height, width = frame.depth_m.shape
    print(
        f"{frame.name}: {width}x{height}, {(frame.depth_m == 0).mean():.1%} missing, depth "
        f"{frame.depth_m[frame.depth_m > 0].min():.2f} to {frame.depth_m.max():.2f} m"
    )
    if with_loop:
        start = time.perf_counter()
        looped = loop_weights(frame.image)
        loop_s = seconds(start)
        solve(looped, frame.depth_m)
        field_s = seconds(start)
        print(
            f"  field: loops {loop_s:6.2f} + spsolve {field_s - loop_s:6.2f} = {field_s:6.2f} s"
            f"   {field_s / ours_s:6.1f} x ours   "
            f"(weights differ by {abs(looped - weights).max():.0e})"
        )
    difference_m = float(abs(filled - direct).max())
    solve_s = vectorised_s - weights_s
    print(
        f"  arrays:      {weights_s:6.2f} + spsolve {solve_s:6.2f} = {vectorised_s:6.2f} s"
        f"   {vectorised_s / ours_s:6.1f} x ours"
    )
    print(
        f"  ours: median of {repeats} {ours_s:.3f} s (min {min(times_s):.3f}, first "
        f"{times_s[0]:.3f}); largest difference to the direct solution {difference_m:.1e} m"
    )
    if difference_m > MAX_DIFFERENCE_M:
        raise SystemExit(f"the filling differs by more than {MAX_DIFFERENCE_M} m: it is wrong")
    print_target(f"filling of {frame.name}, s on one core", ours_s, frame.at_most_s)


def main() -> None:
    """Compare on synthetic frames, or on real ones where there are some."""
    parser = argparse.ArgumentParser(description="Filling of depth by colorization.")
    parser.add_argument("--repeats", type=int, default=7, help="timed runs of ours")
    parser.add_argument("--no-loop", action="store_true", help="leave the field's loops out")
    arguments = parser.parse_args()
    print(f"OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS', 'not set')}")
    samples = os.environ.get("DEPTH_SAMPLES")
    frames = real_frames(Path(samples)) if samples else [nyu_like(), kitti_like()]
    for frame in frames:
        compare(frame, arguments.repeats, not arguments.no_loop)


if __name__ == "__main__":
    main()
