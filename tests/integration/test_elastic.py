"""A training grows when a node comes and shrinks when it is lost, beside what somebody else holds.

By real raylets. What each rank trains on is noted there, and compared with what one rank alone
would have seen.
"""

import json
import os
import signal
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from ray._private.ray_constants import PROCESS_TYPE_RAYLET
from ray.cloudpickle import register_pickle_by_value

from densedepth.data.loader import BatchLoader, TrainBatches
from stages import train
from stages.artifacts import Checkpoint
from stages.stored_shards import stored_shards
from stages.worker import _Run, train_worker
from tests.integration.test_training_faults import (
    CONFIG,
    EPOCHS,
    STEPS,
    make_services,
    sharded,
    steps_told,
)
from tests.integration.test_training_faults import nodes as nodes
from tests.integration.test_training_faults import session as session
from tests.integration.test_training_faults import spare as spare
from tests.integration.test_training_faults import tracking_uri as tracking_uri

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.s3,
    pytest.mark.slow,
    pytest.mark.timeout(1200),
]

GROWN, SHRUNK = 3, 8
"""Epochs that three ranks begin with, and two again."""
WAITS = {2: range(GROWN, SHRUNK), 3: range(SHRUNK, EPOCHS)}
"""By ranks: the epochs that these leave to others, and wait until they are replaced."""
CONFIG = CONFIG.model_copy(update={"num_workers": 3, "min_workers": 2, "max_wait_min": 5.0})


def train_as_noted(config: dict[str, Any]) -> dict[str, Any]:
    """Train on this rank, with a note of what each of its batches is made of."""
    batches = _Run.batches

    def noted(run: _Run, epoch: int, next_sample: int) -> Iterator[Any]:
        while epoch in WAITS[run.world_size]:
            time.sleep(1)
        first = next_sample // run.job.recipe.global_batch_size
        with (run.services.scratch / f"notes-{os.getpid()}").open("a") as notes:
            for index, batch in enumerate(batches(run, epoch, next_sample), start=first):
                samples = list(zip(batch.keys, batch.sample_seeds.tolist(), strict=True))
                place = [run.world_size, run.rank, epoch, index, samples]
                notes.write(json.dumps(place) + "\n")
                notes.flush()
                yield batch

    _Run.batches = noted
    return train_worker(config)


def test_a_training_grows_with_a_node_and_shrinks_without_it_beside_what_others_hold(
    nodes, session, spare, tracking_uri, tmp_path: Path, monkeypatch
):
    register_pickle_by_value(sys.modules[__name__])  # the nodes do not have the tests
    monkeypatch.setattr(train, "train_worker", train_as_noted)
    monkeypatch.setattr("stages.worker_count.GROW_EVERY_S", 5.0)
    services = make_services(session, tmp_path)
    shards = sharded(services, tmp_path)

    def wait_for_step(step: int, training: Future[Checkpoint]) -> None:
        until = time.monotonic() + 300
        while time.monotonic() < until:
            progress = services.monitor.snapshot().get(services.stage)
            if progress and progress.unit == "steps" and progress.done == step:
                return
            assert not training.done(), training.result()
            time.sleep(0.2)
        raise AssertionError(f"step {step} not reached, but {progress}")

    with ThreadPoolExecutor(1) as thread:  # nodes are started by the main thread only
        training = thread.submit(train.run, CONFIG, services, shards)
        wait_for_step(2 * GROWN, training)
        node = nodes.add_node(num_cpus=1)
        wait_for_step(2 * SHRUNK, training)
        os.kill(node.all_processes[PROCESS_TYPE_RAYLET][0].process.pid, signal.SIGKILL)
        result = training.result(timeout=600)

    assert [e.epoch for e in result.epochs] == list(range(EPOCHS))
    assert result.epochs[-1].step == STEPS
    assert steps_told(tracking_uri, services, "step/loss") == list(range(2, STEPS + 1, 2))
    parts: dict[tuple[int, int, int], dict[int, Any]] = defaultdict(dict)
    for notes in tmp_path.glob("notes-*"):
        for world_size, rank, epoch, index, samples in map(json.loads, notes.open()):
            assert rank not in parts[world_size, epoch, index], "a step done twice"
            parts[world_size, epoch, index][rank] = samples
    sizes = [2] * GROWN + [3] * (SHRUNK - GROWN) + [2] * (EPOCHS - SHRUNK)
    assert sorted(parts) == sorted((sizes[e], e, index) for e in range(EPOCHS) for index in (0, 1))
    source = stored_shards(services.store, shards.splits["train"], tmp_path)
    for epoch, world_size in enumerate(sizes):
        alone = BatchLoader(TrainBatches(source, CONFIG.recipe.seed, epoch, 0, 1, 4, (64, 64)))
        for index, batch in enumerate(alone):
            ranks = parts[world_size, epoch, index]
            assert sorted(ranks) == list(range(world_size))
            together = [tuple(sample) for rank in sorted(ranks) for sample in ranks[rank]]
            assert together == list(zip(batch.keys, batch.sample_seeds.tolist(), strict=True))
