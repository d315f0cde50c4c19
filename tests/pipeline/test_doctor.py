"""``doctor``: what it finds, by the real probes where they are quick, and the exit code."""

import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cluster.errors import TrackingError
from cluster.probes import ProbeError, check_tracking, ray_facts, torch_facts
from cluster.tracking import Tracker, TrackingConfig
from pipeline import doctor as module
from pipeline.cli import main
from pipeline.config import load_config
from pipeline.doctor import examine
from pipeline.pretrained import Found, look
from tests.stages.raw_frames import write_data_set


@pytest.fixture
def outputs(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.setenv("DEPTH_OUTPUTS", str(tmp_path / "outputs"))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    return tmp_path / "outputs"


@pytest.fixture
def no_torch(monkeypatch) -> None:
    """Spare the seconds of PyTorch's imports where it is not what is tested."""
    facts = {"version": "2", "cuda": None, "threads": 2, "gpus": []}
    monkeypatch.setattr(module, "torch_facts", lambda: facts)
    monkeypatch.setattr(module, "look", lambda encoders: [Found() for _ in encoders])


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
        "asks for 2 times 1 CPUs, 0 GPUs; there is room for 1 of them at most",
        "lower num_workers",
    ):
        assert text in " ".join(shown.split()), text


def test_a_finding_is_a_line_of_its_own_in_a_pipe_however_long(outputs, no_torch, capsys):
    root = "/no/such" + 40 * "/very/long"
    assert main(["doctor", "nyu", f"shard.nyu.root={root}"]) == 1
    lines = capsys.readouterr().out.splitlines()
    (line,) = (line for line in lines if line.startswith("files of shard.nyu"))
    assert f"{root} does not exist" in line
    assert line.endswith("docs/datasets.md says what must be there")
    (short,) = (line for line in lines if line.startswith("Python "))
    assert len(short) < len(root)


def test_gpus_that_a_stage_insists_on_are_counted(outputs, no_torch):
    findings = found("nyu", "shard.nyu.root=/no/such")
    assert findings["room for train.nyu"].status == "fail"
    assert "asks for 4 times 4 CPUs, 1 GPUs; no node has" in findings["room for train.nyu"].found
    assert "there is no GPU: set use_gpu = false" in findings["room for train.nyu"].advice


def test_a_cluster_that_does_not_answer_is_named(outputs, no_torch, monkeypatch):
    findings = found("demo", "session.address=127.0.0.1:1")
    assert findings["Ray"].status == "fail"
    assert "127.0.0.1:1: no Ray answers ([Errno 111] Connection" in findings["Ray"].found
    monkeypatch.setattr("cluster.probes._RAY", "raise ConnectionError('nobody with this token')")
    finding = found("demo", "session.address=auto")["Ray"]
    assert (finding.status, finding.found) == (
        "fail", "auto: ConnectionError: nobody with this token"
    )  # fmt: skip


@pytest.mark.parametrize(
    ("grows", "status", "text"),
    [
        ([], "fail", "there is room for 1 of them at most"),
        ([({"CPU": 8, "GPU": 0}, 2)], "warn", "the cluster must grow first"),
    ],
)
def test_a_cluster_is_asked_what_it_can_grow_to(
    outputs, no_torch, monkeypatch, grows, status, text
):
    facts = {"version": "2.60", "nodes": [{"CPU": 1, "GPU": 0}], "grows": grows}
    monkeypatch.setattr(module, "ray_facts", lambda address: facts)
    findings = found("demo", "session.address=auto")
    assert findings["room for train.nyu"].status == status
    assert text in findings["room for train.nyu"].found
    assert ("grows to 2 of 8 CPUs, 0 GPUs" in findings["Ray"].found) == bool(grows)


def test_depth_in_a_wrong_unit_is_found_before_a_run(outputs, no_torch, tmp_path: Path):
    write_data_set(tmp_path, 16, 4)
    words = ("nyu_small", f"shard.nyu.root={tmp_path}")
    right = found(*words)["files of shard.nyu"]
    assert right.status == "ok"
    assert "depth of 12 training frames: 0.8" in right.found
    wrong = found(*words, "shard.nyu.max_depth_m=0.5")["files of shard.nyu"]
    assert wrong.status == "fail"
    assert "0% of it is from min_depth_m = 0.1 to max_depth_m = 0.5" in wrong.found
    for path in (tmp_path / "data/nyu2_train").rglob("*.png"):
        Image.fromarray(np.zeros((24, 32), np.uint8)).save(path)
    none = found(*words)["files of shard.nyu"]
    assert none.status == "fail"
    assert re.search(r"no training frame can be used, first .*no pixel is measured", none.found)


def test_listed_frames_that_a_reader_leaves_out_are_counted(outputs, no_torch, tmp_path: Path):
    write_data_set(tmp_path, 16, 4)
    words = ("nyu_small", f"shard.nyu.root={tmp_path}")
    assert found(*words)["files of shard.nyu"].status == "ok"
    broken = tmp_path / "data/nyu2_train/room_0001_out/3.png"
    whole = broken.read_bytes()
    broken.write_bytes(whole[:40])
    finding = found(*words)["files of shard.nyu"]
    assert finding.status == "warn"
    assert re.search(r"; 1 of 12 cannot be used, the first \S+3\.png: ", finding.found)
    broken.write_bytes(whole)
    lists = tmp_path / "data/nyu2_train.csv"
    lists.write_text(lists.read_text() + "no comma\n" + lists.read_text().splitlines()[0] + "\n")
    finding = found(*words)["files of shard.nyu"]
    assert finding.status == "warn"
    assert "; 2 listed frames are left out, the first 'no comma': " in finding.found


def test_a_probe_that_hangs_or_crashes_is_an_answer(monkeypatch):
    monkeypatch.setattr("cluster.probes.TIMEOUT_S", 0.5)
    monkeypatch.setattr("cluster.probes._TORCH", "import time; time.sleep(9)")
    with pytest.raises(ProbeError, match=r"no answer within 0.5 s"):
        torch_facts()
    monkeypatch.setattr("cluster.probes._RAY", "import os; os.abort()")
    with pytest.raises(ProbeError, match=r"exit code -6|Aborted"):
        ray_facts("x")


ANSWERS = {
    "mlflow": (200, '{"experiments": [{"name": "Default"}]}', "3.17.0"),
    "empty": (200, "{}", ""),
    "pages": (200, "<!doctype html><title>Welcome</title>", "<!doctype html>"),
    "nothing": (404, "not found", ""),
    "forbidden": (403, "Invalid Host header", "3.17.0"),
    "unknown": (401, '{"detail": "You are not authenticated"}', "3.17.0"),
}
"""First part of a path -> status and body of the search for experiments, and the version."""


class Answers(BaseHTTPRequestHandler):
    """Several servers on one port, each below its own path."""

    def do_GET(self) -> None:
        self._answer(200, ANSWERS[self.path.split("/")[1]][2])

    def do_POST(self) -> None:
        name, _, path = self.path[1:].partition("/")
        assert path == "api/2.0/mlflow/experiments/search"
        status, body, _ = ANSWERS[name]
        is_let_in = self.headers["Authorization"] == "Bearer sesame"
        self._answer(*ANSWERS["mlflow"][:2] if is_let_in else (status, body))

    def _answer(self, status: int, body: str) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *args: object) -> None: ...


@pytest.fixture(scope="module")
def answers() -> Iterator[str]:
    """The URL of a server that is what the path says."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("name", "reason", "advice"),
    [
        ("empty", r"this is no MLflow server: it answers HTTP 200, '\{\}'", "MLflow's own pages"),
        ("pages", r"no MLflow server: it answers HTTP 200, '<!doctype html>", "own pages"),
        ("nothing", r"no MLflow server: it answers HTTP 404, 'not found'", "own pages"),
        ("forbidden", r"refuses: HTTP 403, Invalid Host header", "--allowed-hosts"),
        ("unknown", r"refuses: HTTP 401, .*You are not auth", "Give MLFLOW_TRACKING_USERNAME"),
    ],
)
def test_a_server_that_is_not_mlflows_or_refuses_is_told_apart(answers, name, reason, advice):
    uri = f"{answers}/{name}"
    with pytest.raises(TrackingError, match=reason) as caught:
        check_tracking(TrackingConfig(uri=uri))
    assert advice in caught.value.advice
    with pytest.raises(TrackingError, match=reason):  # a run says the same
        Tracker(TrackingConfig(uri=uri))


def test_an_mlflow_server_is_asked_as_the_user_who_will_run(answers, monkeypatch):
    assert check_tracking(TrackingConfig(uri=f"{answers}/mlflow")) == "MLflow 3.17.0 answers"
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "sesame")
    assert check_tracking(TrackingConfig(uri=f"{answers}/unknown")) == "MLflow 3.17.0 answers"


def test_an_mlflow_file_is_looked_at_without_being_changed(tmp_path: Path):
    config = TrackingConfig(uri=f"sqlite:///{tmp_path}/new/mlflow.db")
    assert check_tracking(config) == "will be made"
    assert not (tmp_path / "new").exists()
    Tracker(config).ensure_run("key", "name")
    assert check_tracking(config) == "1 runs"
    (tmp_path / "new/mlflow.db").write_bytes(b"no database at all, but long enough to be one")
    with pytest.raises(TrackingError, match="file is not a database"):
        check_tracking(config)


def test_the_weights_of_trainings_and_of_studies_are_looked_for_as_training_will(
    outputs, no_torch, tmp_path: Path, monkeypatch
):
    monkeypatch.setattr(module, "look", look)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = tmp_path / "hub/checkpoints"
    folder.mkdir(parents=True)
    # A file of another encoder whose name begins alike, and one of ours that is damaged.
    (folder / "mobilenet_v2_wide-12345678.pth").write_bytes(b"")
    (folder / "efficientnet_b0_rwightman-7f5810bc.pth").write_bytes(b"")
    studies = {
        "deeper": {"encoder": "densenet201"},
        "damaged": {"encoder": "efficientnet_b0"},
        "timm": {"encoder": "timm:resnet18"},
        "unknown": {"encoder": "timm:resnet17", "weights": "none"},
        "elsewhere": {"weights": "https://u:secret@host/w.pth", "weights_sha256": "0" * 64},
    }
    words = ["train.kitti.recipe.network.weights=none", "ablate.nyu.recipe.network.weights=none"]
    for name, changes in studies.items():
        table = ", ".join(
            f'"network.{key}" = "{value}"'
            for key, value in {"weights": "imagenet", **changes}.items()
        )
        words.append(f"ablate.nyu.studies.{name}.set={{{table}}}")
    findings = [
        f"{f.check}: {f.status}: {f.found}: {f.advice}"
        for f in examine(load_config("demo", words), lambda text: None)
        if f.check.startswith("weights of")
    ]
    for expected in (
        r"mobilenet_v2: warn: for train\.nyu: https://\S+/mobilenet_v2-b0353104\.pth is downloaded "
        rf"when a run begins: .*put it at {folder}/mobilenet_v2-b0353104\.pth, or give its path",
        r"mobilenet_v2: ok: for train\.kitti: random, none are loaded",
        r"densenet121: ok: for ablate\.nyu: random, none are loaded",
        r"densenet201: warn: for ablate\.nyu: https://\S+/densenet201-\S+\.pth is downloaded",
        r"efficientnet_b0: fail: for ablate\.nyu: .* the cached file is damaged: delete it",
        r"timm:resnet18: fail: .*'imagenet' means torchvision's file, and there is none for timm",
        r"timm:resnet17: fail: .*timm gives no feature maps of this network \(Unknown model",
        r"densenet121: fail: .*https://host/w\.pth: a URL with a user name or password cannot",
    ):
        assert any(re.match(f"weights of {expected}", f) for f in findings), (expected, findings)
    assert "secret" not in str(findings)
