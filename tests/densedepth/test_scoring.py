"""Whole frames estimated and scored."""

import numpy as np
import pytest
import torch
from torch import nn

from densedepth.depth_range import NYU
from densedepth.inference import predict_depth_m
from densedepth.protocols import get_protocol, whole_image
from densedepth.sample import Sample
from densedepth.scoring import score_frames


class Reddish(nn.Module):
    """Far where it is red, and a little nearer towards the left, so that mirroring matters."""

    def __init__(self):
        super().__init__()
        self.batch_sizes = []
        self.eval()

    def forward(self, image):
        self.batch_sizes.append(len(image))
        left = torch.linspace(2, 0, image.shape[-1] // 2, device=image.device)
        return 2 + 3 * (1 - nn.functional.avg_pool2d(image[:, :1], 2)) + left


def samples(sizes):
    rng = np.random.default_rng(0)
    for number, (height, width) in enumerate(sizes):
        image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        depth_m = rng.uniform(1, 9, (height, width)).astype(np.float32)
        yield Sample(f"frame-{number}", image, depth_m)


def score(frames, protocol, network=None):
    return list(
        score_frames(
            network or Reddish(),
            frames,
            depth_range=NYU,
            input_size_px=(64, 96),
            protocol=protocol,
            device=torch.device("cpu"),
            batch_size=4,
        )
    )


def test_every_frame_is_scored_once_in_order_whatever_the_batch_size_and_the_frames_sizes():
    """The first published evaluation had batches of 4 and dropped the last two of 654 images."""
    sizes = [(48, 64)] * 6 + [(50, 70)] * 5 + [(48, 64)]
    network = Reddish()
    scored = score(samples(sizes), whole_image(), network)
    assert [frame.sample.key for frame in scored] == [f"frame-{i}" for i in range(12)]
    assert network.batch_sizes == [4, 2, 4, 1, 1]
    assert [frame.prediction_m.shape for frame in scored] == sizes


@pytest.mark.parametrize("name", ["nyu_densedepth", "nyu_densedepth-noflip", "nyu_eigen"])
def test_a_frame_is_estimated_alone_mirrored_and_scored_as_the_protocol_says(name):
    protocol = get_protocol(name)
    for frame in score(samples([(48, 64)] * 3), protocol):
        image = torch.from_numpy(frame.sample.image).permute(2, 0, 1)[None].float() / 255
        alone_m = predict_depth_m(
            Reddish(), image, NYU, input_size_px=(64, 96), flip_average=protocol.flip_average
        )
        np.testing.assert_allclose(frame.prediction_m, alone_m[0, 0].numpy(), rtol=1e-6)
        assert frame.metrics == protocol.evaluate(frame.prediction_m, frame.sample.depth_m)
    flipped, once = (
        score(samples([(48, 64)]), get_protocol(f"nyu_eigen{v}")) for v in ("-flip", "")
    )
    assert flipped[0].metrics != once[0].metrics


def test_the_caption_gives_two_figures_and_nothing_where_no_pixel_counts():
    (frame,) = score(samples([(48, 64)]), whole_image())
    assert frame.caption == f"rel {frame.metrics.abs_rel:.3f}, delta1 {frame.metrics.delta1:.3f}"
    (empty,) = score(samples([(48, 64)]), whole_image(20.0, 30.0))
    assert empty.metrics.is_empty
    assert empty.caption == ""
