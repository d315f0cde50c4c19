"""The order of an epoch for 100 million samples and 4,096 ranks: time and memory.

    python -m benchmarks.bench_order

What is computed, in a process of its own: the permutation of all shards and where each shard
begins in the epoch, then the first global batch: for each of its 32,768 samples (8 a rank) the
shard, the number in the shard and the seed of its augmentation, sorted and cut into the ranks'
parts. After that, a global batch in the middle of the epoch, as a run does that goes on there.

The peer computes what a walked order has to: numpy's permutation of all samples.
"""

import argparse
import json
import resource
import subprocess
import sys
import time

import numpy as np

from benchmarks.target import print_target
from densedepth.augment import sample_seed
from densedepth.data.order import EpochOrder, rank_slice


def main() -> None:
    """Measure each side in a process of its own and print both."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--num-samples", type=int, default=100_000_000)
    parser.add_argument("--samples-per-shard", type=int, default=256)
    parser.add_argument("--num-ranks", type=int, default=4096)
    parser.add_argument("--samples-per-rank", type=int, default=8)
    parser.add_argument("--side", choices=("ours", "numpy"))
    options = parser.parse_args()
    if options.side:
        print(json.dumps(measure(options)))
        return
    print(
        f"{options.num_samples:,} samples in shards of {options.samples_per_shard}, "
        f"{options.num_ranks:,} ranks, {options.samples_per_rank} samples a rank and batch"
    )
    largest_s, largest_mb = 0.0, 0.0
    for side in ("ours", "numpy"):
        command = [sys.executable, "-m", "benchmarks.bench_order", "--side", side, *sys.argv[1:]]
        output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        for what, (seconds, megabytes) in json.loads(output).items():
            print(f"{side:6} {what:48} {1000 * seconds:9.1f} ms  {megabytes:7.1f} MB more")
            if side == "ours":
                largest_s, largest_mb = max(largest_s, seconds), max(largest_mb, megabytes)
    print_target("order of all ranks, s", largest_s, 1.0)
    print_target("its memory, MB", largest_mb, 100.0)


def measure(options: argparse.Namespace) -> dict[str, tuple[float, float]]:
    """Return seconds and further megabytes (highest, of the whole process) of each step."""
    found: dict[str, tuple[float, float]] = {}
    before_mb = _peak_mb()

    def done(what: str, start_s: float) -> None:
        found[what] = (time.perf_counter() - start_s, _peak_mb() - before_mb)

    if options.side == "numpy":
        start_s = time.perf_counter()
        np.random.default_rng(0).permutation(options.num_samples)
        done("permutation of all samples", start_s)
        return found
    count = options.num_samples // options.samples_per_shard
    sizes = np.full(count, options.samples_per_shard)
    batch = options.num_ranks * options.samples_per_rank
    start_s = time.perf_counter()
    order = EpochOrder(sizes, seed=0, epoch=0)
    _plan_all_ranks(order, 0, batch, options.num_ranks)
    done("the shards' order and all ranks' first batch", start_s)
    middle = order.num_samples // 2 // batch * batch
    start_s = time.perf_counter()
    _plan_all_ranks(order, middle, batch, options.num_ranks)
    done("all ranks' batch in the middle of the epoch", start_s)
    return found


def _plan_all_ranks(order: EpochOrder, first: int, batch: int, num_ranks: int) -> None:
    """Do for every rank what ``TrainBatches.plan`` does for one."""
    positions = np.arange(first, first + batch)
    places = order.places(positions)
    chosen = np.lexsort((places.numbers, places.shards))
    for rank in range(num_ranks):
        mine = chosen[rank_slice(batch, rank, num_ranks)]
        for n in positions[mine]:
            sample_seed(order.seed, order.epoch, int(n))


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000


if __name__ == "__main__":
    main()
