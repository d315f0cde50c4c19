"""``doctor``: what it finds, by the real probes where they are quick, and the exit code."""

import json
from pathlib import Path

import pytest

from cluster.errors import TrackingError
from cluster.probes import ProbeError, check_tracking, ray_facts, torch_facts
from cluster.tracking import Tracker, TrackingConfig
from pipeline import doctor as module
from pipeline.cli import main
from pipeline.config import load_config
from pipeline.dag import build_graph
from pipeline.doctor import examine, needs_of


@pytest.fixture
def outputs(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.setenv("DEPTH_OUTPUTS", str(tmp_path / "outputs"))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    return tmp_path / "outputs"


@pytest.fixture
def no_torch(monkeypatch) -> None:
    """Spare the seconds of PyTorch's import where it is not what is tested."""
    facts = {"version": "2", "cuda": None, "threads": 2, "gpus": []}
    monkeypatch.setattr(module, "torch_facts", lambda: facts)


def found(*words: str) -> dict[str, module.Finding]:
    return {f.check: f for f in examine(load_config(words[0], words[1:]), lambda text: None)}


def test_the_demo_can_run_on_the_machine_of_its_tests(outputs, capsys):
    assert main(["doctor", "demo", "--json"]) == 0
    findings = {f["check"]: f for f in json.loads(capsys.readouterr().out)}
    assert findings["store"]["status"] == "ok"
    assert "puts on condition" in findings["store"]["found"]
    assert findings["room"]["found"] == "every stage fits"
    assert "rendered" in findings["files of shard.nyu"]["found"]
    import torch

    assert findings["PyTorch"]["found"].startswith(torch.__version__)


def test_what_cannot_work_is_told_with_what_to_do_and_an_exit_code(
    outputs, no_torch, tmp_path, capsys
):
    (tmp_path / "file").write_text("")
    words = [
        "nyu_small",
        "shard.nyu.root=/no/such",
        f"store={tmp_path}/file/store",
        "tracking.uri=http://127.0.0.1:9",
        "session.num_cpus=1",
    ]
    assert main(["doctor", *words]) == 1
    shown = capsys.readouterr().out
    for text in (
        "/no/such does not exist",
        f"{tmp_path}/file/store",
        "no server answers",
        "room for train.nyu",
        "asks for 2 CPUs, 0 GPUs; there are at most 1 CPUs, 0 GPUs",
        "lower num_workers",
    ):
        assert text in " ".join(shown.split()), text


def test_gpus_that_a_stage_insists_on_are_counted(outputs, no_torch):
    findings = found("nyu", "shard.nyu.root=/no/such")
    assert findings["room for train.nyu"].status == "fail"
    assert "4 GPUs" in findings["room for train.nyu"].found


def test_what_each_stage_asks_for():
    graph = build_graph(load_config("nyu", ["shard.nyu.root=/x", "train.nyu.cpus_per_worker=6"]))
    assert needs_of(graph["train.nyu"]) == (24.0, 4)
    assert needs_of(graph["shard.nyu"]) == (1.0, 0)
    demo = build_graph(load_config("demo"))
    assert needs_of(demo["train.nyu"])[1] is None  # auto: what there is


def test_a_cluster_that_does_not_answer_is_named(outputs, no_torch, monkeypatch):
    monkeypatch.setattr("cluster.probes._RAY", "raise ConnectionError('nobody at this address')")
    findings = found("demo", "session.address=127.0.0.1:1")
    assert findings["Ray"].status == "fail"
    assert "127.0.0.1:1: ConnectionError: nobody at this address" in findings["Ray"].found


@pytest.mark.parametrize(
    ("most", "status", "text"),
    [(None, "fail", "there are at most 1 CPUs"), ({"CPU": 8}, "warn", "the cluster must grow")],
)
def test_a_cluster_is_asked_what_it_can_grow_to(outputs, no_torch, monkeypatch, most, status, text):
    facts = {"version": "2.60", "num_nodes": 1, "now": {"CPU": 1, "GPU": 0}, "most": most}
    monkeypatch.setattr(module, "ray_facts", lambda address: facts)
    finding = found("demo", "session.address=auto")["room for train.nyu"]
    assert finding.status == status
    assert text in finding.found


def test_a_probe_that_hangs_or_crashes_is_an_answer(monkeypatch):
    monkeypatch.setattr("cluster.probes.TIMEOUT_S", 0.5)
    monkeypatch.setattr("cluster.probes._TORCH", "import time; time.sleep(9)")
    with pytest.raises(ProbeError, match=r"no answer within 0.5 s"):
        torch_facts()
    monkeypatch.setattr("cluster.probes._RAY", "import os; os.abort()")
    with pytest.raises(ProbeError, match=r"exit code -6|Aborted"):
        ray_facts("x")


def test_an_mlflow_file_is_looked_at_without_being_changed(tmp_path: Path):
    config = TrackingConfig(uri=f"sqlite:///{tmp_path}/new/mlflow.db")
    assert check_tracking(config) == "will be made"
    assert not (tmp_path / "new").exists()
    Tracker(config).ensure_run("key", "name")
    assert check_tracking(config) == "1 runs"
    (tmp_path / "new/mlflow.db").write_bytes(b"no database at all, but long enough to be one")
    with pytest.raises(TrackingError, match="file is not a database"):
        check_tracking(config)
