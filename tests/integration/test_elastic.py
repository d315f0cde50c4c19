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
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from ray._private.ray_constants import PROCESS_TYPE_RAYLET
from ray.cloudpickle import register_pickle_by_value

from densedepth.data.batch_plans import TrainBatches
from densedepth.data.loader import BatchLoader
from densedepth.data.order import rank_slice
from stages import train, worker_count
from stages.artifacts import Checkpoint
from stages.stored_shards import stored_shards
from stages.worker import _Run, train_worker
from tests.integration import test_training_faults as faults
from tests.integration.test_training_faults import make_services, sharded, steps_told
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

EPOCHS, STEPS = 7, 14
ALONE, LOST = 3, 9
"""Steps, in the middle of an epoch, before which a node comes and is lost."""
CONFIG = faults.CONFIG.model_copy(
    update={
        "recipe": faults.CONFIG.recipe.model_copy(update={"epochs": EPOCHS}),
        "num_workers": 3,
        "min_workers": 2,
        "max_wait_min": 5.0,
    }
)


def train_as_noted(config: dict[str, Any]) -> dict[str, Any]:
    """Train on this rank, with a note of what each of its batches is made of."""
    batches = _Run.batches

    def noted(run: _Run, epoch: int, next_sample: int) -> Iterator[Any]:
        first = 2 * epoch + next_sample // run.job.recipe.global_batch_size
        folder = run.services.scratch
        with (folder / f"notes-{os.getpid()}").open("a") as notes:
            for step, batch in enumerate(batches(run, epoch, next_sample), start=first):
                wait_for_nodes(run.world_size, step, folder)
                samples = list(zip(batch.keys, batch.sample_seeds.tolist(), strict=True))
                notes.write(json.dumps([run.world_size, run.rank, step, samples]) + "\n")
                notes.flush()
                yield batch

    def wait_for_nodes(world_size: int, step: int, folder: Path) -> None:
        while world_size == 2 and step >= ALONE and not (folder / "come").exists():
            time.sleep(0.5)
        if world_size == 2 and ALONE <= step < LOST:
            time.sleep(2)  # the workers are replaced behind a saved state
        while (world_size, step) in ((2, LOST - 1), (3, LOST)):
            time.sleep(0.5)  # until they are replaced

    _Run.batches = noted
    return train_worker(config)


def test_a_training_grows_with_a_node_and_shrinks_without_it_beside_what_others_hold(
    nodes, session, spare, tracking_uri, tmp_path: Path, monkeypatch
):
    register_pickle_by_value(sys.modules[__name__])  # the nodes do not have the tests
    monkeypatch.setattr(train, "train_worker", train_as_noted)
    grows_soon = partial(worker_count.WorkerCount, grow_every_s=5.0)
    monkeypatch.setattr("stages.trainer.WorkerCount", grows_soon)
    services = make_services(session, tmp_path)
    shards = sharded(services, tmp_path)

    def wait_until_saved(step: int, training: Future[Checkpoint]) -> None:
        until, saved = time.monotonic() + 300, None
        while time.monotonic() < until:
            for path in tmp_path.glob("store/ray/*/checkpoint_manager_snapshot.json"):
                with suppress(ValueError):  # half of it is written
                    saved = json.loads(path.read_text())["latest_checkpoint_result"]
            if saved and saved["metrics"]["step"] == step:
                return
            assert not training.done(), training.result()
            time.sleep(0.2)
        raise AssertionError(f"step {step} not saved, but {saved}")

    with ThreadPoolExecutor(1) as thread:  # only the main thread can start nodes
        training = thread.submit(train.run, CONFIG, services, shards)
        wait_until_saved(ALONE, training)
        node = nodes.add_node(num_cpus=1)
        (tmp_path / "come").touch()
        wait_until_saved(LOST, training)
        os.kill(node.all_processes[PROCESS_TYPE_RAYLET][0].process.pid, signal.SIGKILL)
        result = training.result(timeout=600)

    assert [e.epoch for e in result.epochs] == list(range(EPOCHS))
    assert result.epochs[-1].step == STEPS
    assert steps_told(tracking_uri, services, "step/loss") == list(range(2, STEPS + 1, 2))
    done: dict[int, dict[tuple[int, int], Any]] = defaultdict(dict)
    for notes in tmp_path.glob("notes-*"):
        for world_size, rank, step, samples in map(json.loads, notes.open()):
            assert (world_size, rank) not in done[step], "a step done twice by as many"
            done[step][world_size, rank] = [tuple(sample) for sample in samples]
    by_three = [step for step in done if (3, 0) in done[step]]
    grown = min(by_three)
    assert sorted(by_three) == list(range(grown, LOST))
    assert grown > ALONE, "the node came behind this saved state"
    source = stored_shards(services.store, shards.splits["train"], tmp_path)
    for epoch in range(EPOCHS):
        alone = BatchLoader(TrainBatches(source, CONFIG.recipe.seed, epoch, 0, 1, 4, (64, 64)))
        for step, batch in enumerate(alone, start=2 * epoch):
            samples = list(zip(batch.keys, batch.sample_seeds.tolist(), strict=True))
            size = 3 if step in by_three else 2
            assert [s for rank in range(size) for s in done[step][size, rank]] == samples
            for (world_size, rank), part in done[step].items():  # some were done by two first
                assert part == samples[rank_slice(4, rank, world_size)]
