"""A network's estimates of whole frames, scored by a protocol at the frames' own size."""

import itertools
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float32
from torch import nn

from densedepth.depth_range import DepthRange
from densedepth.inference import predict_depth_m
from densedepth.metrics import ImageMetrics
from densedepth.protocol import Protocol
from densedepth.sample import Sample


@dataclass(frozen=True)
class ScoredFrame:
    """A frame, the estimate and its figures.

    Attributes:
        sample: the frame.
        prediction_m: estimated depth in metres.
        metrics: by the protocol.
        predict_s: what the estimate took, its share of the batch's.
    """

    sample: Sample
    prediction_m: Float32[np.ndarray, "h w"]
    metrics: ImageMetrics
    predict_s: float

    @property
    def caption(self) -> str:
        """The figures in a few words; none where no pixel counts."""
        if self.metrics.is_empty:
            return ""
        return f"rel {self.metrics.abs_rel:.3f}, delta1 {self.metrics.delta1:.3f}"


def score_frames(
    network: nn.Module,
    samples: Iterable[Sample],
    *,
    depth_range: DepthRange,
    input_size_px: tuple[int, int],
    protocol: Protocol,
    device: torch.device,
    batch_size: int = 6,
) -> Iterator[ScoredFrame]:
    """Estimate and score frames in their order.

    Args:
        network: in evaluation mode, on the device.
        samples: frames of any sizes.
        depth_range: the range that the network was trained for.
        input_size_px: height and width at which the network works.
        protocol: what scores; it also says whether the mirrored image's estimate is averaged in.
        device: where the network is.
        batch_size: frames estimated together, where they have one size.
    """
    for batch in _same_size(samples, batch_size):
        stacked = torch.from_numpy(np.stack([s.image for s in batch])).permute(0, 3, 1, 2)
        started = time.monotonic()
        with torch.inference_mode():
            predicted = predict_depth_m(
                network,
                stacked.to(device).float() / 255,
                depth_range,
                input_size_px=input_size_px,
                output_size_px=(batch[0].depth_m.shape[0], batch[0].depth_m.shape[1]),
                flip_average=protocol.flip_average,
            )
        predictions_m = predicted[:, 0].float().cpu().numpy()
        predict_s = (time.monotonic() - started) / len(batch)
        for sample, prediction_m in zip(batch, predictions_m, strict=True):
            metrics = protocol.evaluate(prediction_m, sample.depth_m)
            yield ScoredFrame(sample, prediction_m, metrics, predict_s)


def _same_size(samples: Iterable[Sample], batch_size: int) -> Iterator[list[Sample]]:
    """Group consecutive samples of one size: KITTI's frames differ by drive."""
    for _, group in itertools.groupby(samples, key=lambda s: s.image.shape):
        while batch := list(itertools.islice(group, batch_size)):
            yield batch
