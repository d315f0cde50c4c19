"""Files of pretrained weights: what fits an encoder is loaded, and the rest refused whole."""

import os
from pathlib import Path

import pytest
import torch
import torchvision

from densedepth.checkpoint import save_network
from densedepth.depth_range import NYU
from densedepth.errors import WeightsError
from densedepth.model import DenseDepth
from densedepth.weights import load_encoder_weights
from tests.densedepth.classifiers import randomised, same_top_features, sha256_of


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
    with pytest.raises(WeightsError, match=r"cannot be read as weights alone \(.+\)") as refused:
        load_encoder_weights(model, str(tmp_path / name))
    assert len(str(refused.value).splitlines()) == 1


def test_a_file_without_tensors_is_refused(model, tmp_path):
    for content in ({"epoch": 3}, [1, 2], 5):
        torch.save(content, tmp_path / "w.pth")
        with pytest.raises(WeightsError, match="holds no state dict"):
            load_encoder_weights(model, str(tmp_path / "w.pth"))
