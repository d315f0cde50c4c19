"""One rank's training in this process, as a trial without workers: what its settings come to."""

import gzip
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import ray
import torch
from PIL import Image

from cluster.local_store import LocalStore
from cluster.monitor import MonitorHandle
from cluster.services import Services
from densedepth.errors import WeightsError
from densedepth.precision import set_float32
from stages import trainer
from stages.trainer import TrainJob, make_trainer
from stages.worker import train_worker
from tests.stages.report_artifacts import make_shards
from tests.stages.test_stored_shards import publish

RECIPE = {
    "epochs": 2,
    "global_batch_size": 4,
    "input_size_px": [64, 64],
    "network": {"encoder": "mobilenet_v2", "decoder_width": 0.0625, "weights": "none"},
}


@dataclass
class Told:
    """Stands where the monitor's actor is; keeps what it is told."""

    files: dict[str, bytes] = field(default_factory=dict)
    metrics: list[tuple[int, dict[str, float]]] = field(default_factory=list)

    def progress(self, *told: Any) -> None:
        pass

    def beat(self, *told: Any) -> None:
        pass

    def beats(self, key: str) -> dict[int, Any]:
        return {}

    def track(self, method: str, run_id: str, *given: Any) -> None:
        if method == "log_bytes":
            self.files[given[0]] = given[1]
        else:
            assert method == "log_metrics"
            self.metrics += given[0]


Train = Callable[..., Any]


@pytest.fixture(scope="module")
def train(tmp_path_factory) -> Iterator[Train]:
    """Train on 24 frames, validate on 4 of them; return what was told and the worker's result."""
    folder: Path = tmp_path_factory.mktemp("worker")
    store, threads = LocalStore(folder / "store"), torch.get_num_threads()
    split = publish(store, folder)
    names = ("shards", "indexes", "num_samples_per_shard")
    first = split.model_copy(update={name: getattr(split, name)[:1] for name in names})
    shards = make_shards(splits={"train": split, "val": first})

    def run(recipe: dict[str, Any], **scaling: Any) -> Any:
        told = Told()
        services = Services(store, MonitorHandle(told, False), "train.x", "r/x", "run", folder)
        job = {"recipe": recipe, "scaling": {"num_workers": 0, **scaling}, "shards": shards}
        result = make_trainer(train_worker, TrainJob.model_validate(job), services).fit()
        return told, result.return_value

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "release_orphans", lambda: 0)
        patch.setattr(ray, "cluster_resources", lambda: {"CPU": 8})
        patch.setattr(ray, "nodes", lambda: [{}])
        yield run
    torch.set_num_threads(threads)
    set_float32("fp32")


@pytest.mark.parametrize(
    ("scaling", "num_threads"),
    [
        ({"threads_per_worker": 3}, 3),
        ({"threads_per_worker": 2, "cpus_per_worker": 4.0}, 2),
        ({"cpus_per_worker": 2.5}, 2),
        ({"cpus_per_worker": 0.5}, 1),
    ],
)
def test_a_worker_computes_in_as_many_threads_as_it_is_given(train, scaling, num_threads):
    """Seen in one that ends at its first step: more threads than cores wait for each other."""
    recipe = {**RECIPE, "network": {**RECIPE["network"], "weights": "/nowhere/weights.pth"}}
    with pytest.raises(WeightsError, match="nowhere"):
        train(recipe, **scaling)
    assert torch.get_num_threads() == num_threads


def test_a_training_follows_its_settings(train):
    recipe = {**RECIPE, "speed": {"precision": "tf32"}}
    told, result = train(recipe, max_train_samples=14, profile_steps=2, num_panel_frames=1)
    steps = [step for step, metrics in told.metrics if "step/loss" in metrics]
    assert steps == [3, 6], "14 frames of 24 are three batches of four"
    assert [record["step"] for record in result["history"]] == steps
    epochs = [(e, m["epoch/val_loss"]) for e, m in told.metrics if "epoch/val_loss" in m]
    assert epochs == [(e, r["metrics"]["loss"]) for e, r in enumerate(result["history"])]
    trace = json.loads(gzip.decompress(told.files["trace.json.gz"]))["traceEvents"]
    traced = {e["name"] for e in trace if e["name"].startswith("ProfilerStep")}
    assert len(traced) == 2
    panels = [Image.open(io.BytesIO(told.files[f"panels/epoch-00{n}.jpg"])) for n in range(2)]
    assert {panel.height for panel in panels} == {231}, "one row"
    assert torch.backends.cuda.matmul.allow_tf32
