"""Groups of dead actors are given back, and no others; what room an actor has, and asks for."""

import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
import ray
from ray.util.placement_group import placement_group, placement_group_table

from cluster import placement
from cluster.placement import (
    Asked,
    does_another_use,
    does_another_wait,
    release_orphans,
    room_by_node,
)

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def small_ray() -> Iterator[None]:
    ray.init(address="local", num_cpus=5, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


class Maker:
    """Makes a group, as a training's controller does."""

    def make(self) -> str:
        group = placement_group([{"CPU": 1}])
        ray.get(group.ready())
        return str(group.id.hex())


def states() -> dict[str, str]:
    return {name: entry["state"] for name, entry in placement_group_table().items()}


def test_a_dead_actors_group_is_given_back_and_those_of_the_living_and_of_tasks_stay(small_ray):
    actor = ray.remote(num_cpus=0)(Maker)
    dead, living = actor.remote(), actor.remote()
    lost, kept = ray.get([dead.make.remote(), living.make.remote()])
    made_by_task = ray.get(ray.remote(num_cpus=0)(lambda: Maker().make()).remote())
    assert release_orphans() == 0
    ray.kill(dead)
    for _ in range(100):
        if release_orphans():
            break
        ray.get(living.__ray_ready__.remote())
    after = states()
    assert after[lost] == "REMOVED"
    assert (after[kept], after[made_by_task]) == ("CREATED", "CREATED")
    assert release_orphans() == 0


class Trainer(Maker):
    """Has a group of its own, and asks what room it has."""

    def room(self) -> list[float]:
        return [node.get("CPU", 0.0) for node in room_by_node()]


def test_an_actor_has_room_in_what_is_free_and_what_it_holds_and_in_no_others_share(small_ray):
    trainer, other = (ray.remote(num_cpus=0)(kind).remote() for kind in (Trainer, Maker))
    ray.get([trainer.make.remote(), other.make.remote()])
    free = 5 - sum(state == "CREATED" for state in states().values())
    for _ in range(100):  # what a node has free becomes known a moment later
        if [node["CPU"] for node in room_by_node()] == [free]:
            break
        time.sleep(0.1)
    assert [node["CPU"] for node in room_by_node()] == [free], "the driver has no group of its own"
    assert ray.get(trainer.room.remote()) == [free + 1]


def test_what_is_asked_for_reaches_the_autoscaler_as_long_as_it_is_wanted(small_ray):
    from ray._raylet import GcsClient
    from ray.autoscaler.v2.sdk import get_cluster_resource_state

    gcs = GcsClient(address=ray.get_runtime_context().gcs_address)

    def wanted() -> list[list[float]]:
        state = get_cluster_resource_state(gcs)
        return [
            [bundle.resources_bundle["CPU"] for bundle in gang.requests]
            for gang in state.pending_gang_resource_requests
        ]

    asked = Asked()
    for bundles in ([3.0, 3.0], [3.0, 3.0], [99.0], []):
        asked.ask([{"CPU": cpus} for cpus in bundles])
        expected = [bundles] if bundles else []
        for _ in range(100):  # what waits becomes known a moment later
            if wanted() == expected:
                break
            time.sleep(0.1)
        assert wanted() == expected
        assert not asked.is_held(0.1)


def test_what_is_asked_for_is_held_where_there_is_room_until_it_is_withdrawn(small_ray):
    first, second = Asked(), Asked()
    free = int(ray.available_resources()["CPU"])
    first.ask([{"CPU": 1.0}] * free)
    assert first.is_held(30.0)
    second.ask([{"CPU": 1.0}])
    assert not second.is_held(1.0), "the first has it"
    first.ask([])
    assert second.is_held(30.0)
    second.ask([])


class Asking:
    """Asks, as a training's policy does."""

    def __init__(self) -> None:
        self.asked = Asked()

    def ask(self, cpus: list[float], name: str = "") -> bool:
        return self.asked.ask([{"CPU": amount} for amount in cpus], name)

    def is_held(self) -> bool:
        return self.asked.is_held(30.0)

    def sees(self) -> tuple[bool, bool]:
        """Whether another uses the name, whether another waits."""
        return does_another_use("grows"), does_another_wait()


def test_of_all_actors_one_at_a_time_asks_under_a_name_and_the_others_see_it(small_ray):
    first, second = (ray.remote(num_cpus=0)(Asking).remote() for _ in range(2))

    def tell(actor, method: str, *arguments: object) -> object:
        return ray.get(getattr(actor, method).remote(*arguments))

    assert tell(first, "sees") == tell(second, "sees") == (False, False)
    assert tell(first, "ask", [1.0], "grows")
    assert tell(first, "is_held")
    assert not tell(second, "ask", [1.0], "grows")
    assert (tell(first, "sees"), tell(second, "sees")) == ((False, False), (True, False))
    assert tell(second, "ask", [99.0]), "without a name all may"
    assert (tell(first, "sees"), tell(second, "sees")) == ((False, True), (True, False))
    assert not tell(second, "ask", [2.0], "grows"), "what it asked for before is withdrawn"
    assert tell(first, "sees") == (False, False)
    assert tell(first, "ask", [1.0]), "it keeps what it asks for, but not the name"
    assert tell(second, "ask", [1.0], "grows")
    assert tell(first, "sees")[0]
    ray.kill(second)
    for _ in range(100):  # one that has died uses nothing, and waits for nothing
        if tell(first, "sees") == (False, False):
            break
        time.sleep(0.1)
    assert tell(first, "sees") == (False, False)
    assert not tell(first, "ask", [1.0], "grows"), "Ray keeps the name until it is given back"
    release_orphans()
    assert tell(first, "ask", [1.0], "grows")
    ray.kill(first)


OTHERS = """
import sys
import ray
from ray.util.placement_group import placement_group
ray.init(address=sys.argv[1], namespace="theirs", log_to_driver=False)
class Maker:
    def make(self, name):
        ray.get(placement_group([{"CPU": 0.1}], name=name).ready())
dead, living = (ray.remote(num_cpus=0)(Maker).remote() for _ in range(2))
ray.get([dead.make.remote("left"), living.make.remote("grows")])
ray.kill(dead)
print("made", flush=True)
sys.stdin.read()
"""
"""A program that is no run of ours, on the same cluster: an actor of it left a group to others."""


def test_what_others_on_the_cluster_made_is_not_given_back_nor_is_their_name_ours(small_ray):
    command = [sys.executable, "-c", OTHERS, ray.get_runtime_context().gcs_address]
    release_orphans()
    with subprocess.Popen(
        command, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as others:
        assert others.stdout is not None
        assert "made\n" in others.stdout
        for _ in range(100):  # that its maker has died becomes known a moment later
            theirs = {group.name: group for group in placement._groups() if group.name}
            if theirs["left"].creator_actor_dead:
                break
            time.sleep(0.1)
        assert theirs["left"].creator_actor_dead
        assert not theirs["grows"].creator_actor_dead
        assert release_orphans() == 0
        found = {entry["name"]: entry["state"] for entry in placement_group_table().values()}
        assert found["left"] == "CREATED"
        assert not does_another_use("grows")
        others.communicate("", timeout=60)
