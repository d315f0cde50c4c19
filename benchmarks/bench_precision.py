"""Quality under fast settings: validation after short trainings on real frames, bf16 and float32.

    python -m benchmarks.bench_precision [--seeds 3] [--epochs 4] [--size 96 128] [--fraction 0.2]

Trains the official 795 NYU frames out of ``$DEPTH_SAMPLES/nyu_densedepth`` with a held-out part,
by the preset ``nyu_small``'s settings at a small size. Both precisions take turns, seed by seed,
with the same frames in the same order. bf16 is as good when its mean lies within the spread of
float32's seeds.
"""

import argparse
import os
import statistics
import tempfile
from pathlib import Path

import torch

from benchmarks.target import print_target
from densedepth.data.batch_plans import TrainBatches, ValidationBatches
from densedepth.data.loader import BatchLoader
from densedepth.data.nyu import NyuDenseDepth
from densedepth.data.shard_source import LocalShards, ShardList
from densedepth.data.shards import write_shard
from densedepth.depth_range import DepthRange
from densedepth.learner import Learner
from densedepth.losses import DepthLoss
from densedepth.model import DenseDepth
from densedepth.precision import Precision
from densedepth.sample import Split
from densedepth.schedule import Schedule
from densedepth.train_settings import TrainSettings
from densedepth.training import EpochResult, Listeners, fit
from densedepth.validation import ValidationSplit
from densedepth.weights import load_encoder_weights

RANGE = DepthRange(0.1, 10.0)
BATCH = 8
PROJECT = Path(__file__).resolve().parent.parent
NAMES = ("loss", "delta1", "abs_rel", "rmse")


def shards_of(reader: NyuDenseDepth, split: Split, folder: Path) -> ShardList:
    """Write a split into one shard."""
    path = folder / f"{split}.tar"
    frames = reader.list_frames(split).frames
    index = write_shard(path, (reader.read(frame) for frame in frames))
    path.with_name(path.name + ".index.json").write_bytes(index.to_bytes())
    return ShardList((len(frames),), LocalShards((path,)))


def train(
    args: argparse.Namespace,
    train_shards: ShardList,
    val: ShardList,
    seed: int,
    precision: Precision,
) -> dict[str, float]:
    """Train once; return the last epoch's validation."""
    torch.manual_seed(seed)
    network = DenseDepth("mobilenet_v2", 0.25, input_normalisation="imagenet")
    load_encoder_weights(network, args.weights, None)
    network = network.to(memory_format=torch.channels_last)
    steps = args.epochs * (train_shards.num_used // BATCH)
    settings = TrainSettings(
        Schedule(steps, "cosine", 20),
        learning_rate=4e-4,
        weight_decay=0.01,
        ema_decay=0.98,
        freeze_encoder_norm=True,
        seed=seed,
        precision=precision,
    )
    learner = Learner(
        network, network, DepthLoss(RANGE.max_target), RANGE, settings, torch.device("cpu")
    )
    results: list[EpochResult] = []
    size = (args.size[0], args.size[1])
    fit(
        learner,
        epochs=args.epochs,
        train=lambda epoch, first: BatchLoader(
            TrainBatches(train_shards, seed, epoch, 0, 1, BATCH, size, first)
        ),
        validation=ValidationSplit(
            val.num_used,
            BATCH,
            lambda first: BatchLoader(ValidationBatches(val, 0, 1, BATCH, size, first)),
        ),
        listeners=Listeners(on_step=lambda record: None, on_epoch=results.append),
    )
    return results[-1].metrics


def default_weights() -> str:
    """Return MobileNetV2's ImageNet weights: a file where make put one, else torchvision's."""
    made = PROJECT / ".cache/torch/hub/checkpoints/mobilenet_v2-b0353104.pth"
    given = os.environ.get("DEPTH_MOBILENET_WEIGHTS", "")
    return given or (str(made) if made.is_file() else "imagenet")


def main() -> None:
    """Print each training's figures, then the means and spreads."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--size", type=int, nargs=2, default=[96, 128], help="height width")
    parser.add_argument("--fraction", type=float, default=0.2, help="frames held out")
    parser.add_argument("--weights", default=default_weights(), help="a file, or imagenet")
    args = parser.parse_args()
    samples = os.environ.get("DEPTH_SAMPLES")
    if not samples:
        print("DEPTH_SAMPLES is not set: no real frames on this machine, nothing to compare")
        return
    found: dict[Precision, list[dict[str, float]]] = {"fp32": [], "bf16": []}
    reader = NyuDenseDepth(Path(samples) / "nyu_densedepth", val_fraction=args.fraction)
    with tempfile.TemporaryDirectory() as folder:
        splits: tuple[Split, Split] = ("train", "val")
        shards = [shards_of(reader, split, Path(folder)) for split in splits]
        counts = f"{shards[0].num_used} frames train, {shards[1].num_used} validate"
        print(f"{counts}, {args.epochs} epochs, {args.size[0]}x{args.size[1]}", flush=True)
        for seed in range(args.seeds):
            for precision, results in found.items():
                results.append(train(args, *shards, seed, precision))
                figures = ", ".join(f"{name} {results[-1][name]:.4f}" for name in NAMES)
                print(f"  seed {seed} {precision}: {figures}", flush=True)
    for name in NAMES:
        full, half = ([r[name] for r in found[p]] for p in ("fp32", "bf16"))
        spread = max(full) - min(full)
        apart = statistics.mean(half) - statistics.mean(full)
        print(
            f"{name}: fp32 {statistics.mean(full):.4f} (seeds differ by {spread:.4f}), bf16 "
            f"{apart:+.4f}"
        )
        print_target(f"{name}: bf16 off fp32, in spreads of fp32's seeds", abs(apart) / spread, 1)


if __name__ == "__main__":
    main()
