"""Trainings with two workers that lose one thing after another, and end with the same weights."""

import _thread
import contextlib
import os
import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from ray._private.ray_constants import PROCESS_TYPE_RAYLET
from ray.cluster_utils import Cluster
from ray.exceptions import ActorDiedError
from ray.util import placement_group, placement_group_table, remove_placement_group
from ray.util.placement_group import PlacementGroup

from cluster.errors import NoRoom
from cluster.local_store import LocalStore
from cluster.services import Services
from cluster.session import Session, SessionConfig, open_session
from cluster.storage import open_store
from cluster.tracking import TrackingConfig
from pipeline.retry import ExecutionConfig, wait_before_retry_s
from stages import shard, train
from stages.artifacts import Checkpoint, ShardSet
from stages.shard import ShardConfig
from stages.train import TrainConfig
from tests.cluster.conftest import BUCKET
from tests.cluster.seaweedfs import SeaweedServer
from tests.stages.raw_frames import write_data_set

pytestmark = [pytest.mark.cluster, pytest.mark.s3, pytest.mark.timeout(1800)]

EPOCHS, STEPS = 24, 48  # of 4 frames, of 8: each harm costs a few
RECIPE = {
    "epochs": EPOCHS,
    "global_batch_size": 4,
    "input_size_px": [64, 64],
    "keep": "last",
    "network": {"encoder": "mobilenet_v2", "decoder_width": 0.0625, "weights": "none"},
}
CONFIG = TrainConfig(
    recipe=RECIPE, num_workers=2, use_gpu=False, checkpoint_every_steps=3, max_failures=8
)


@pytest.fixture(scope="module")
def tracking_uri(tmp_path_factory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db"


@pytest.fixture(scope="module")
def nodes(seaweedfs: SeaweedServer) -> Iterator[Cluster]:
    """Two raylets: one with two CPUs, of which ``spare`` keeps one back, and one with one."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in seaweedfs.environment().items():  # which raylets hand on
            patch.setenv(name, value)
        patch.setenv("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")  # a process per worker group
        for attempt in (1, 2, 3):
            cluster = Cluster()
            try:
                cluster.add_node(num_cpus=2, resources={"spare": 1}, include_dashboard=False)
                cluster.add_node(num_cpus=1)
                break
            except Exception as error:  # Ray gives a node 30 s, which a busy machine may exceed
                cluster.shutdown()
                if attempt == 3 or "timed out during startup" not in str(error):
                    raise
        yield cluster
        cluster.shutdown()


@pytest.fixture(scope="module")
def session(nodes: Cluster, tracking_uri: str, tmp_path_factory) -> Iterator[Session]:
    folder: Path = tmp_path_factory.mktemp("session")
    tracking = TrackingConfig(uri=tracking_uri)
    with open_session(SessionConfig(address=nodes.address), tracking, folder / "files") as session:
        yield session


@pytest.fixture(scope="module")
def spare(session: Session) -> PlacementGroup:
    """A CPU beside the driver that no worker gets as long as this is kept: there is one a node."""
    group = placement_group([{"CPU": 1, "spare": 1}])
    assert group.wait(120)
    return group


def make_services(session: Session, folder: Path, url: str | None = None) -> Services:
    """Services of a training of its own."""
    name = f"run-{uuid.uuid4().hex[:8]}"
    run_id = session.monitor.ensure_run(name, name)
    store = open_store(url) if url else LocalStore(folder / "store")
    return Services(store, session.monitor, "train.rooms", f"{name}/train", run_id, folder)


def sharded(services: Services, folder: Path) -> ShardSet:
    """Shards of eight small frames."""
    config = ShardConfig(
        format="nyu_densedepth",
        root=str(write_data_set(folder / "raw")),
        options={"val_fraction": 0.0},
        samples_per_shard=4,
    )
    return shard.run(config, replace(services, stage="shard.rooms"))


@pytest.fixture(scope="module")
def undisturbed(session: Session, spare: PlacementGroup, tmp_path_factory) -> Checkpoint:
    """What a training gives that nothing happened to."""
    folder: Path = tmp_path_factory.mktemp("undisturbed")
    services = make_services(session, folder)
    return train.run(CONFIG, services, sharded(services, folder))


def curve(checkpoint: Checkpoint) -> list[tuple[int, int, float]]:
    return [(e.epoch, e.step, e.train_loss) for e in checkpoint.epochs]


def title(pid: int) -> str:
    with contextlib.suppress(FileNotFoundError):
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ").strip()
    return ""


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def sibling(pid: int, name: str) -> int:
    """The process of this title among the children of the same raylet."""
    raylet = parent(pid)
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if parent(int(folder.name)) == raylet and name in title(int(folder.name)):
                return int(folder.name)
    raise AssertionError(f"no {name} beside {pid}")


class Trouble(threading.Thread):
    """Does harm while a training runs, and remembers after which steps."""

    def __init__(self, services: Services, *harms: Callable[["Trouble"], None]) -> None:
        super().__init__(daemon=True)
        self.services, self.harms = services, harms
        self.steps: list[float] = []
        self.error: BaseException | None = None

    def __enter__(self) -> "Trouble":
        # Where a shell started the tests in the background, SIGINT is ignored.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.join(timeout=600)
        if self.error is not None:
            raise self.error
        assert len(self.steps) == len(self.harms), "the training ended before all had happened"
        assert all(0 < step < STEPS for step in self.steps), self.steps

    def run(self) -> None:
        try:
            for harm in self.harms:
                self.steps.append(self.wait_for_more())
                harm(self)
        except BaseException as error:
            self.error = error
            _thread.interrupt_main()  # which would train on, or wait for ever

    def done(self) -> float:
        progress = self.services.monitor.snapshot().get(self.services.stage)
        return progress.done if progress and progress.unit == "steps" and progress.total else 0

    def pid(self, rank: int) -> int:
        return self.services.beats()[rank].pid

    def controller_pid(self) -> int:
        """The controller is beside one of the workers."""
        for rank in (0, 1):
            with contextlib.suppress(AssertionError):
                return sibling(self.pid(rank), "TrainController")
        raise AssertionError("no controller")

    def wait_for_more(self) -> float:
        """Wait until the training, begun anew after the last harm, has done some steps."""
        before = self.steps[-1] if self.steps else 0
        until = time.monotonic() + 400
        while time.monotonic() < until:
            # A lost store ends both workers, whose last words stay until others take their places.
            beats = self.services.beats().values()
            are_alive = len(beats) == 2 and all(
                Path(f"/proc/{beat.pid}").exists() for beat in beats
            )
            if are_alive and self.done() >= before + 3:
                return self.done()
            time.sleep(0.05)
        raise AssertionError(f"no progress beyond step {before}")


def kill_worker(trouble: Trouble) -> None:
    os.kill(trouble.pid(1), signal.SIGKILL)


def kill_controller(trouble: Trouble) -> None:
    os.kill(trouble.controller_pid(), signal.SIGKILL)


def steps_told(uri: str, services: Services, name: str) -> list[int]:
    """The steps of a metric in MLflow."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(uri)
    return [m.step for m in client.get_metric_history(services.run_id, name)]


def to_the_end(services: Services, shards: ShardSet) -> tuple[Checkpoint, list[Exception]]:
    """Train as the executor does by default: again after what a retry can cure."""
    errors: list[Exception] = []
    while True:
        try:
            return train.run(CONFIG, services, shards), errors
        except Exception as error:
            errors.append(error)
            wait_s = wait_before_retry_s(error, len(errors), ExecutionConfig())
            if wait_s is None:
                raise AssertionError(f"gave up after {errors}") from error
            time.sleep(wait_s)


def test_a_training_waits_for_room_on_one_node_no_longer_than_it_may_and_says_so(
    session: Session, spare: PlacementGroup, tmp_path: Path
):
    services = make_services(session, tmp_path)
    config = CONFIG.model_copy(update={"cpus_per_worker": 2.0, "max_wait_min": 0.1})
    wish = "for 2 workers of 2 CPU each; there is room for 0, free by node: CPU 1, 1"
    with pytest.raises(NoRoom, match=rf"^train\.rooms: waited 0\.1 min {wish}\. End what"):
        train.run(config, services, sharded(services, tmp_path))
    assert services.monitor.snapshot()[services.stage].text == f"waiting {wish}"
    two = {0: {"CPU": 2.0}, 1: {"CPU": 2.0}}
    asked = [entry for entry in placement_group_table().values() if entry["bundles"] == two]
    assert [entry["state"] for entry in asked] == ["REMOVED"], "asked for once, and no longer"


def test_a_training_that_loses_one_thing_after_another_ends_as_if_nothing_had_happened(
    nodes: Cluster,
    session: Session,
    seaweedfs: SeaweedServer,
    tracking_uri: str,
    tmp_path: Path,
    spare: PlacementGroup,
    undisturbed: Checkpoint,
):
    def lose_node(trouble: Trouble) -> None:
        head, other = (
            node.all_processes[PROCESS_TYPE_RAYLET][0].process.pid
            for node in (nodes.head_node, *nodes.worker_nodes)
        )
        assert {parent(trouble.pid(rank)) for rank in (0, 1)} == {head, other}
        os.kill(other, signal.SIGKILL)
        remove_placement_group(spare)  # what is left has room for both

    def lose_store(trouble: Trouble) -> None:
        seaweedfs.process.kill()
        seaweedfs.process.wait()
        time.sleep(30)
        seaweedfs.start()

    services = make_services(session, tmp_path, f"s3://{BUCKET}/{uuid.uuid4().hex}")
    shards = sharded(services, tmp_path)
    with Trouble(services, kill_worker, lose_store, lose_node, kill_controller):
        result, errors = to_the_end(services, shards)
    assert any(isinstance(error, ActorDiedError) for error in errors), "of the lost controller"
    assert result.network.sha256 == undisturbed.network.sha256
    assert curve(result) == curve(undisturbed)
    assert steps_told(tracking_uri, services, "epoch/train_loss") == list(range(EPOCHS))
    assert steps_told(tracking_uri, services, "step/loss") == list(range(2, STEPS + 1, 2))
