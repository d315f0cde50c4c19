"""From any picture to metres."""

import numpy as np
import pytest
import skimage.transform
import torch
from torch import nn

from densedepth.depth_range import NYU, DepthRange
from densedepth.inference import predict_depth_m
from densedepth.model import DenseDepth


class Plane(nn.Module):
    """Gives a known target, a function of the image's red channel, at half the size."""

    def __init__(self):
        super().__init__()
        self.seen_sizes = []
        self.eval()

    def forward(self, image):
        self.seen_sizes.append(tuple(image.shape[-2:]))
        assert image.shape[-2] % 32 == 0
        assert image.shape[-1] % 32 == 0
        red = image[:, :1]
        return nn.functional.avg_pool2d(red, 2) * 10 + 1


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    network = DenseDepth("mobilenet_v2", 0.05).eval()
    network.conv3.bias.data.fill_(5.0)  # metres within the range, so that averaging matters
    return network


@pytest.mark.parametrize(("height", "width"), [(64, 96), (47, 61), (33, 90), (7, 5)])
@pytest.mark.parametrize("input_size_px", [None, (64, 96)])
def test_the_result_has_the_pictures_size_and_stays_in_the_range(
    network, height, width, input_size_px
):
    image = torch.rand(2, 3, height, width)
    depth_m = predict_depth_m(network, image, NYU, input_size_px=input_size_px)
    assert depth_m.shape == (2, 1, height, width)
    assert depth_m.dtype == torch.float32
    assert NYU.min_m <= depth_m.min()
    assert depth_m.max() <= NYU.max_m
    assert depth_m.std() > 0


@pytest.mark.parametrize(
    ("size_px", "input_size_px", "output_size_px"),
    [
        ((64, 96), None, None),
        ((45, 71), None, None),
        ((45, 71), (64, 96), None),
        ((64, 96), (32, 64), (31, 77)),
    ],
)
def test_the_flip_average_is_exactly_flip_equivariant(
    network, size_px, input_size_px, output_size_px
):
    image = torch.rand(2, 3, *size_px)

    def predict(image, flip_average=True):
        return predict_depth_m(
            network,
            image,
            NYU,
            input_size_px=input_size_px,
            output_size_px=output_size_px,
            flip_average=flip_average,
        )

    assert torch.equal(predict(image.flip(-1)), predict(image).flip(-1))
    once = predict(image, flip_average=False)
    mirrored = predict(image.flip(-1), flip_average=False).flip(-1)
    assert not torch.allclose(once, mirrored, rtol=1e-3)
    torch.testing.assert_close(predict(image), (once + mirrored) / 2)


def test_the_network_sees_the_size_asked_for_or_a_padded_one():
    network = Plane()
    image = torch.rand(1, 3, 40, 70)
    predict_depth_m(network, image, NYU, flip_average=False)
    predict_depth_m(network, image, NYU, flip_average=False, input_size_px=(32, 64))
    assert network.seen_sizes == [(64, 96), (32, 64)]


def test_padding_repeats_the_border_and_is_cut_off():
    image = torch.rand(1, 3, 40, 70)
    padded = np.pad(image.numpy(), ((0, 0), (0, 0), (0, 24), (0, 26)), mode="edge")
    whole = predict_depth_m(Plane(), torch.tensor(padded), NYU, flip_average=False)
    cut = predict_depth_m(Plane(), image, NYU, flip_average=False)
    assert torch.equal(cut, whole[..., :40, :70])


def test_depth_and_not_its_inverse_is_upsampled_like_the_papers_evaluation():
    image = torch.rand(1, 3, 64, 96)
    depth_m = predict_depth_m(Plane(), image, NYU, flip_average=False)
    half_m = (10 / Plane()(image)[0, 0]).numpy()
    expected_m = skimage.transform.resize(half_m, (64, 96), order=1, mode="edge")
    np.testing.assert_allclose(depth_m[0, 0].numpy(), expected_m, rtol=1e-5)


def test_the_mirrored_estimate_is_averaged_in_depth_after_clipping():
    class Sided(nn.Module):
        """Says near for what it sees first, far for its mirror image."""

        def forward(self, image):
            near = image[0, 0, 0, 0] > image[0, 0, 0, -1]
            half = image[:, :1, ::2, ::2]
            return torch.full_like(half, 5.0) if near else torch.full_like(half, -3.0)

    image = torch.linspace(1, 0, 64).expand(1, 3, 32, 64)
    depth_m = predict_depth_m(Sided().eval(), image, NYU)
    torch.testing.assert_close(depth_m, torch.full((1, 1, 32, 64), (10 / 5 + 10) / 2))


def test_the_output_can_have_a_size_of_its_own():
    image = torch.full((1, 3, 64, 96), 0.4)
    depth_m = predict_depth_m(Plane(), image, NYU, output_size_px=(375, 1242))
    torch.testing.assert_close(depth_m, torch.full((1, 1, 375, 1242), 10 / 5.0))


def test_shrinking_the_picture_is_antialiased():
    # One line in three, exactly where sampling every third pixel would look.
    stripes = (torch.arange(96) % 3 == 1).float().expand(1, 3, 96, 96)
    depth_m = predict_depth_m(Plane(), stripes, NYU, input_size_px=(32, 32), flip_average=False)
    torch.testing.assert_close(
        depth_m, torch.full_like(depth_m, 10 / (10 / 3 + 1)), rtol=0.1, atol=0
    )


def test_metres_are_clamped_to_the_range_whatever_the_network_says():
    image = torch.rand(1, 3, 32, 32)
    depth_range = DepthRange(0.3, 7.7)
    for target, expected_m in ((-5.0, 7.7), (0.0, 7.7), (1e9, 0.3)):

        class Constant(nn.Module):
            def forward(self, image, target=target):
                return torch.full((1, 1, 16, 16), target)

        # At such a size interpolation rounds a constant up here and down there.
        depth_m = predict_depth_m(Constant().eval(), image, depth_range, output_size_px=(19, 22))
        torch.testing.assert_close(depth_m, torch.full((1, 1, 19, 22), expected_m))
        low, high = torch.tensor([depth_range.min_m, depth_range.max_m])
        assert low <= depth_m.min()
        assert depth_m.max() <= high


def test_half_precision_networks_give_float32_metres():
    network = DenseDepth("mobilenet_v2", 0.05).eval().bfloat16()
    image = torch.rand(1, 3, 32, 32).bfloat16()
    assert predict_depth_m(network, image, NYU).dtype == torch.float32

    class Three(nn.Module):
        def forward(self, image):
            return torch.full_like(image[:, :1, ::2, ::2], 3.0)

    depth_m = predict_depth_m(Three().eval(), image, NYU)  # 10 / 3 in bfloat16 is 3.328
    torch.testing.assert_close(depth_m, torch.full((1, 1, 32, 32), 10 / 3))


def test_no_gradient_is_kept(network):
    assert not predict_depth_m(network, torch.rand(1, 3, 32, 32), NYU).requires_grad


def test_a_network_in_training_mode_is_refused_and_left_alone(network):
    statistics = network.encoder.features[0][1].running_mean.clone()
    network.train()
    try:
        with pytest.raises(ValueError, match=r"call model\.eval\(\) first"):
            predict_depth_m(network, torch.rand(1, 3, 32, 32), NYU)
    finally:
        network.eval()
    assert torch.equal(statistics, network.encoder.features[0][1].running_mean)


def test_impossible_sizes_are_refused(network):
    image = torch.rand(1, 3, 32, 32)
    with pytest.raises(ValueError, match=r"input_size_px is \(240, 321\).*even and at least 32"):
        predict_depth_m(network, image, NYU, input_size_px=(240, 321))
    with pytest.raises(ValueError, match=r"input_size_px is \(0, 32\)"):
        predict_depth_m(network, image, NYU, input_size_px=(0, 32))
    with pytest.raises(ValueError, match=r"output_size_px is \(0, 32\)"):
        predict_depth_m(network, image, NYU, output_size_px=(0, 32))
