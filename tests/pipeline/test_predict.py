"""``predict``: which network is taken, and that its metres are those of the library."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cluster.local_store import LocalStore
from densedepth.checkpoint import save_network
from densedepth.depth_range import KITTI, NYU, DepthRange
from densedepth.inference import predict_depth_m
from densedepth.model import DenseDepth
from densedepth.serving import DepthPredictor, fastest_device
from pipeline.cli import main
from pipeline.fingerprint import Fingerprint
from pipeline.records import StageRecord, publish_record
from pipeline.runs import RunState, StageState, leave_state
from tests.stages.report_artifacts import make_checkpoint

SIZE_PX = [64, 96]


def network(folder: Path, name: str, depth_range: DepthRange) -> tuple[DenseDepth, Path]:
    torch.manual_seed(len(name))
    model = DenseDepth("mobilenet_v2", 0.05).eval()
    save_network(model, depth_range, folder / name, {"input_size_px": SIZE_PX})
    return model, folder / name


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    colours = np.random.default_rng(1).integers(0, 255, (51, 77, 3)).astype(np.uint8)
    Image.fromarray(colours).save(tmp_path / "room.png")
    return tmp_path / "room.png"


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    """A store with a run that trained networks of two data sets."""
    store, stages = LocalStore(tmp_path / "store"), {}
    for name, depth_range in (("nyu", NYU), ("kitti", KITTI)):
        _, path = network(tmp_path, f"{name}.safetensors", depth_range)
        node = f"train.{name}"
        print_of = Fingerprint(code={node: "1"}, config={}, inputs={}, sources={}, libraries={})
        record = StageRecord(
            node=node,
            fingerprint=print_of,
            artifact=make_checkpoint(
                dataset=name, network=store.put_file(f"networks/{name}", path)
            ),
            seconds=1.0,
            finished_at="2026-11-26T00:00:00+00:00",
            run_id="both-1",
            mlflow_run_id="",
        )
        publish_record(store, record)
        stages[node] = StageState(status="done", fingerprint=print_of.digest())
    shared = {"attempt": 1, "owner": "x", "host": "h", "pid": 1, "config": {}, "tags": {}}
    started = "2026-11-26T00:00:00+00:00"
    for run_id, done in (("both-1", stages), ("none-1", {})):
        state = RunState(run_id=run_id, started_at=started, chosen=(), stages=done, **shared)
        leave_state(store, state)
    return store


def test_a_files_metres_are_the_librarys_at_the_pictures_own_size(tmp_path, picture, capsys):
    model, path = network(tmp_path, "own.safetensors", NYU)
    command = ["predict", str(path), str(picture), "--output", str(tmp_path / "new")]
    assert main(command) == 0
    shown = capsys.readouterr().out
    image = torch.from_numpy(np.array(Image.open(picture))).permute(2, 0, 1)[None] / 255
    expected = predict_depth_m(model, image, NYU, input_size_px=(64, 96))[0, 0].numpy()
    depth_m = np.load(tmp_path / "new/room.npy")
    assert depth_m.shape == (51, 77)
    np.testing.assert_array_equal(depth_m, expected)
    assert f"median {np.median(expected):.3g} m" in shown
    assert Image.open(tmp_path / "new/room.depth.png").size == (2 * 77 + 18, 51 + 49)


@pytest.mark.gpu
def test_the_gpu_gives_the_metres_of_the_cpu(tmp_path, picture):
    _, path = network(tmp_path, "own.safetensors", NYU)
    colours = np.array(Image.open(picture))[None]
    assert fastest_device().type == "cuda"
    on_gpu = DepthPredictor(path, fastest_device()).predict(colours)
    np.testing.assert_allclose(on_gpu, DepthPredictor(path).predict(colours), rtol=1e-4)


def test_a_runs_network_is_taken_from_its_store(tmp_path, picture, store, capsys):
    shared = ["--store", str(store.root), "--json", "--output", str(tmp_path / "new")]
    assert main(["predict", "both", str(picture), "--dataset", "kitti", *shared]) == 0
    (told,) = json.loads(capsys.readouterr().out)
    assert told["size_px"] == [51, 77]
    depth_m = np.load(told["metres"])
    assert told["median_m"] == pytest.approx(np.median(depth_m))
    file = tmp_path / "kitti.safetensors"
    assert main(["predict", file.as_uri(), str(picture), *shared]) == 0
    np.testing.assert_array_equal(np.load(told["metres"]), depth_m)


def test_a_picture_that_cannot_be_read_is_told_and_the_others_are_done(
    tmp_path, picture, store, capsys
):
    (tmp_path / "broken.jpg").write_bytes(picture.read_bytes()[:100])
    words = ["predict", str(tmp_path / "nyu.safetensors"), str(tmp_path), "--json"]
    assert main([*words, "--output", str(tmp_path / "new")]) == 3
    shown = capsys.readouterr()
    broken, room = json.loads(shown.out)
    assert "broken.jpg" in shown.err
    assert broken == {"picture": str(tmp_path / "broken.jpg"), "error": shown.err.strip()}
    assert np.load(room["metres"]).shape == (51, 77)


@pytest.mark.parametrize(
    ("words", "code", "reason"),
    [
        (["both", "room.png"], 2, "--dataset is not given: both-1@1 has networks for nyu, kitti"),
        (["both", "room.png", "--dataset", "x"], 2, "--dataset x: both-1@1 has networks for"),
        (["none", "room.png"], 2, "none-1@1 has trained no network yet"),
        (["other", "room.png"], 2, "no run 'other'"),
        (["gone.safetensors", "room.png"], 3, "no network file at gone.safetensors"),
        (["nyu.safetensors", "room.png", "--dataset", "nyu"], 2, "is a file: leave --dataset out"),
        (["nyu.safetensors", "gone.png"], 3, "no picture at gone.png"),
        (["room.png", "room.png"], 3, "room.png"),
        (["nyu.safetensors", "room.png", "./deep/room.jpg"], 2, "would both become"),
        (["nyu.safetensors", "room.png", "--output", "room.png/x"], 2, "set --output"),
        (["nyu.safetensors", "room.png", "--output", "."], 2, "set --output to another folder"),
    ],
)
def test_mistakes_are_told_and_nothing_is_written(
    tmp_path, picture, store, capsys, monkeypatch, words, code, reason
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep/room.jpg").write_bytes(b"")
    assert main(["predict", *words, "--store", str(store.root)]) == code
    assert reason in capsys.readouterr().err
    assert not (tmp_path / "predictions").exists()
