"""Tracking on a real MLflow with sqlite: restarts, metrics, data sets, the registry."""

import socket
import time
from pathlib import Path

import pytest

from cluster.errors import TrackingError
from cluster.monitor import Monitor
from cluster.registry import is_better
from cluster.tracking import KEY_TAG, Tracker, TrackingConfig, flat


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("mlflow")


def tracker(place: Path) -> Tracker:
    return Tracker(TrackingConfig(uri=f"sqlite:///{place / 'sub' / 'mlflow.db'}"), place / "files")


def test_a_restart_finds_its_runs_and_logs_no_step_twice(place: Path):
    first = tracker(place)
    parent = first.ensure_run("run-1", "run-1", None, {"commit": "abc"})
    child = first.ensure_run("run-1/train", "train", parent, {"depth.stage": "train"})
    first.log_params(child, {"recipe": {"epochs": 3}, "seeds": [0, 1]})
    first.log_metrics(child, [(0, {"loss": 3.0}), (1, {"loss": 2.0})])

    again = tracker(place)
    assert again.ensure_run("run-1", "run-1", None, {}) == parent
    assert again.ensure_run("run-1/train", "train", parent, {}) == child
    again.log_params(child, {"recipe": {"epochs": 4}})
    again.log_metrics(child, [(1, {"loss": 9.0}), (2, {"loss": 1.0})])

    run = again._client.get_run(child)
    assert run.data.tags["mlflow.parentRunId"] == parent
    assert run.data.tags[KEY_TAG] == "run-1/train"
    assert run.data.params["recipe.epochs"] == "3"
    history = again._client.get_metric_history(child, "loss")
    assert [(m.step, m.value) for m in history] == [(0, 3.0), (1, 2.0), (2, 1.0)]


def test_a_run_that_failed_runs_again_and_ends_with_all_others(place: Path):
    first = tracker(place)
    run = first.ensure_run("run-6", "run-6", None, {"attempt": "1"})
    first.finish(run, "FAILED")
    again = tracker(place)
    assert again.ensure_run("run-6", "run-6", None, {"attempt": "2"}) == run
    found = again._client.get_run(run)
    assert (found.info.status, found.data.tags["attempt"]) == ("RUNNING", "2")
    again.finish_all("KILLED")
    assert again._client.get_run(run).info.status == "KILLED"


def test_more_than_mlflow_takes_at_once_and_longer_than_it_takes_is_logged(place: Path):
    mine = tracker(place)
    run = mine.ensure_run("run-7", "run-7")
    mine.log_params(run, {"long": "x" * 7000, **{f"p{i}": i for i in range(200)}})
    mine.log_metrics(run, [(step, {"loss": 1.0}) for step in range(1001)])
    params = mine._client.get_run(run).data.params
    assert (len(params), params["p199"], params["long"]) == (201, "199", "x" * 6000)
    assert [m.step for m in mine._client.get_metric_history(run, "loss")] == list(range(1001))


def test_a_figure_that_is_not_finite_is_left_out(place: Path):
    mine = tracker(place)
    run = mine.ensure_run("run-2", "run-2")
    mine.log_metrics(run, [(0, {"loss": float("nan"), "delta1": 0.5})])
    assert mine._client.get_run(run).data.metrics == {"delta1": 0.5}


def test_a_summary_shows_the_latest_figures(place: Path):
    mine = tracker(place)
    run = mine.ensure_run("run-5", "run-5")
    mine.log_summary(run, {"nyu/per_image_delta1": 0.5, "nyu/silog": float("inf")})
    time.sleep(0.01)
    tracker(place).log_summary(run, {"nyu/per_image_delta1": 0.7})
    assert mine._client.get_run(run).data.metrics == {"nyu/per_image_delta1": 0.7}


def test_data_sets_files_and_the_end_of_a_run_are_logged(place: Path):
    mine = tracker(place)
    run = mine.ensure_run("run-3", "run-3")
    mine.log_dataset(run, "nyu-train", "f" * 64, "s3://bucket/manifest.json", "train")
    mine.log_bytes(run, "pictures/00.txt", b"picture")
    mine.finish(run, "FINISHED")
    logged = mine._client.get_run(run)
    dataset = logged.inputs.dataset_inputs[0]
    assert (dataset.dataset.name, dataset.dataset.digest) == ("nyu-train", "f" * 36)
    assert [f.path for f in mine._client.list_artifacts(run, "pictures")] == ["pictures/00.txt"]
    assert logged.info.status == "FINISHED"
    assert (place / "files").is_dir()


def test_what_is_still_open_ends_as_killed_when_the_driver_is_stopped(place: Path):
    mine = tracker(place)
    done, parent = mine.ensure_run("run-4/a", "a"), mine.ensure_run("run-4", "run-4")
    trial = mine.ensure_run("run-4/b/trial", "trial", parent)
    mine.finish(done, "FINISHED")
    mine.finish_all("KILLED")
    statuses = [mine._client.get_run(r).info.status for r in (done, parent, trial)]
    assert statuses == ["FINISHED", "KILLED", "KILLED"]


def test_runs_that_a_dead_driver_left_open_are_ended_and_others_are_not_touched(place: Path):
    dead, mine = tracker(place), tracker(place)
    done, left = dead.ensure_run("run-5/a", "a"), dead.ensure_run("run-5/b", "b")
    dead.finish(done, "FINISHED")
    ended_ms = mine._client.get_run(done).info.end_time
    mine.finish_left([done, left])
    infos = [mine._client.get_run(run).info for run in (done, left)]
    assert [info.status for info in infos] == ["FINISHED", "FINISHED"]
    assert infos[0].end_time == ended_ms


def test_a_network_is_registered_once_and_the_better_one_is_champion(place: Path):
    from densedepth.checkpoint import save_network
    from densedepth.depth_range import DepthRange
    from densedepth.model import DenseDepth

    save_network(DenseDepth("mobilenet_v2", 0.0625).eval(), DepthRange(0.1, 10.0), place / "net")
    code = [str(Path(__file__).resolve().parents[2] / "densedepth")]
    mine = tracker(place)

    def register(key: str, delta1: float) -> tuple[int, str]:
        run = mine.ensure_run(key, key)
        tags = {"protocol": "nyu", "delta1": str(delta1)}
        return mine.register_model(
            run, "densedepth-nyu", str(place / "net"), tags, "delta1", ("protocol",), code
        )

    assert register("good", 0.8) == (1, "champion")
    assert register("good", 0.8) == (1, "champion")
    assert register("worse", 0.7) == (2, "challenger")
    assert register("better", 0.9) == (3, "champion")
    champion = mine._client.get_model_version_by_alias("densedepth-nyu", "champion")
    assert int(champion.version) == 3


def test_a_registered_network_predicts_metres(place: Path):
    import mlflow
    import numpy as np

    mlflow.set_tracking_uri(f"sqlite:///{place / 'sub' / 'mlflow.db'}")
    model = mlflow.pyfunc.load_model("models:/densedepth-nyu@champion")
    depth_m = model.predict(np.zeros((1, 50, 70, 3), dtype=np.uint8))
    assert depth_m.shape == (1, 50, 70)
    assert ((depth_m >= 0.1) & (depth_m <= 10.0)).all()


@pytest.mark.parametrize(
    ("tags", "champion", "expected"),
    [
        ({"protocol": "a", "delta1": "0.5"}, None, True),
        ({"protocol": "a", "delta1": "0.5"}, {"protocol": "a", "delta1": "0.6"}, False),
        ({"protocol": "a", "delta1": "0.6"}, {"protocol": "a", "delta1": "0.6"}, True),
        ({"protocol": "b", "delta1": "0.1"}, {"protocol": "a", "delta1": "0.6"}, True),
    ],
)
def test_only_figures_of_one_protocol_are_compared(tags, champion, expected):
    assert is_better(tags, champion, "delta1", ("protocol",)) == expected


def test_nested_tables_become_dotted_names():
    assert flat({"a": {"b": 1, "c": {"d": 2}}, "e": {}}) == {"a.b": 1, "a.c.d": 2, "e": {}}


def test_a_server_that_does_not_answer_is_named_in_seconds():
    with socket.socket() as nobody:  # bound and not listening: every connection is refused
        nobody.bind(("127.0.0.1", 0))
        uri = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        monitor = Monitor(TrackingConfig(uri=uri), None)
        with pytest.raises(TrackingError, match=r"no server answers .*refused.*Check the tracking"):
            monitor.track("finish_all", "KILLED")


def test_a_place_that_cannot_be_written_is_named():
    monitor = Monitor(TrackingConfig(uri="sqlite:////proc/nope/mlflow.db"), None)
    with pytest.raises(TrackingError, match=r"/proc/nope: No such file.*choose a place"):
        monitor.track("finish_all", "KILLED")
