"""Where pretrained weights come from: the published bytes, or an error says what to set."""

import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torchvision
from torch import nn

from densedepth.errors import WeightsError
from densedepth.model import DenseDepth
from densedepth.weights import Download, check_encoder_weights, load_encoder_weights
from tests.densedepth.classifiers import randomised, same_top_features, sha256_of


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """An empty torch hub cache; gives its folder of checkpoints."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    folder = tmp_path / "torch" / "hub" / "checkpoints"
    assert Path(torch.hub.get_dir()) / "checkpoints" == folder
    return folder


@pytest.fixture
def server(tmp_path):
    """A web server on loopback: (address, the folder it serves)."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    folder = tmp_path / "served"
    folder.mkdir()
    handler = partial(Quiet, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as httpd:
        thread = threading.Thread(target=httpd.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{httpd.server_port}", folder
        httpd.shutdown()
        thread.join()


def densenet_of_2017(path: Path) -> nn.Module:
    """Write a file like the published DenseNets: old names, no zip, no batch counts."""
    classifier = randomised(torchvision.models.densenet121(), seed=3)
    state = {}
    for name, value in classifier.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            for layer in ("norm", "conv"):
                for number in "12":
                    new, old = f".{layer}{number}.", f".{layer}.{number}."
                    name = name.replace(new, old) if "denselayer" in name else name
            state[name] = value
    assert "features.denseblock1.denselayer1.norm.1.weight" in state
    torch.save(state, path, _use_new_zipfile_serialization=False)
    return classifier


def publish(monkeypatch, url: str) -> None:
    """Make torchvision name another address for its weights."""
    weights = {"IMAGENET1K_V1": SimpleNamespace(url=url)}
    monkeypatch.setattr(torchvision.models, "get_model_weights", lambda name: weights)


def test_imagenet_downloads_torchvisions_file_once_and_checks_it(hub, server, monkeypatch):
    address, folder = server
    classifier = densenet_of_2017(folder / "new.pth")
    name = f"densenet121-{sha256_of(folder / 'new.pth')[:8]}.pth"
    (folder / "new.pth").rename(folder / name)
    publish(monkeypatch, f"{address}/{name}")
    model = DenseDepth("densenet121", 0.05)
    load_encoder_weights(model, "imagenet")
    assert same_top_features(model, classifier)

    (folder / name).unlink()  # the second time it comes from the cache
    again = DenseDepth("densenet121", 0.05)
    load_encoder_weights(again, "imagenet")
    assert same_top_features(again, classifier)

    with (hub / name).open("ab") as cached:
        cached.write(b"x")
    with pytest.raises(WeightsError, match=r"cached file is damaged: delete it"):
        load_encoder_weights(again, "imagenet")


def test_imagenet_refuses_a_download_with_another_hash(model, hub, server, monkeypatch):
    address, folder = server
    (folder / "mobilenet_v2-00000000.pth").write_bytes(b"something else")
    publish(monkeypatch, f"{address}/mobilenet_v2-00000000.pth")
    with pytest.raises(WeightsError, match="does not have the SHA-256 00000000"):
        load_encoder_weights(model, "imagenet")
    assert list(hub.iterdir()) == []


def test_imagenet_without_a_network_says_where_to_put_the_file(model, hub, monkeypatch):
    publish(monkeypatch, "http://127.0.0.1:9/mobilenet_v2-b0353104.pth")
    with pytest.raises(WeightsError, match=r"put the file at .*checkpoints/mobilenet_v2-b0353104"):
        load_encoder_weights(model, "imagenet")


def test_imagenet_takes_torchvisions_own_name_and_finds_it_in_the_cache(model, hub):
    hub.mkdir(parents=True)
    (hub / "mobilenet_v2-b0353104.pth").write_bytes(b"not the published bytes")
    with pytest.raises(WeightsError, match=r"does not begin with b0353104: the cached file"):
        load_encoder_weights(model, "imagenet")


def test_none_leaves_the_encoder_as_it_is(model):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    load_encoder_weights(model, "none")
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("weights", ["none", "imagenet"])
def test_a_hash_without_a_file_is_refused(model, weights):
    with pytest.raises(WeightsError, match=f"remove it where weights='{weights}'"):
        load_encoder_weights(model, weights, "0" * 64)


def test_the_right_hash_is_accepted_in_either_case(model, published):
    path, classifier = published
    load_encoder_weights(model, str(path), sha256_of(path).upper())
    assert same_top_features(model, classifier)


def test_a_wrong_hash_is_refused(model, published):
    with pytest.raises(WeightsError, match=r"has the SHA-256 .*does not begin with 0{64}"):
        load_encoder_weights(model, str(published[0]), "0" * 64)


@pytest.mark.parametrize("sha256", ["b0353104", "x" * 64, ""])
def test_what_is_no_sha256_is_refused(model, published, sha256):
    with pytest.raises(WeightsError, match="64 hexadecimal digits"):
        load_encoder_weights(model, str(published[0]), sha256)


def test_a_missing_file_is_an_error_and_no_fall_back(model, tmp_path):
    with pytest.raises(WeightsError, match=r"no file of weights at .*gone\.pth.*'none'"):
        load_encoder_weights(model, str(tmp_path / "gone.pth"))


def test_a_url_needs_a_hash(model, published):
    for url in (published[0].as_uri(), "https://example.org/weights.pth"):
        with pytest.raises(WeightsError, match="set sha256"):
            load_encoder_weights(model, url)


def test_a_file_url_is_read(model, published):
    path, classifier = published
    load_encoder_weights(model, path.as_uri(), sha256_of(path))
    assert same_top_features(model, classifier)


def test_a_http_url_is_downloaded_and_cached_by_its_hash(model, published, hub, server):
    path, classifier = published
    address, folder = server
    (folder / "weights.pth").write_bytes(path.read_bytes())
    load_encoder_weights(model, f"{address}/weights.pth?token=1", sha256_of(path))
    assert same_top_features(model, classifier)
    assert [file.name for file in hub.iterdir()] == [f"weights-{sha256_of(path)[:16]}.pth"]
    with pytest.raises(WeightsError, match="does not have the SHA-256"):
        load_encoder_weights(model, f"{address}/weights.pth", "0" * 64)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://127.0.0.1:9/w.pth?token=secret", r"cannot download http://127\.0\.0\.1/w\.pth \("),
        ("https://me:secret@example.org/w.pth", r"https://example\.org/w\.pth: a URL with a user"),
    ],
)
def test_an_error_shows_neither_password_nor_token_of_a_url(model, hub, url, message):
    with pytest.raises(WeightsError, match=message) as caught:
        load_encoder_weights(model, url, "0" * 64)
    assert "secret" not in str(caught.value)


def test_other_kinds_of_url_are_refused(model):
    with pytest.raises(WeightsError, match=r"s3://bucket/w\.pth: weights are read from file, http"):
        load_encoder_weights(model, "s3://bucket/w.pth", "0" * 64)


def test_imagenet_is_refused_for_timm_with_what_to_give(model, monkeypatch):
    monkeypatch.setattr(model, "settings", lambda: {"encoder": "timm:resnet18"})
    with pytest.raises(WeightsError, match="none for timm:resnet18: give the path"):
        load_encoder_weights(model, "imagenet")


def test_a_check_refuses_what_loading_refuses_and_downloads_nothing(
    published, hub, tmp_path, monkeypatch
):
    path, _ = published
    assert check_encoder_weights("mobilenet_v2", "none") is None
    assert check_encoder_weights("mobilenet_v2", str(path), sha256_of(path)) == path
    with pytest.raises(WeightsError, match="does not fit the encoder resnet50: "):
        check_encoder_weights("resnet50", str(path))
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(WeightsError, match="needs the package timm: install it"):
        check_encoder_weights("timm:resnet18", "none")
    found = check_encoder_weights("densenet201", "imagenet")
    assert isinstance(found, Download)
    assert found.path.parent == hub
    assert not hub.exists()
    found.path.parent.mkdir(parents=True)
    found.path.write_bytes(b"something else")
    with pytest.raises(WeightsError, match="the cached file is damaged: delete it"):
        check_encoder_weights("densenet201", "imagenet")
