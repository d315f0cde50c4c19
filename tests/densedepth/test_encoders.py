"""The encoders: levels of features, of torchvision's networks and timm's."""

import sys

import pytest
import torch
import torchvision

from densedepth.encoders import STRIDES, TORCHVISION_ENCODERS, build_encoder
from densedepth.model import DenseDepth
from tests.densedepth.meta_network import on_meta


@pytest.mark.parametrize("name", TORCHVISION_ENCODERS)
def test_every_encoder_gives_five_levels_at_strides_2_to_32(name):
    network = on_meta(name, 0.5)
    taken = []
    network.encoder.register_forward_hook(lambda module, args, levels: taken.extend(levels))
    assert network(torch.zeros(1, 3, 64, 96, device="meta")).shape == (1, 1, 32, 48)
    assert tuple(level.shape[1] for level in taken) == network.encoder.channels
    assert [tuple(level.shape[2:]) for level in taken] == [(64 // s, 96 // s) for s in STRIDES]


def test_an_unknown_encoder_is_refused_with_the_nearest_name():
    with pytest.raises(
        ValueError, match="unknown encoder 'densenet196': did you mean 'densenet169'"
    ):
        DenseDepth("densenet196")


def test_a_dense_block_that_joins_its_maps_one_by_one_gives_what_torchvisions_gives():
    ours = build_encoder("densenet121")
    theirs = torchvision.models.densenet121(weights=None).features
    theirs.load_state_dict(ours.features.state_dict())
    image = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    found, expected = ours(image)[-1], torch.relu(theirs(image))
    assert torch.equal(found, expected)
    for value in (found, expected):
        value.square().mean().backward()
    for name, parameter in theirs.named_parameters():
        gradient = ours.features.get_parameter(name).grad
        torch.testing.assert_close(gradient, parameter.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "channels"),
    [
        ("resnet18", (64, 64, 128, 256, 512)),
        ("convnext_atto", (0, 40, 80, 160, 320)),  # begins at stride 4
        ("pvt_v2_b0", (0, 32, 64, 160, 256)),
        ("mambaout_femto", (0, 48, 96, 192, 288)),  # gives (b, h, w, c), as Swin does
    ],
)
def test_a_real_timm_network_is_an_encoder(name, channels):
    network = DenseDepth(f"timm:{name}", 0.125).eval()
    assert network.encoder.channels == channels
    with torch.no_grad():
        assert network(torch.rand(1, 3, 64, 96)).shape == (1, 1, 32, 48)


@pytest.mark.parametrize("name", ["resnet18", "densenet121", "convnext_atto"])
def test_timm_networks_may_round_their_deepest_maps_up_or_down(name):
    """240 / 32 is 7.5: ResNet makes 8 of it, the others 7, like torchvision's DenseNet."""
    network = on_meta(f"timm:{name}", 0.125)
    assert network(torch.zeros(1, 3, 240, 320, device="meta")).shape == (1, 1, 120, 160)


def test_timm_networks_that_cannot_be_encoders_are_refused():
    with pytest.raises(ValueError, match="timm gives no feature maps"):
        DenseDepth("timm:no_such_network")
    with pytest.raises(ValueError, match=r"vit_tiny.* has feature maps at strides \[16.* none at"):
        DenseDepth("timm:vit_tiny_patch16_224")
    unpadded = DenseDepth("timm:inception_v4", 0.05).eval()
    with torch.no_grad(), pytest.raises(ValueError, match=r"inception_v4: of an image of 96x128"):
        unpadded(torch.rand(1, 3, 96, 128))


def test_without_timm_the_error_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ModuleNotFoundError, match="timm:resnet18 needs the package timm"):
        DenseDepth("timm:resnet18")
