"""Pretrained weights: what is loaded is what was published, or an error says what to set."""

import hashlib
import os
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torchvision
from torch import nn

from densedepth.checkpoint import save_network
from densedepth.depth_range import NYU
from densedepth.errors import WeightsError
from densedepth.model import DenseDepth
from densedepth.weights import load_encoder_weights


def sha256_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def randomised(network: nn.Module, seed: int = 0) -> nn.Module:
    """Make every entry of the state dict differ from a fresh network's, batch norms included."""
    generator = torch.Generator().manual_seed(seed)
    for value in network.state_dict().values():
        if value.is_floating_point():
            value.copy_(torch.rand(value.shape, generator=generator) * 0.1 + 0.05)
    return network.eval()


def same_top_features(model: DenseDepth, classifier: nn.Module) -> bool:
    """Compare the encoder's last map with torchvision's own; both in evaluation mode."""
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = classifier.features(image)
        if isinstance(classifier, torchvision.models.DenseNet):
            expected = expected.relu()
        return torch.equal(model.eval().encoder(image)[-1], expected)


@pytest.fixture
def model():
    torch.manual_seed(5)
    return DenseDepth("mobilenet_v2", 0.05)


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A file as torchvision publishes it, with random weights: (path, the classifier)."""
    path = tmp_path_factory.mktemp("published") / "mobilenet.pth"
    classifier = randomised(torchvision.models.mobilenet_v2())
    torch.save(classifier.state_dict(), path)
    return path, classifier


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


def test_the_real_imagenet_weights_give_torchvisions_features():
    """Needs torchvision's file mobilenet_v2-b0353104.pth; no network."""
    name = os.environ.get("DEPTH_MOBILENET_WEIGHTS")
    if not name:
        pytest.skip("DEPTH_MOBILENET_WEIGHTS does not name mobilenet_v2-b0353104.pth")
    path = Path(name)
    classifier = torchvision.models.mobilenet_v2().eval()
    classifier.load_state_dict(torch.load(path, weights_only=True))
    model = DenseDepth("mobilenet_v2", 0.05)
    assert not same_top_features(model, classifier)
    digest = sha256_of(path)
    assert digest.startswith("b0353104")
    load_encoder_weights(model, str(path), digest)
    assert same_top_features(model, classifier)


def test_a_classifiers_file_is_loaded_without_its_head(model, published):
    path, classifier = published
    decoder = {n: v.clone() for n, v in model.state_dict().items() if not n.startswith("encoder")}
    load_encoder_weights(model, str(path))
    assert same_top_features(model, classifier)
    for name, value in decoder.items():
        assert torch.equal(model.state_dict()[name], value), f"{name} of the decoder changed"


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


def test_a_training_scripts_wrappings_are_taken_off(model, published, tmp_path):
    _, classifier = published
    state = {f"module.{name}": value for name, value in classifier.state_dict().items()}
    torch.save({"epoch": 3, "state_dict": state}, tmp_path / "wrapped.pth")
    load_encoder_weights(model, str(tmp_path / "wrapped.pth"))
    assert same_top_features(model, classifier)


def test_the_encoder_of_this_projects_own_network_is_loaded(model, published, tmp_path):
    path, classifier = published
    load_encoder_weights(model, str(path))
    save_network(model, NYU, tmp_path / "network.safetensors")
    torch.save(model.state_dict(), tmp_path / "network.pth")
    for name in ("network.safetensors", "network.pth"):
        other = DenseDepth("mobilenet_v2", 0.1)
        load_encoder_weights(other, str(tmp_path / name))
        assert same_top_features(other, classifier)


def test_a_resnet_without_the_prefix_features_fits(tmp_path):
    classifier = randomised(torchvision.models.resnet50(), seed=4)
    torch.save(classifier.state_dict(), tmp_path / "resnet.pth")
    model = DenseDepth("resnet50", 0.02)
    load_encoder_weights(model, str(tmp_path / "resnet.pth"))
    own = model.encoder.features.state_dict()
    assert len(own) == len(classifier.state_dict()) - 2
    for name, value in own.items():
        assert torch.equal(value, classifier.state_dict()[name])


def test_the_weights_of_a_timm_network_fit(tmp_path):
    import timm

    for name in ("resnet18", "densenet121"):  # timm renames the second one's layers
        network = randomised(timm.create_model(name, pretrained=False))
        torch.save(network.state_dict(), tmp_path / "timm.pth")
        model = DenseDepth(f"timm:{name}", 0.05).eval()
        load_encoder_weights(model, str(tmp_path / "timm.pth"))
        image = torch.rand(1, 3, 64, 64)
        with torch.no_grad():
            top = network.forward_features(image)
            torch.testing.assert_close(model.encoder(image)[-1].relu(), top.relu())


def test_imagenet_is_refused_for_timm_with_what_to_give(model, monkeypatch):
    monkeypatch.setattr(model, "settings", lambda: {"encoder": "timm:resnet18"})
    with pytest.raises(WeightsError, match="none for timm:resnet18: give the path"):
        load_encoder_weights(model, "imagenet")


def changed(published, tmp_path, change) -> str:
    state = dict(published[1].state_dict())
    change(state)
    torch.save(state, tmp_path / "changed.pth")
    return str(tmp_path / "changed.pth")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("features.3.conv.1.1.bias"), r"1 missing \(3\.conv\.1\.1\.bias\)"),
        (
            lambda s: s.update({"features.0.0.weight": torch.zeros(8, 3, 3, 3)}),
            r"1 of another shape \(0\.0\.weight \(8, 3, 3, 3\) instead of \(32, 3, 3, 3\)\)",
        ),
        (lambda s: s.update({"features.19.weight": torch.zeros(1)}), r"1 left over \(features\.19"),
        (lambda s: [s.pop(k) for k in list(s) if "conv" in k], r"\d+ missing .*, \.\.\.\)"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_whole(model, published, tmp_path, change, message):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(WeightsError, match=f"does not fit the encoder mobilenet_v2: {message}"):
        load_encoder_weights(model, changed(published, tmp_path, change))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_another_encoders_file_is_refused(published):
    model = DenseDepth("efficientnet_b0", 0.05)
    with pytest.raises(WeightsError, match="name the file's encoder"):
        load_encoder_weights(model, str(published[0]))


class Payload:
    """What a malicious file would run when it is read."""

    def __reduce__(self):
        return os.system, ("false",)


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("w.pth", lambda path: path.write_text("<html>not found</html>")),
        ("w.pth", lambda path: path.write_bytes(b"")),
        ("w.safetensors", lambda path: path.write_bytes(b"12345678{}")),
        ("w.pth", lambda path: torch.save({"w": Payload()}, path)),
    ],
)
def test_what_is_no_file_of_weights_alone_is_refused(model, tmp_path, name, write):
    write(tmp_path / name)
    with pytest.raises(WeightsError, match="cannot be read as weights alone"):
        load_encoder_weights(model, str(tmp_path / name))


def test_a_file_without_tensors_is_refused(model, tmp_path):
    for content in ({"epoch": 3}, [1, 2], 5):
        torch.save(content, tmp_path / "w.pth")
        with pytest.raises(WeightsError, match="holds no state dict"):
            load_encoder_weights(model, str(tmp_path / "w.pth"))
