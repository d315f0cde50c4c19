"""A network file holds all it takes to use the network, and says so without PyTorch."""

import io
import json
import os

import pytest
import safetensors
import safetensors.torch
import torch
from torch import nn

from densedepth.checkpoint import load_network, save_network
from densedepth.depth_range import KITTI, NYU, DepthRange
from densedepth.errors import WeightsError
from densedepth.model import DenseDepth

EXTRA = {"abs_rel": 0.123, "run": "a1", "encoder": {"weights": "imagenet"}}


@pytest.fixture
def model():
    torch.manual_seed(0)
    network = DenseDepth(
        "mobilenet_v2", 0.05, conva_activation=True, input_normalisation="imagenet"
    )
    network.train()(torch.rand(2, 3, 32, 32))  # running statistics of its own
    return network.to(memory_format=torch.channels_last).eval()


@pytest.fixture
def path(model, tmp_path):
    path = tmp_path / "network.safetensors"
    save_network(model, KITTI, path, EXTRA)
    return path


def test_a_loaded_network_is_the_saved_one(model, path):
    loaded, depth_range, extra = load_network(path)
    assert loaded.settings() == model.settings()
    assert (depth_range, extra) == (KITTI, EXTRA)
    assert not loaded.training
    state = loaded.state_dict()
    assert state.keys() == model.state_dict().keys()
    for name, value in model.state_dict().items():
        assert torch.equal(state[name], value), name
        assert state[name].dtype == value.dtype
    image = torch.rand(1, 3, 64, 32)
    with torch.no_grad():
        torch.testing.assert_close(loaded(image), model(image))


def test_without_extra_facts_there_are_none(model, tmp_path):
    save_network(model, NYU, tmp_path / "n.safetensors")
    assert load_network(tmp_path / "n.safetensors")[1:] == (NYU, {})


def test_a_write_that_fails_leaves_the_file_that_was_there_and_nothing_else(model, path):
    before = path.read_bytes()
    (path.parent / f"{path.name}.{os.getpid()}.part").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left"):
        save_network(model, NYU, path)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_a_depth_range_survives_to_the_last_bit(model, tmp_path):
    depth_range = DepthRange(0.1 + 0.2, 100 / 3)
    save_network(model, depth_range, tmp_path / "n.safetensors")
    assert load_network(tmp_path / "n.safetensors")[1] == depth_range


def test_an_open_file_will_do(model, path):
    file = io.BytesIO()
    save_network(model, KITTI, file, EXTRA)
    assert file.getvalue() == path.read_bytes()
    file.seek(0)
    assert load_network(file)[0].settings() == model.settings()


def test_the_same_network_gives_the_same_bytes(model, path, tmp_path):
    for i in range(5):
        save_network(model, KITTI, tmp_path / f"{i}", dict(reversed(EXTRA.items())))
        assert (tmp_path / f"{i}").read_bytes() == path.read_bytes()


def test_saving_again_replaces_the_file_and_leaves_nothing_else(model, path):
    save_network(model, NYU, path)
    assert load_network(path)[1] == NYU
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_failed_save_keeps_the_old_file(model, path):
    for extra in ({"when": object()}, {"loss": float("nan")}):
        with pytest.raises((TypeError, ValueError), match="JSON"):
            save_network(model, NYU, path, extra)
    assert load_network(path)[2] == EXTRA
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_any_safetensors_reader_sees_the_weights_and_the_facts(model, path):
    with safetensors.safe_open(path, framework="numpy") as file:
        assert set(file.keys()) == set(model.state_dict())
        facts = json.loads(file.metadata()["densedepth"])
        assert (file.get_tensor("conv3.bias") == model.conv3.bias.detach().numpy()).all()
    assert facts["settings"] == model.settings()
    assert facts["depth_range_m"] == [1.0, 80.0]
    assert facts["extra"] == EXTRA


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(WeightsError, match=r"no network file at .*gone"):
        load_network(tmp_path / "gone.safetensors")


def write_weights_alone(path):
    safetensors.torch.save_file({"w": torch.zeros(3)}, path)


def write_another_projects_file(path):
    safetensors.torch.save_file({"w": torch.zeros(3)}, path, {"format": "pt"})


def write_a_pickle(path):
    torch.save({"w": torch.zeros(3)}, path)


@pytest.mark.parametrize(
    "write",
    [
        write_weights_alone,
        write_another_projects_file,
        write_a_pickle,
        lambda path: path.write_bytes(b""),
        lambda path: path.write_text("not a network"),
        lambda path: path.write_bytes((2).to_bytes(8, "little") + b"[]"),
    ],
)
def test_a_foreign_file_is_refused_with_what_to_give(tmp_path, write):
    path = tmp_path / "foreign.safetensors"
    write(path)
    with pytest.raises(WeightsError, match=r"foreign\.safetensors is no network file"):
        load_network(path)


def test_a_file_of_a_later_version_is_refused(path):
    content = path.read_bytes()
    assert content.count(b'\\"version\\": 1') == 1
    path.write_bytes(content.replace(b'\\"version\\": 1', b'\\"version\\": 2'))
    with pytest.raises(WeightsError, match="network file of version 2"):
        load_network(path)


def test_a_cut_file_is_refused(path):
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(WeightsError, match="damaged or of another version"):
        load_network(path)


def test_weights_that_do_not_fit_the_settings_are_refused(model, path):
    with safetensors.safe_open(path, framework="numpy") as file:
        metadata = file.metadata()
    tensors = model.state_dict()
    tensors.pop("conv3.bias")
    safetensors.torch.save_file({n: v.contiguous() for n, v in tensors.items()}, path, metadata)
    with pytest.raises(WeightsError, match=r"another version: (?s:.*)conv3\.bias"):
        load_network(path)


def test_a_wrapped_network_is_refused(model, tmp_path):
    class Wrapper(nn.Module):
        def __init__(self, module):
            super().__init__()
            self.module = module

    with pytest.raises(
        TypeError, match=r"got a Wrapper: pass the DenseDepth inside it \(model\.module"
    ):
        save_network(Wrapper(model), NYU, tmp_path / "n.safetensors")
