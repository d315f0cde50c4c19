"""How many workers a training has: as many as there is room for, for which it waits so long.

Ray's own policies go by what nodes have, not by what is free. Where somebody else holds a part,
the elastic one asks for workers that cannot start, in vain, and ends workers that run for it;
below its least number it waits without end, whatever the limit.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cluster.errors import NoRoom
from cluster.placement import (
    Asked,
    does_another_use,
    does_another_wait,
    release_orphans,
    room_by_node,
)

POLL_S = 0.5
SAY_EVERY_S = 5.0
SETTLE_S = 10.0
"""Seconds for which room for too few workers stays the same, before a training makes do with it:
the CPUs of workers that have just ended come back one after another, as new nodes come."""
ENOUGH_S = 30.0
"""Seconds of room that changes all the time, but is enough, before a training makes do with it."""
ASK_S = 15.0
"""Seconds for which a training that runs asks for one more worker: an autoscaler looks every five.
Without end, it would take what another frees for a moment, to start anew with more."""
HOLD_S = 2.0
"""Seconds in which Ray holds what is free for a training that grows; else another was faster."""
GROWS = "depth-training-grows"
"""The name under which a training asks that grows: one at a time, and others keep off meanwhile, as
they would take what its old workers leave before its new ones are placed."""
HEED_S = 6.0
"""Seconds for which one that grows lets others withdraw what they wait for: Ray lets them look
every two."""
PLACE_S = "20"
"""Seconds in which Ray places workers that there is room for; else what is known was stale."""


@dataclass
class WorkerCount:
    """Decides how many workers a training has; knows no clock and no cluster.

    Attributes:
        least: workers below which it waits.
        most: workers it wants.
        each: what Ray sets aside for a worker.
        max_wait_s: seconds it waits; None = without end.
        where: the training, for errors.
        grow_every_s: seconds that workers run at least before more take their place.
    """

    least: int
    most: int
    each: Mapping[str, float]
    max_wait_s: float | None
    where: str
    grow_every_s: float = 60.0
    _waits_since_s: float | None = field(default=None, init=False)
    _room: int = field(default=-1, init=False)
    _room_since_s: float = field(default=0.0, init=False)
    _enough_since_s: float = field(default=0.0, init=False)
    _looked_s: float = field(default=0.0, init=False)

    def fitting(self, nodes: Sequence[Mapping[str, float]]) -> int:
        """Return how many workers have room, given what each node has free."""
        asked = {name: amount for name, amount in self.each.items() if amount > 0}
        # A share of a CPU, taken and given back, may leave a rounding error.
        return sum(
            min(int(node.get(name, 0.0) / amount + 1e-6) for name, amount in asked.items())
            for node in nodes
        )

    def start(self, nodes: Sequence[Mapping[str, float]], now_s: float) -> int:
        """Return how many workers to start now; 0 = wait, and ask again.

        Raises:
            NoRoom: it has waited too long.
        """
        room = self.fitting(nodes)
        if self._waits_since_s is None:
            self._waits_since_s = now_s
        if room >= self.least > self._room:
            self._enough_since_s = now_s
        if room != self._room:
            self._room, self._room_since_s = room, now_s
        waited_s, half_s = now_s - self._waits_since_s, math.inf
        if self.max_wait_s is not None:
            if waited_s > self.max_wait_s:
                raise NoRoom(self.where, f"waited {waited_s / 60:.1f} min {self.wish(nodes)}")
            half_s = self.max_wait_s / 2
        is_settled = now_s - self._room_since_s >= SETTLE_S
        is_enough_for_long = now_s - self._enough_since_s >= min(ENOUGH_S, half_s)
        if room >= self.most or (room >= self.least and (is_settled or is_enough_for_long)):
            return min(room, self.most)
        return 0

    def grow(
        self,
        num_running: int,
        is_saved: bool,
        nodes: Callable[[], Sequence[Mapping[str, float]]],
        now_s: float,
    ) -> int:
        """Return with how many workers a training that runs should go on: as many, or more.

        Args:
            num_running: its workers now.
            is_saved: whether its state has just been saved: what came after it would be lost.
            nodes: what each node has free; asked seldom.
            now_s: the time.
        """
        if self._waits_since_s is not None:
            self._waits_since_s, self._room, self._looked_s = None, -1, now_s
        is_time = is_saved and now_s - self._looked_s >= self.grow_every_s
        if num_running >= self.most or not is_time:
            return num_running
        self._looked_s = now_s
        return max(num_running, min(self.most, self.fitting(nodes())))

    def wanted(self, num_running: int, now_s: float) -> int:
        """Return for how many workers more to ask now, all together.

        Args:
            num_running: its workers now; 0 = it waits.
            now_s: the time.
        """
        if num_running == 0:
            return self.least
        return int(num_running < self.most and now_s - self._looked_s < ASK_S)

    def wish(self, nodes: Sequence[Mapping[str, float]]) -> str:
        """Say for what it waits, and what there is."""
        count = str(self.most) if self.least == self.most else f"{self.least} to {self.most}"
        each = " and ".join(f"{amount:g} {name}" for name, amount in self.each.items())
        free = []
        for name in self.each:
            amounts = sorted((node.get(name, 0.0) for node in nodes), reverse=True)
            shares = ", ".join(f"{amount:g}" for amount in amounts if amount > 0)
            free.append(f"{name} {shares or 'none'}")
        return (
            f"for {count} workers of {each} each; there is room for {self.fitting(nodes)}, "
            f"free by node: {'; '.join(free)}"
        )


def counted_trainer(count: WorkerCount, say: Callable[[str], None], **settings: Any) -> Any:
    """Return a ``TorchTrainer`` whose number of workers ``count`` decides.

    Args:
        count: decides; travels to Ray's controller.
        say: told what is waited for, every ``SAY_EVERY_S``; travels too.
        settings: the trainer's.
    """
    import os

    from ray.train.torch import TorchTrainer

    # Ray offers no public way to another policy.
    from ray.train.v2._internal.execution.scaling_policy import (
        NoopDecision,
        ResizeDecision,
        ScalingPolicy,
    )

    class Policy(ScalingPolicy):
        def __init__(self, scaling_config: Any) -> None:
            super().__init__(scaling_config)
            self.said_s, self.asked = 0.0, Asked()

        def _ask(self, num_workers: int) -> None:
            self.asked.ask([dict(count.each)] * num_workers)

        def after_controller_start(self, train_run_context: Any) -> None:
            os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", PLACE_S)
            super().after_controller_start(train_run_context)

        def _get_num_workers_for_resource_request(self) -> int:
            return count.most

        def on_controller_start_worker_group(self, **group: Any) -> None:
            self._ask(0)  # not before: what is held is for these workers

        async def before_controller_shutdown(self) -> None:
            self._ask(0)
            await super().before_controller_shutdown()

        def before_controller_abort(self) -> None:
            self._ask(0)
            super().before_controller_abort()

        def _keeps_room(self) -> bool:
            """Say whether nobody takes what this one's workers leave."""
            until_s = time.monotonic() + HEED_S
            while does_another_wait():
                if time.monotonic() > until_s:
                    return False
                time.sleep(POLL_S)
            return True

        def make_decision_for_non_running_worker_group(self) -> Any:
            self._maybe_send_resource_request()
            is_another_growing = does_another_use(GROWS)
            nodes, now_s = [] if is_another_growing else room_by_node(), time.monotonic()
            num_workers = count.start(nodes, now_s)
            if num_workers:
                return ResizeDecision(num_workers, dict(count.each))
            self._ask(0 if is_another_growing else count.wanted(0, now_s))
            if now_s - self.said_s > SAY_EVERY_S:
                wish = "until another training has grown" if is_another_growing else ""
                say(f"waiting {wish or count.wish(nodes)}")
                self.said_s = now_s
            time.sleep(POLL_S)  # Ray asks again at once
            return NoopDecision()

        def make_decision_for_running_worker_group(
            self, worker_group_state: Any, worker_group_status: Any
        ) -> Any:
            self._maybe_send_resource_request()
            running = worker_group_state.num_workers
            if running < count.most and does_another_use(GROWS):
                self._ask(0)
                return NoopDecision()
            is_saved = worker_group_status.worker_statuses[0].training_report is not None
            now_s = time.monotonic()
            num_workers = count.grow(running, is_saved, room_by_node, now_s)
            if num_workers > running:
                release_orphans()  # of one that died while it grew
                is_mine = self.asked.ask([dict(count.each)] * (num_workers - running), GROWS)
                if is_mine and self.asked.is_held(HOLD_S) and self._keeps_room():
                    return ResizeDecision(num_workers, dict(count.each))
            self._ask(count.wanted(running, now_s))
            return NoopDecision()

    class Trainer(TorchTrainer):
        def _initialize_and_run_controller(self, **parts: Any) -> Any:
            policy = Policy(self.scaling_config)
            return super()._initialize_and_run_controller(**{**parts, "scaling_policy": policy})

    return Trainer(**settings)
