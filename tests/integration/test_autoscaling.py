"""Trainings side by side on a cluster that grows: nodes come and leave, none loses its workers.

By raylets on this machine: Ray's own autoscaler starts them, by a provider of Ray's, or the test.
"""

import json
import os
import signal
import socket
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import ray
from ray._private.ray_constants import PROCESS_TYPE_MONITOR
from ray._private.services import get_node_ip_address
from ray.autoscaler._private.fake_multi_node.node_provider import FAKE_HEAD_NODE_ID
from ray.cloudpickle import register_pickle_by_value
from ray.cluster_utils import Cluster

from cluster.session import SessionConfig, open_session
from cluster.tracking import TrackingConfig
from stages.worker_count import ASK_S, WorkerCount, counted_trainer
from tests.integration.test_training_faults import parent

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(900)]

MOST = 3
"""Nodes of one CPU that may come."""
HEAD = "ray.head.default"
"""The provider takes the head to be of this type, whatever the configuration says."""
LISTS = (
    "cluster_synced_files",
    "initialization_commands",
    "setup_commands",
    "head_setup_commands",
    "worker_setup_commands",
    "head_start_ray_commands",
    "worker_start_ray_commands",
)
"""What ``ray up`` would have filled in; a node here needs nothing of it."""


def autoscaling(port: int) -> dict[str, Any]:
    """A configuration as ``ray up`` hands it on to the head."""
    head: dict[str, Any] = {"resources": {"CPU": 1}, "min_workers": 0, "max_workers": 0}
    node = {"resources": {"CPU": 1}, "min_workers": 0, "max_workers": MOST}
    return {
        "cluster_name": "depth",
        "max_workers": MOST,
        "idle_timeout_minutes": 0.2,
        "provider": {
            "type": "external",
            "module": "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider",
            "gcs_address": f"{get_node_ip_address()}:{port}",
            "launch_multiple": True,
        },
        "file_mounts": {},
        **{name: [] for name in LISTS},
        "head_node_type": HEAD,
        "available_node_types": {
            HEAD: {**head, "node_config": {}},
            "node": {**node, "node_config": {}},
        },
    }


@pytest.fixture
def grows(tmp_path: Path) -> Iterator[Cluster]:
    """A head with one CPU, and Ray's autoscaler, which ``ray up`` starts as well."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    config = tmp_path / "autoscaling.json"
    config.write_text(json.dumps(autoscaling(port)))
    head = {"RAY_CLOUD_INSTANCE_ID": FAKE_HEAD_NODE_ID, "RAY_NODE_TYPE_NAME": HEAD}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_FAKE_CLUSTER", "1")
        patch.setenv("RAY_enable_autoscaler_v2", "1")
        patch.setenv("AUTOSCALER_UPDATE_INTERVAL_S", "1")
        patch.setenv("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")  # a process per worker group
        cluster = Cluster()
        cluster.add_node(
            num_cpus=1,
            gcs_server_port=port,
            autoscaling_config=str(config),
            include_dashboard=False,
            env_vars={**head, "RAY_OVERRIDE_NODE_ID_FOR_TESTING": FAKE_HEAD_NODE_ID},
        )
        monitor = cluster.head_node.all_processes[PROCESS_TYPE_MONITOR][0].process.pid
        yield cluster
        for folder in Path("/proc").glob("[0-9]*"):  # nodes that are still there, if it failed
            with suppress(OSError):
                if parent(int(folder.name)) == monitor:
                    os.kill(int(folder.name), signal.SIGTERM)
        cluster.shutdown()


def work(config: dict[str, Any]) -> int:
    """Do steps until the file is there and there are so many ranks; each is noted and saved.

    None is done as long as there is a file ``pause``.
    """
    import tempfile

    import ray.train

    context, folder = ray.train.get_context(), Path(config["folder"])
    saved, step, num_ranks = ray.train.get_checkpoint(), 0, context.get_world_size()
    if saved is not None:
        with saved.as_directory() as state:
            step = int((Path(state) / "step").read_text())

    def note() -> None:
        if context.get_world_rank() == 0:
            with (folder / "notes").open("a") as notes:
                notes.write(json.dumps([config["name"], num_ranks, step]) + "\n")

    note()
    while True:
        time.sleep(1)
        while (folder / "pause").exists():
            time.sleep(0.1)
        step += 1
        is_last = num_ranks == config["num_ranks"] and (folder / config["until"]).exists()
        note()
        with tempfile.TemporaryDirectory() as state:
            (Path(state) / "step").write_text(str(step))
            checkpoint = ray.train.Checkpoint.from_directory(state)
            ray.train.report(
                {"step": step}, checkpoint=checkpoint if context.get_world_rank() == 0 else None
            )
        if is_last:
            return step


def note_wait(path: Path, text: str) -> None:
    with path.open("a") as waits:
        waits.write(text + "\n")


def train(name: str, least: int, most: int, until: str, folder: Path) -> int:
    """Train without a network; returns the steps."""
    from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig

    trainer = counted_trainer(
        WorkerCount(least, most, {"CPU": 1.0}, 300.0, name, grow_every_s=3.0),
        partial(note_wait, folder / f"{name} waits"),
        train_loop_per_worker=work,
        train_loop_config={
            "name": name,
            "num_ranks": most,
            "until": until,
            "folder": str(folder),
        },
        scaling_config=ScalingConfig(
            num_workers=(least, most) if least < most else most, resources_per_worker={"CPU": 1.0}
        ),
        run_config=RunConfig(
            name=name,
            storage_path=str(folder / "store"),
            failure_config=FailureConfig(max_failures=0),
            checkpoint_config=CheckpointConfig(num_to_keep=1),
        ),
    )
    return int(trainer.fit().return_value)


def started(*given: Any) -> "Future[int]":
    """Train in a thread that nobody waits for where a test fails."""
    training: Future[int] = Future()

    def run() -> None:
        try:
            training.set_result(train(*given))
        except BaseException as error:
            training.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return training


def told(folder: Path) -> dict[str, list[tuple[int, int]]]:
    """For each training its ranks and its step, as noted."""
    by_name: dict[str, list[tuple[int, int]]] = defaultdict(list)
    notes = folder / "notes"
    for line in notes.read_text().splitlines() if notes.exists() else ():
        name, num_ranks, step = json.loads(line)
        by_name[name].append((num_ranks, step))
    return by_name


def wait_until(happened: Callable[[], bool], *trainings: Future[int], timeout_s: float = 300):
    """Wait, but not for trainings that have ended."""
    until = time.monotonic() + timeout_s
    while not happened():
        assert not any(training.done() for training in trainings), trainings
        assert time.monotonic() < until, "it does not happen"
        time.sleep(0.5)


def num_nodes() -> int:
    return sum(node["Alive"] for node in ray.nodes())


def test_nodes_come_for_trainings_that_want_more_than_there_can_be_and_leave_after_them(
    grows: Cluster, tmp_path: Path
):
    """The head's CPU is somebody else's; of five workers that are wanted three have nodes.

    Which training gets them is chance: the elastic one may have begun with all of them.
    """
    register_pickle_by_value(sys.modules[__name__])  # the nodes do not have the tests
    with open_session(SessionConfig(address=grows.address), TrackingConfig(uri="")):
        somebody = ray.remote(num_cpus=1)(defaultdict).remote()
        ray.get(somebody.__ray_ready__.remote())
        assert num_nodes() == 1
        fixed = started("fixed", 2, 2, "end", tmp_path)
        elastic = started("elastic", 1, MOST, "end", tmp_path)

        def all_nodes_are_used() -> bool:
            return sum(notes[-1][0] for notes in told(tmp_path).values()) == MOST

        wait_until(all_nodes_are_used, fixed, elastic)
        assert num_nodes() == 1 + MOST
        (tmp_path / "end").touch()
        num_fixed, num_elastic = fixed.result(timeout=300), elastic.result(timeout=300)
        wait_until(lambda: num_nodes() == 1)

    notes = told(tmp_path)
    assert notes["fixed"] == [(2, step) for step in range(num_fixed + 1)]
    by = [num_ranks for num_ranks, _ in notes["elastic"]]
    assert by == sorted(by), "it never shrinks"
    assert by[-1] == MOST
    assert {step for _, step in notes["elastic"]} == set(range(num_elastic + 1))


def test_of_two_trainings_that_see_the_same_free_cpu_one_grows_and_the_other_goes_on(
    tmp_path: Path, monkeypatch
):
    register_pickle_by_value(sys.modules[__name__])
    monkeypatch.setenv("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
    cluster, pause = Cluster(), tmp_path / "pause"
    pause.touch()
    cluster.add_node(num_cpus=2, include_dashboard=False)

    def waits() -> str:
        return "".join(path.read_text() for path in sorted(tmp_path.glob("* waits")))

    try:
        with open_session(SessionConfig(address=cluster.address), TrackingConfig(uri="")):
            somebody = ray.remote(num_cpus=1)(defaultdict).remote()
            ray.get(somebody.__ray_ready__.remote())
            trainings: dict[str, Future[int]] = {}
            for name in ("one", "other"):
                trainings[name] = started(name, 1, 2, "end", tmp_path)
                wait_until((tmp_path / f"{name} waits").exists, *trainings.values())
                if name == "other":
                    ray.kill(somebody)
                wait_until(lambda name=name: name in told(tmp_path), *trainings.values())
            time.sleep(ASK_S)  # neither asks for one more at the moment
            waited = waits()
            cluster.add_node(num_cpus=1)
            pause.unlink()  # both save a state, and see the same CPU
            both = trainings.values()
            wait_until(lambda: 2 in {notes[-1][0] for notes in told(tmp_path).values()}, *both)
            (stays,) = (name for name, notes in told(tmp_path).items() if notes[-1][0] == 1)
            before = len(told(tmp_path)[stays])
            wait_until(lambda: len(told(tmp_path)[stays]) >= before + 20, *both)
            assert {n for n, _ in told(tmp_path)[stays]} == {1}
            assert waits() == waited, "one gave up the workers that it had"
            (tmp_path / "end").touch()
            steps = {name: training.result(timeout=300) for name, training in trainings.items()}
    finally:
        cluster.shutdown()
    for name, notes in told(tmp_path).items():
        by = [num_ranks for num_ranks, _ in notes]
        assert by == sorted(by), "it never shrinks"
        assert {step for _, step in notes} == set(range(steps[name] + 1))
