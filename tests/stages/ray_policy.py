"""Stands for a cluster around a training's policy: what it sees, and how it asks for workers."""

from types import SimpleNamespace
from typing import Any

import pytest
from ray.train.v2._internal.execution.scaling_policy import (
    NoopDecision,
    ResizeDecision,
    ScalingPolicy,
)
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

from stages import worker_count


class Cluster:
    """What a policy sees of a cluster, and how it asks; a set clock."""

    def __init__(self, patch: pytest.MonkeyPatch, each: dict[str, float]) -> None:
        self.each, self.now_s, self.free = each, 1000.0, 0
        self.asked: tuple[int, str] = (0, "")
        self.is_name_free = self.has_room = True
        self.grows_elsewhere = self.waits_elsewhere = self.is_heeded = False
        self.num_cleaned = 0
        patch.setattr("stages.worker_count.time.monotonic", lambda: self.now_s)
        patch.setattr("stages.worker_count.time.sleep", self.sleep)
        patch.setattr(worker_count, "Asked", lambda: self)
        patch.setattr(worker_count, "room_by_node", lambda: self.nodes(self.free))
        patch.setattr(worker_count, "does_another_use", lambda name: self.grows_elsewhere)
        patch.setattr(worker_count, "does_another_wait", lambda: self.waits_elsewhere)
        patch.setattr(worker_count, "release_orphans", self.clean)
        patch.setattr(ScalingPolicy, "_maybe_send_resource_request", lambda policy: None)
        patch.setattr(
            DataParallelTrainer,
            "_initialize_and_run_controller",
            lambda trainer, scaling_policy: scaling_policy,
        )

    def nodes(self, *workers: int) -> list[dict[str, float]]:
        return [{name: amount * n for name, amount in self.each.items()} for n in workers]

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds
        self.waits_elsewhere = self.waits_elsewhere and not self.is_heeded

    def clean(self) -> int:
        self.num_cleaned += 1
        return 0

    def ask(self, bundles: list[dict[str, float]], name: str = "") -> bool:
        assert bundles == [self.each] * len(bundles)
        is_mine = self.is_name_free or not name
        self.asked = (len(bundles), name) if is_mine else (0, "")
        return is_mine

    def is_held(self, timeout_s: float) -> bool:
        return self.has_room


def decide(policy: Any, num_running: int = 0, report: str | None = "saved") -> int:
    """The number of workers that it wants next; 0 = as they are."""
    if num_running:
        status = SimpleNamespace(worker_statuses={0: SimpleNamespace(training_report=report)})
        running = SimpleNamespace(num_workers=num_running)
        decision = policy.make_decision_for_running_worker_group(running, status)
    else:
        decision = policy.make_decision_for_non_running_worker_group()
    if isinstance(decision, NoopDecision):
        return 0
    assert isinstance(decision, ResizeDecision)
    assert decision.resources_per_worker == policy.asked.each
    return decision.num_workers
