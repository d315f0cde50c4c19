"""When a training starts, grows and asks, beside others on a cluster; without a Ray."""

import asyncio
from typing import Any

import pytest

from stages.worker_count import GROWS, HEED_S, WorkerCount, counted_trainer
from tests.stages.ray_policy import Cluster, decide

CPU = {"CPU": 1.0}


@pytest.fixture
def cluster(monkeypatch) -> Cluster:
    return Cluster(monkeypatch, CPU)


@pytest.fixture
def policy(cluster: Cluster) -> Any:
    """Of a training of 2 to 4 workers that has begun with 2, some time ago; there is room for 4."""
    count = WorkerCount(2, 4, CPU, None, "train.rooms")
    made = counted_trainer(count, print, train_loop_per_worker=print)
    policy = made._initialize_and_run_controller(scaling_policy=None)
    cluster.free = 2
    assert decide(policy) == 0
    cluster.now_s += 10
    assert decide(policy) == 2
    assert decide(policy, num_running=2) == 0
    cluster.now_s, cluster.free = cluster.now_s + 100, 4
    return policy


def test_a_training_grows_by_what_is_held_for_it_under_the_name_that_one_has_at_a_time(
    policy, cluster
):
    assert decide(policy, num_running=2, report=None) == 0
    assert decide(policy, num_running=2) == 4
    assert cluster.asked == (2, GROWS), "kept until its workers start"
    assert cluster.num_cleaned == 1, "one that died while it grew has the name no longer"
    policy.on_controller_start_worker_group(scaling_config=None, num_workers=4)
    assert cluster.asked == (0, "")


@pytest.mark.parametrize("missing", ["has_room", "is_name_free"])
def test_a_training_that_does_not_get_it_goes_on_and_asks_as_anyone_does(policy, cluster, missing):
    setattr(cluster, missing, False)
    assert decide(policy, num_running=2) == 0
    assert cluster.asked == (1, "")


def test_a_training_that_grows_lets_others_withdraw_what_they_wait_for_first(policy, cluster):
    cluster.waits_elsewhere = cluster.is_heeded = True
    began_s = cluster.now_s
    assert decide(policy, num_running=2) == 4
    assert began_s < cluster.now_s < began_s + HEED_S
    cluster.waits_elsewhere, cluster.is_heeded = True, False
    cluster.now_s += 100
    assert decide(policy, num_running=2) == 0, "its workers' room would be taken"
    assert cluster.asked == (1, "")


def test_while_one_grows_others_neither_start_nor_grow_nor_ask(policy, cluster, capsys):
    cluster.grows_elsewhere = True
    cluster.asked = (1, "")
    assert decide(policy, num_running=2) == 0
    assert cluster.asked == (0, "")
    cluster.asked = (1, "")
    capsys.readouterr()
    assert decide(policy) == 0
    assert capsys.readouterr().out == "waiting until another training has grown\n"
    assert cluster.asked == (0, "")
    cluster.grows_elsewhere = False
    assert decide(policy) == 4
    cluster.grows_elsewhere, cluster.asked = True, (1, "")
    assert decide(policy, num_running=4) == 0
    assert cluster.asked == (0, "")


@pytest.mark.parametrize("how", ["shutdown", "abort"])
def test_what_is_asked_for_is_withdrawn_when_the_training_ends(policy, cluster, how):
    cluster.has_room = False
    assert decide(policy, num_running=2) == 0
    assert cluster.asked == (1, "")
    if how == "shutdown":
        asyncio.run(policy.before_controller_shutdown())
    else:
        policy.before_controller_abort()
    assert cluster.asked == (0, "")
