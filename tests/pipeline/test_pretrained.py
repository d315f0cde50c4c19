"""A run looks at its encoders' weights before it starts anything, and fetches what is missing."""

import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
import torchvision

from pipeline import pretrained
from pipeline.config import load_config
from pipeline.dag import build_graph
from pipeline.pretrained import Encoder, encoders_of, fetch_weights
from pipeline.run import main
from tests.densedepth.classifiers import sha256_of
from tests.stages.raw_frames import write_data_set


@pytest.fixture
def words(tmp_path: Path, monkeypatch) -> list[str]:
    """A run on raw frames that are there."""
    monkeypatch.setenv("DEPTH_OUTPUTS", str(tmp_path / "outputs"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return ["nyu_small", f"shard.nyu.root={write_data_set(tmp_path / 'raw', 16, 4)}"]


def test_a_studys_encoder_is_one_of_those_that_are_looked_at(words):
    config = load_config(words[0], [words[1], "ablate.nyu.recipe.network.weights=imagenet"])
    assert encoders_of(build_graph(config).values()) == {
        Encoder("mobilenet_v2", "imagenet", None): ["train.nyu", "ablate.nyu"],
        Encoder("densenet201", "imagenet", None): ["ablate.nyu"],
    }


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None: ...


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A mobilenet_v2's weights on a server on loopback: (URL, file)."""
    (tmp_path / "served").mkdir()
    file = tmp_path / "served/good.pth"
    torch.save(torchvision.models.mobilenet_v2().state_dict(), file)
    handler = partial(Quiet, directory=str(file.parent))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/good.pth", file
        server.shutdown()


def test_a_run_downloads_weights_or_ends_with_all_that_cannot_be_loaded_before_it_starts_anything(
    words, served, tmp_path: Path, capsys, monkeypatch
):
    url, good = served
    torch.save(torchvision.models.resnet50().state_dict(), tmp_path / "other.pth")
    study = f'{{"network.weights" = "{url}", "network.weights_sha256" = "{sha256_of(good)}"}}'
    words += [
        f"train.nyu.recipe.network.weights={tmp_path}/other.pth",
        "ablate.nyu.recipe.network.weights=http://127.0.0.1:9/w.pth?token=secret",
        f"ablate.nyu.recipe.network.weights_sha256={'0' * 64}",
        f"ablate.nyu.studies={{served = {{set = {study}}}}}",
    ]
    monkeypatch.setattr("pipeline.launch.open_session", lambda *args: pytest.fail("Ray starts"))
    assert main(words) == 3
    shown = capsys.readouterr()
    train, ablate = shown.err.splitlines()
    assert train.startswith(
        "train.nyu: network.encoder = 'mobilenet_v2', "
        f"network.weights = '{tmp_path}/other.pth': {tmp_path}/other.pth does not fit the encoder"
    )
    assert "Give the file of this encoder" in train
    assert ablate.startswith("ablate.nyu: network.encoder = 'mobilenet_v2', network.weights = ")
    assert ": cannot download http://127.0.0.1/w.pth (" in ablate
    folder = tmp_path / "torch/hub/checkpoints"
    assert f"put the file at {folder}/w-0000000000000000.pth" in ablate
    assert "downloading http://127.0.0.1/w.pth, http://127.0.0.1/good.pth" in shown.out
    assert "secret" not in shown.out + shown.err
    assert [sha256_of(file) for file in folder.iterdir()] == [sha256_of(good)]
    assert not (tmp_path / "outputs").exists()


def test_neither_a_plan_nor_stages_that_train_nothing_look_at_weights(words, monkeypatch):
    monkeypatch.setattr(pretrained, "_ask", lambda *args: pytest.fail("looks"))
    words.append("train.nyu.recipe.network.weights=http://127.0.0.1:9/w.pth")
    assert main([*words, "--plan"]) == 0
    nodes = build_graph(load_config(words[0], words[1:]))
    fetch_weights([nodes["shard.nyu"], nodes["evaluate.nyu"]], print)


def test_a_process_that_cannot_look_is_told_with_its_last_word(monkeypatch):
    monkeypatch.setattr("sys.executable", "/bin/false")
    found = pretrained.look([Encoder("mobilenet_v2", "imagenet", None)])
    assert found[0].problem == "PyTorch cannot look at the encoder's weights: exit code 1"
