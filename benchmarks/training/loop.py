"""The whole loop, shards and loader included, beside a bare one, turn by turn."""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch

from benchmarks.loader_peers import ours_in, write_ours
from benchmarks.pairs import make_pairs
from benchmarks.target import print_target
from benchmarks.training.step import Timer, make_batch, make_learner
from densedepth.cuda_graph import EAGER_STEPS, replay_as_graph
from densedepth.data.batch import Batch, PackedBatch
from densedepth.data.batch_plans import TrainBatches
from densedepth.data.loader import BatchLoader
from densedepth.depth_range import NYU
from densedepth.learner import Learner
from densedepth.precision import autocast, set_float32
from densedepth.training import Listeners, fit


def loop_part(args: argparse.Namespace) -> None:
    """Compare the whole loop, shards and loader included, with the bare step."""
    changes = {"precision": "bf16"} if args.device.type == "cuda" else {}
    set_float32(changes.get("precision", "fp32"))
    learner, bare = make_learner(args, **changes), make_learner(args, **changes)
    # A GPU stands still at the turns; between them the host works ahead, as in a training.
    in_a_row = 20 if args.device.type == "cuda" else 1
    turns = Turns(
        bare_step(bare, make_batch(args)),
        Timer(args.device),
        args.warm,
        max(3, 2 * args.steps // in_a_row),
        in_a_row,
    )
    count = turns.warm + turns.num_turns * in_a_row
    with tempfile.TemporaryDirectory() as folder:
        fit(
            learner,
            epochs=1,
            train=lambda epoch, first: turns.beside(from_shards(args, Path(folder), count)),
            listeners=Listeners(on_step=lambda record: None, on_epoch=lambda result: None),
        )
    set_float32("fp32")
    bare_s, ours_s = statistics.median(turns.bare_s), statistics.median(turns.ours_s)
    print(
        f"bare loop {args.batch / bare_s:.2f} images/s, ours {args.batch / ours_s:.2f}, "
        f"{in_a_row} steps in turns, {turns.num_turns} turns each"
    )
    share = bare_s / ours_s
    print_target("the loop's images/s, share of the bare loop's", share, 0.98, at_least=True)
    wait = sum(turns.wait_s) / sum(turns.ours_s)
    print_target("time that waits for data, %", 100 * wait, 2)


def bare_step(learner: Learner, batch: Batch) -> Callable[[], object]:
    """One step as a plain script does it, on what is in memory already."""
    optimiser = torch.optim.Adam(learner.network.parameters(), 1e-4, fused=True)
    image = (batch.image.float() / 255).contiguous(memory_format=torch.channels_last)
    target = NYU.to_target(batch.depth_m)

    def step() -> None:
        learner.network.train()
        optimiser.zero_grad(set_to_none=True)
        with autocast(learner.settings.precision, learner.device):
            predicted = learner.network(image)
        learner.loss(predicted.float(), target).total.backward()
        optimiser.step()

    if learner.device.type == "cuda" and learner.settings.cuda_graphs:
        for _ in range(EAGER_STEPS):
            step()
        replay_as_graph(learner.network, image, learner.settings.precision)
    return step


@dataclass
class Turns:
    """Does bare steps after the loop's, as many, and takes the time of a step of both.

    The loop's is everything between two turns of bare ones: waiting for batches, copying them, the
    steps, their figures.

    Attributes:
        bare: does one bare step.
        timer: of the device.
        warm: steps of both before the first turn.
        num_turns: how often each has its turn.
        in_a_row: steps of a turn.
        bare_s: a bare step of each turn.
        ours_s: a step of the loop's.
        wait_s: the part of it that waited for a batch.
    """

    bare: Callable[[], object]
    timer: Timer
    warm: int
    num_turns: int
    in_a_row: int
    bare_s: list[float] = field(default_factory=list)
    ours_s: list[float] = field(default_factory=list)
    wait_s: list[float] = field(default_factory=list)

    def beside(self, batches: Iterator[PackedBatch]) -> Iterator[PackedBatch]:
        """Pass batches on to the loop."""
        for _ in range(self.warm):
            self.bare()
            yield next(batches)
        for _ in range(self.num_turns):
            self.bare_s.append(self.timer.seconds(self.bare_turn) / self.in_a_row)
            began, waited_s = time.perf_counter(), 0.0
            for _ in range(self.in_a_row):
                asked = time.perf_counter()
                packed = next(batches)
                waited_s += time.perf_counter() - asked
                yield packed
            self.timer.wait()
            self.ours_s.append((time.perf_counter() - began) / self.in_a_row)
            self.wait_s.append(waited_s / self.in_a_row)

    def bare_turn(self) -> None:
        """Do as many bare steps as the loop does its own."""
        for _ in range(self.in_a_row):
            self.bare()


def from_shards(args: argparse.Namespace, folder: Path, num_batches: int) -> Iterator[PackedBatch]:
    """An epoch of that many batches out of shards, made by another process."""
    write_ours(folder, make_pairs(num_batches * args.batch))
    is_gpu = args.device.type == "cuda"
    processes = max(1, min(8, (os.cpu_count() or 1) - 1)) if is_gpu else 1
    source = TrainBatches(ours_in(folder), 0, 0, 0, 1, args.batch, tuple(args.size))
    yield from BatchLoader(source, loader_processes=processes, pin_memory=is_gpu)
