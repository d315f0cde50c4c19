"""Trainings in the tests' own process, as trials without workers: shards, and what they told."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import ray
import torch

from cluster.local_store import LocalStore
from cluster.monitor import MonitorHandle
from cluster.services import Services
from densedepth.precision import set_float32
from stages import trainer
from stages.artifacts import ShardSet
from tests.stages.report_artifacts import make_shards
from tests.stages.test_stored_shards import publish

RECIPE: dict[str, Any] = {
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
    statuses: dict[str, str] = field(default_factory=dict)

    def progress(self, *told: Any) -> None:
        pass

    def say(self, *told: Any) -> None:
        pass

    def beat(self, *told: Any) -> None:
        pass

    def beats(self, key: str) -> dict[int, Any]:
        return {}

    def track(self, method: str, run_id: str, *given: Any) -> str:
        if method == "log_bytes":
            self.files[given[0]] = given[1]
        elif method == "log_metrics":
            self.metrics += given[0]
        elif method == "finish":
            self.statuses[run_id] = given[0]
        return run_id


def make_services(store: LocalStore, folder: Path) -> tuple[Services, Told]:
    told = Told()
    return Services(store, MonitorHandle(told, False), "train.x", "r/x", "r/x", folder), told


def small_shards(store: LocalStore, folder: Path) -> ShardSet:
    """24 frames to train on, four of them to validate on."""
    split = publish(store, folder)
    names = ("shards", "indexes", "num_samples_per_shard")
    first = split.model_copy(update={name: getattr(split, name)[:1] for name in names})
    return make_shards(splits={"train": split, "val": first})


@contextmanager
def without_ray() -> Iterator[pytest.MonkeyPatch]:
    """Ask no Ray what it has; put back what a training sets for its process."""
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "release_orphans", lambda: 0)
        patch.setattr(ray, "cluster_resources", lambda: {"CPU": 8})
        patch.setattr(ray, "nodes", lambda: [{}])
        yield patch
    torch.set_num_threads(threads)
    set_float32("fp32")
