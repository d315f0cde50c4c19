"""Training steps: the loop against a bare one, precisions, two ranks, saving.

    python -m benchmarks.bench_training [--parts settings,loop,parts,ranks,saving]
        [--device cuda] [--encoder densenet169] [--size 240 320] [--batch 2] [--steps 6]

The peer of the settings is float32, contiguous, eager, as the published code trains; the peer of
the loop is forward, loss, backward and Adam on tensors that are in memory already, on the same
network with the same settings. All ways of a part take turns, step by step, in the same process
with the same threads. On a GPU the defaults are the paper's 480x640 in batches of 8.
"""

import argparse

import torch

from benchmarks.training.breakdown import parts_part
from benchmarks.training.loop import loop_part
from benchmarks.training.ranks import ranks_part
from benchmarks.training.saving import saving_part
from benchmarks.training.settings import settings_part

PARTS = {
    "settings": settings_part,
    "loop": loop_part,
    "parts": parts_part,
    "ranks": ranks_part,
    "saving": saving_part,
}


def main() -> None:
    """Run the parts that are asked for."""
    is_gpu = torch.cuda.is_available()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--device", type=torch.device, default="cuda" if is_gpu else "cpu")
    parser.add_argument("--encoder", default="densenet169")
    parser.add_argument("--size", type=int, nargs=2, default=None, help="height width")
    parser.add_argument("--batch", type=int, default=None)
    parser.add_argument("--steps", type=int, default=None)
    parser.add_argument("--warm", type=int, default=None, help="steps before timing")
    parser.add_argument("--compile", action="store_true", help="also torch.compile: minutes")
    args = parser.parse_args()
    is_gpu = args.device.type == "cuda"
    args.size = args.size or ([480, 640] if is_gpu else [240, 320])
    args.batch = args.batch or (8 if is_gpu else 2)
    args.steps = args.steps or (30 if is_gpu else 6)
    args.warm = args.warm or (5 if is_gpu else 1)
    where = torch.cuda.get_device_name() if is_gpu else "CPU"
    print(
        f"{args.encoder}, {args.size[0]}x{args.size[1]}, batch {args.batch}, {where}, "
        f"{torch.get_num_threads()} threads, torch {torch.__version__}"
    )
    for name in args.parts.split(","):
        print(f"\n-- {name}", flush=True)
        PARTS[name](args)


if __name__ == "__main__":
    main()
