"""One rank's training: what its settings come to, and what it reports."""

import io
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from cluster.local_store import LocalStore
from densedepth.errors import WeightsError
from densedepth.metrics import METRIC_NAMES
from stages import worker
from stages.trainer import TrainJob, make_trainer
from stages.worker import _Run, train_worker
from tests.stages.trained_here import RECIPE, make_services, small_shards, without_ray

Train = Callable[..., Any]


@pytest.fixture(scope="module")
def job(tmp_path_factory) -> Iterator[Train]:
    """Make a job of these settings on small shards, and its services."""
    folder: Path = tmp_path_factory.mktemp("worker")
    store = LocalStore(folder / "store")
    shards = small_shards(store, folder)

    def make(recipe: dict[str, Any], **scaling: Any) -> Any:
        given = {"recipe": recipe, "scaling": {"num_workers": 0, **scaling}, "shards": shards}
        return TrainJob.model_validate(given), *make_services(store, folder)

    with without_ray():
        yield make


@pytest.mark.parametrize(
    ("scaling", "num_threads"),
    [
        ({"threads_per_worker": 3}, 3),
        ({"threads_per_worker": 2, "cpus_per_worker": 4.0}, 2),
        ({"cpus_per_worker": 2.5}, 2),
        ({"cpus_per_worker": 0.5}, 1),
    ],
)
def test_a_worker_computes_in_as_many_threads_as_it_is_given(job, scaling, num_threads):
    """Seen in one that ends at its first step: more threads than cores wait for each other."""
    recipe = {**RECIPE, "network": {**RECIPE["network"], "weights": "/nowhere/weights.pth"}}
    made, services, _ = job(recipe, **scaling)
    with pytest.raises(WeightsError, match="nowhere"):
        make_trainer(train_worker, made, services).fit()
    assert torch.get_num_threads() == num_threads


def test_a_training_follows_its_settings(job):
    recipe = {**RECIPE, "speed": {"precision": "tf32"}}
    made, services, told = job(recipe, max_train_samples=14, num_panel_frames=1)
    result = make_trainer(train_worker, made, services).fit().return_value
    steps = [step for step, metrics in told.metrics if "step/loss" in metrics]
    assert steps == [3, 6], "14 frames of 24 are three batches of four"
    assert [record["step"] for record in result["history"]] == steps
    epochs = [(e, m["epoch/val_loss"]) for e, m in told.metrics if "epoch/val_loss" in m]
    assert epochs == [(e, r["metrics"]["loss"]) for e, r in enumerate(result["history"])]
    panels = [Image.open(io.BytesIO(told.files[f"panels/epoch-00{n}.jpg"])) for n in range(2)]
    assert {panel.height for panel in panels} == {231}, "one row"
    assert torch.backends.cuda.matmul.allow_tf32


def test_as_many_processes_read_as_are_asked_for(job, monkeypatch):
    made, services, _ = job(RECIPE, loader_processes=2)
    run, asked = _Run(made, services, torch.device("cpu")), []

    def no_batches(source: Any, loader_processes: int, pin_memory: bool) -> list[Any]:
        asked.append((type(source).__name__, source.next_sample, loader_processes))
        return []

    monkeypatch.setattr("densedepth.data.loader.BatchLoader", no_batches)
    assert run.batches(0, 8) == list(run.validation().batches(2)) == []
    assert asked == [("TrainBatches", 8, 2), ("ValidationBatches", 2, 2)]


def test_a_validation_goes_on_where_it_was_for_losses_and_a_protocols_figures_alike(job):
    made, services, _ = job({**RECIPE, "global_batch_size": 2}, protocol="whole_image")
    run = _Run(made, services, torch.device("cpu"))
    run.begin()
    run.world_size = 2
    split = run.validation()
    assert (split.num_samples, split.round_size) == (4, 2)
    keys = [
        [[key for batch in split.batches(n) for key in batch.keys] for n in (0, 2)],
        [[key for scored in split.scored(n) for key, _ in scored] for n in (0, 2)],
    ]
    assert keys[0] == keys[1]
    assert len(keys[0][0]) == 2, "of each round the first one"
    assert keys[0][0][1:] == keys[0][1]


def test_how_far_a_validation_is_can_be_seen_and_is_saved(job, monkeypatch):
    made, services, told = job({**RECIPE, "global_batch_size": 1}, protocol="whole_image")
    shown = []
    monkeypatch.setattr(told, "progress", lambda *given: shown.append(given[-1]))
    result = make_trainer(train_worker, made, services).fit().return_value
    of_epoch = [f"validated {n} of 4 frames" for n in (1, 2, 3)]
    assert [text for text in shown if text.startswith("validated")] == 2 * of_epoch
    for record in result["history"]:
        assert set(record["metrics"]) == {"loss", *METRIC_NAMES}


def test_neither_a_state_in_mid_epoch_nor_a_diverged_epoch_is_ever_the_best(job, monkeypatch):
    """Ray keeps the state of the least loss, and figures as JSON, which has no infinity."""
    run = _Run(*job(RECIPE)[:2], torch.device("cpu"))
    run.begin()
    run.rank, reported = 1, []
    monkeypatch.setattr(worker, "report", reported.append)
    run.learner.progress.validated = 3
    run.on_save()
    assert reported[0]["validated"] == 3
    run._report({"val_loss": math.nan})
    run._report({"val_loss": 1e30})
    first, second, third = (json.loads(json.dumps(f, allow_nan=False)) for f in reported)
    assert first["val_loss"] == second["val_loss"] > third["val_loss"] == 1e30
