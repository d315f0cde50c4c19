"""The network against the paper's table of layers and parameter counts."""

import json
import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from jaxtyping import TypeCheckError
from torch import nn
from torch.nn import functional

from densedepth.encoders import build_encoder
from densedepth.model import DenseDepth, UpBlock, Upsample
from tests.densedepth.meta_network import on_meta


@pytest.fixture(scope="module")
def small():
    torch.manual_seed(0)
    return DenseDepth("mobilenet_v2", 0.05).eval()


@pytest.mark.parametrize(
    ("encoder", "decoder_width", "num_trainable"),
    [
        ("densenet169", None, 42_657_689),
        ("densenet169", 0.5, 21_365_405),
        ("densenet201", None, 57_806_089),
        ("densenet201", 0.5, 29_687_509),
    ],
)
def test_the_trainable_parameters_are_the_papers(encoder, decoder_width, num_trainable):
    network = on_meta(encoder, decoder_width)
    assert sum(p.numel() for p in network.parameters() if p.requires_grad) == num_trainable
    assert network.num_trainable == num_trainable


def test_the_defaults_are_the_papers():
    assert on_meta().settings() == {
        "encoder": "densenet169",
        "decoder_width": None,
        "conva_activation": False,
        "align_corners": True,
        "input_normalisation": "none",
    }


# The slides' table of layers, row by row: the row's name, its output (height, width, channels), the
# module that computes it, the function, and for CONCAT rows the row whose output is appended. The
# slides call the fourth block's last rows CONCAT3, UP2-CONVA and UP2-CONVB, a slip.
TABLE = [
    ("CONV1", (240, 320, 64), "encoder.features.relu0", "DenseNet", None),
    ("POOL1", (120, 160, 64), "encoder.features.pool0", "DenseNet", None),
    ("POOL2", (60, 80, 128), "encoder.features.transition1", "DenseNet", None),
    ("POOL3", (30, 40, 256), "encoder.features.transition2", "DenseNet", None),
    ("CONV2", (15, 20, 1664), "conv2", "Convolution 1x1", None),
    ("UP1", (30, 40, 1664), "up1.upsample", "Upsample 2x2", None),
    ("CONCAT1", (30, 40, 1920), "up1.concat", "Concatenate", "POOL3"),
    ("UP1-CONVA", (30, 40, 832), "up1.conva", "Convolution 3x3", None),
    ("UP1-CONVB", (30, 40, 832), "up1.convb", "Convolution 3x3", None),
    ("UP2", (60, 80, 832), "up2.upsample", "Upsample 2x2", None),
    ("CONCAT2", (60, 80, 960), "up2.concat", "Concatenate", "POOL2"),
    ("UP2-CONVA", (60, 80, 416), "up2.conva", "Convolution 3x3", None),
    ("UP2-CONVB", (60, 80, 416), "up2.convb", "Convolution 3x3", None),
    ("UP3", (120, 160, 416), "up3.upsample", "Upsample 2x2", None),
    ("CONCAT3", (120, 160, 480), "up3.concat", "Concatenate", "POOL1"),
    ("UP3-CONVA", (120, 160, 208), "up3.conva", "Convolution 3x3", None),
    ("UP3-CONVB", (120, 160, 208), "up3.convb", "Convolution 3x3", None),
    ("UP4", (240, 320, 208), "up4.upsample", "Upsample 2x2", None),
    ("CONCAT4", (240, 320, 272), "up4.concat", "Concatenate", "CONV1"),
    ("UP4-CONVA", (240, 320, 104), "up4.conva", "Convolution 3x3", None),
    ("UP4-CONVB", (240, 320, 104), "up4.convb", "Convolution 3x3", None),
    ("CONV3", (240, 320, 1), "conv3", "Convolution 3x3", None),
]


def test_the_network_is_the_slides_table_of_layers_row_by_row():
    network = on_meta()
    order, inputs, outputs = [], {}, {}

    def record(row):
        def hook(module, args, output):
            order.append(row)
            inputs[row], outputs[row] = args, output

        return hook

    for row, _, module, _, _ in TABLE:
        network.get_submodule(module).register_forward_hook(record(row))
    result = network(torch.zeros(2, 3, 480, 640, device="meta"))

    assert order == [row for row, *_ in TABLE]
    for (before, *_), (row, _, _, function, _) in pairwise(TABLE):
        if row.startswith(("UP", "CONV")) and function != "DenseNet" and row != "CONV2":
            assert inputs[row][0] is outputs[before] or row.endswith("CONVB"), (
                f"{row} does not read {before}"
            )
    for row, (height, width, channels), path, function, skip in TABLE:
        assert tuple(outputs[row].shape) == (2, channels, height, width), row
        module = network.get_submodule(path)
        match function.split():
            case ["DenseNet"]:
                assert path.startswith("encoder.features."), row
            case ["Convolution", size]:
                assert isinstance(module, nn.Conv2d), row
                assert f"{module.kernel_size[0]}x{module.kernel_size[1]}" == size, row
                assert module.bias is not None, row
            case ["Upsample", "2x2"]:
                assert isinstance(module, Upsample), row
            case ["Concatenate"]:
                assert inputs[row][1] is outputs[skip], f"{row} does not append {skip}"
    assert result is outputs["CONV3"]


def test_conv2_reads_block4_after_norm_and_relu():
    encoder = build_encoder("densenet169").eval()
    with torch.no_grad():
        top = encoder(torch.rand(1, 3, 32, 32))[-1]
    assert list(encoder.features)[-2:] == [encoder.features.norm5, encoder.features.relu5]
    assert top.min() == 0


def test_only_convb_is_followed_by_an_activation_unless_asked_for():
    for network, num_activations in ((on_meta(), 4), (on_meta(conva_activation=True), 8)):
        leaky = [m for m in network.modules() if isinstance(m, nn.LeakyReLU)]
        assert [m.negative_slope for m in leaky] == [0.2] * num_activations


def test_the_decoder_has_no_normalisation():
    network = on_meta()
    for block in ("conv2", "up1", "up2", "up3", "up4", "conv3"):
        kinds = {type(m) for m in network.get_submodule(block).modules()}
        assert not kinds & {nn.BatchNorm2d, nn.GroupNorm, nn.LayerNorm, nn.Dropout}


def bilinear_twice(image: np.ndarray, *, align_corners: bool) -> np.ndarray:
    """Upsample (height, width) by two from the definition."""

    def positions(size: int) -> np.ndarray:
        i = np.arange(2 * size)
        if align_corners:
            return i * (size - 1) / (2 * size - 1)
        return np.clip((i + 0.5) / 2 - 0.5, 0, size - 1)

    out = np.empty((2 * image.shape[0], 2 * image.shape[1]))
    for i, y in enumerate(positions(image.shape[0])):
        for j, x in enumerate(positions(image.shape[1])):
            y0, x0 = math.floor(y), math.floor(x)
            y1, x1 = min(y0 + 1, image.shape[0] - 1), min(x0 + 1, image.shape[1] - 1)
            fy, fx = y - y0, x - x0
            top = (1 - fx) * image[y0, x0] + fx * image[y0, x1]
            bottom = (1 - fx) * image[y1, x0] + fx * image[y1, x1]
            out[i, j] = (1 - fy) * top + fy * bottom
    return out


@pytest.mark.parametrize("conva_activation", [False, True])
@pytest.mark.parametrize("align_corners", [False, True])
def test_an_up_block_is_upsample_concatenate_conva_convb_leaky(conva_activation, align_corners):
    torch.manual_seed(1)
    block = UpBlock(4, 3, 2, conva_activation=conva_activation, align_corners=align_corners)
    x, skip = torch.randn(1, 4, 3, 5), torch.randn(1, 3, 6, 10)
    up = [bilinear_twice(plane, align_corners=align_corners) for plane in x[0].numpy()]
    y = torch.cat((torch.tensor(np.stack(up)).float()[None], skip), dim=1)
    y = functional.conv2d(y, block.conva.weight, block.conva.bias, padding=1)
    if conva_activation:
        y = torch.where(y > 0, y, 0.2 * y)
    y = functional.conv2d(y, block.convb.weight, block.convb.bias, padding=1)
    torch.testing.assert_close(block(x, skip), torch.where(y > 0, y, 0.2 * y))


def test_the_decoder_starts_like_keras_glorot_uniform_and_zero_bias():
    torch.manual_seed(2)
    network = DenseDepth("mobilenet_v2", 0.2)
    decoder = [m for n, m in network.named_modules() if isinstance(m, nn.Conv2d) and "enc" not in n]
    assert len(decoder) == 10
    for conv in decoder:
        receptive = conv.kernel_size[0] * conv.kernel_size[1]
        limit = math.sqrt(6 / (receptive * (conv.in_channels + conv.out_channels)))
        assert conv.weight.abs().max() <= limit
        assert conv.bias.count_nonzero() == 0
        if conv.weight.numel() > 1000:
            assert conv.weight.abs().max() > 0.95 * limit
            assert conv.weight.std().item() == pytest.approx(limit / math.sqrt(3), rel=0.06)


@pytest.mark.parametrize(("height", "width"), [(480, 641), (33, 64), (16, 32)])
def test_odd_and_tiny_sizes_are_refused(small, height, width):
    with pytest.raises(ValueError, match=f"{height}x{width} pixels.*even and at least 32"):
        small(torch.zeros(1, 3, height, width))


@pytest.mark.parametrize("encoder", ["mobilenet_v2", "densenet121"])
def test_even_sizes_that_are_no_multiple_of_32_give_half_of_them(encoder):
    assert on_meta(encoder, 0.25)(torch.zeros(1, 3, 240, 330, device="meta")).shape == (
        1,
        1,
        120,
        165,
    )


def test_the_shapes_in_the_signatures_are_checked_under_test(small):
    with pytest.raises(TypeCheckError):
        small(torch.zeros(1, 4, 32, 32))


def test_settings_rebuild_the_network():
    network = on_meta(
        "densenet121",
        0.25,
        conva_activation=True,
        align_corners=False,
        input_normalisation="imagenet",
    )
    again = on_meta(**json.loads(json.dumps(network.settings())))
    assert again.settings() == network.settings()
    assert str(again) == str(network)
    assert not again.up3.upsample.align_corners


def test_imagenet_normalisation_shifts_and_scales_the_colours(small):
    normalising = DenseDepth("mobilenet_v2", 0.05, input_normalisation="imagenet").eval()
    normalising.load_state_dict(small.state_dict())
    image = torch.rand(1, 3, 64, 64)
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    with torch.no_grad():
        torch.testing.assert_close(normalising(image), small((image - mean) / std))


def test_channels_last_gives_the_same_result(small):
    image = torch.rand(2, 3, 64, 96)
    last = DenseDepth("mobilenet_v2", 0.05).eval()
    last.load_state_dict(small.state_dict())
    last = last.to(memory_format=torch.channels_last)
    with torch.no_grad():
        expected = small(image)
        result = last(image.to(memory_format=torch.channels_last))
    torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-4)


def test_under_autocast_the_result_is_not_rounded_to_half_precision(small):
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        result = small(image)
    assert result.dtype == torch.float32
    assert not torch.equal(result, result.bfloat16().float())


def test_every_parameter_gets_a_gradient():
    torch.manual_seed(3)
    network = DenseDepth("mobilenet_v2", 0.05)
    network(torch.rand(2, 3, 64, 64)).square().mean().backward()
    assert [n for n, p in network.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("decoder_width", [0.0, -0.5, 1.5, 320.0])
def test_a_decoder_width_that_is_no_fraction_is_refused(decoder_width):
    with pytest.raises(ValueError, match=r"fraction of the encoder's 1280 output channels"):
        on_meta("mobilenet_v2", decoder_width)


def test_a_decoder_without_channels_is_refused_with_the_least_width():
    with pytest.raises(ValueError, match=r"12 channels, halved 4 times.*at least 0\.0125"):
        on_meta("mobilenet_v2", 0.01)
    assert on_meta("mobilenet_v2", 0.0125).conv3.in_channels == 1


def test_an_unknown_normalisation_is_refused():
    with pytest.raises((ValueError, TypeCheckError), match="imagenet"):
        on_meta(input_normalisation="keras")
