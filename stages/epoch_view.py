"""How a network does after an epoch: figures by the data set's protocol, the same frames drawn.

``worker`` and ``train`` load it by name and not by an import, so that it is outside of what
decides their fingerprints: neither a new picture nor a mended protocol trains anything anew. An
ablation's table is made of these figures: ``ablate.loads`` counts this file and what it imports,
where a protocol is set. Pictures decide no figure, so they are loaded by name here, too.
"""

from collections.abc import Callable, Iterable, Iterator
from importlib import import_module
from typing import Any, cast

from densedepth.data.batch_plans import ValidationBatches
from densedepth.data.encode import decode
from densedepth.data.loader import read_batches, read_spread
from densedepth.data.shard_source import ShardList
from densedepth.learner import Learner
from densedepth.metric_table import MetricTable
from densedepth.protocol import Protocol
from densedepth.protocols import get_protocol
from densedepth.sample import Sample
from densedepth.scoring import ScoredFrame, score_frames
from densedepth.validation import ScoredRound


def require_truth(name: str, ground_truth: str) -> None:
    """Make sure that the validation frames' depth is what a protocol refers to.

    Raises:
        ValueError: it is another kind.
    """
    get_protocol(name).require_truth(cast(Any, ground_truth))


def new_table(name: str) -> MetricTable:
    """Return an empty table of a protocol's figures."""
    return get_protocol(name).new_table()


def score_rounds(
    learner: Learner,
    source: ValidationBatches,
    name: str,
    watched: Callable[[Iterator[Sample]], Iterator[Sample]],
) -> Iterator[ScoredRound]:
    """Score this rank's validation frames at their own size, batch by batch.

    Args:
        learner: whose network is scored.
        source: the batches, and the size of the network's input.
        name: the protocol's.
        watched: passes this rank's frames on, and notes that it goes on.
    """
    protocol = get_protocol(name)
    for batch in read_batches(source):
        frames = _estimates(learner, watched(map(decode, batch)), protocol, source.input_size_px)
        yield [(frame.sample.key, frame.metrics) for frame in frames]


def draw_epoch(
    learner: Learner,
    shards: ShardList,
    name: str | None,
    input_size_px: tuple[int, int],
    num_frames: int,
) -> bytes:
    """Draw always the same validation frames; a JPEG."""
    protocol = get_protocol(name or "whole_image")
    frames = _estimates(learner, read_spread(shards, num_frames), protocol, input_size_px)
    pictures = import_module("densedepth.pictures")
    rows = [
        pictures.PanelRow(
            f.sample.image, f.sample.depth_m, f.prediction_m, f"{f.sample.key}: {f.caption}"
        )
        for f in frames
    ]
    return cast(bytes, pictures.to_jpeg(pictures.panel(rows)))


def _estimates(
    learner: Learner, samples: Iterable[Sample], protocol: Protocol, input_size_px: tuple[int, int]
) -> Iterator[ScoredFrame]:
    return score_frames(
        learner.best_network.eval(),
        samples,
        depth_range=learner.depth_range,
        input_size_px=input_size_px,
        protocol=protocol,
        device=learner.device,
        batch_size=8,
    )
