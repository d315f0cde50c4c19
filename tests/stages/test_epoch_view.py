"""How a network's validation frames are scored and drawn after an epoch."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from densedepth.data.batch_plans import ValidationBatches
from densedepth.data.depth_codec import pack_depth
from densedepth.data.encode import encode_image_png
from densedepth.data.shard_source import LocalShards, ShardList
from densedepth.data.shards import write_shard
from densedepth.inference import predict_depth_m
from densedepth.sample import EncodedSample
from stages.epoch_view import draw_epoch, new_table, score_rounds
from tests.densedepth.reference_metrics import image_reference
from tests.densedepth.small_training import RANGE, make_learner

INPUT_SIZE_PX = (32, 64)


def frames(count: int = 5) -> list[tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(3)
    images = rng.integers(0, 256, (count, 48, 80, 3), dtype=np.uint8)
    depth_mm = rng.integers(0, 9999, (count, 48, 80), dtype=np.uint16)
    return list(zip(images, depth_mm, strict=True))


@pytest.fixture
def shards(tmp_path: Path) -> ShardList:
    samples = [
        EncodedSample(f"f{n}", encode_image_png(image), "png", pack_depth(depth_mm), 1e-3)
        for n, (image, depth_mm) in enumerate(frames())
    ]
    paths = (tmp_path / "a.tar", tmp_path / "b.tar")
    write_shard(paths[0], samples[:3])
    write_shard(paths[1], samples[3:])
    return ShardList((3, 2), LocalShards(paths))


def test_frames_are_scored_at_their_own_size_and_seen_one_by_one(shards: ShardList):
    learner = make_learner()
    expected, passed = [], []
    for image, depth_mm in frames():
        colours = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
        network = learner.network.eval()
        found_m = predict_depth_m(
            network, colours, RANGE, input_size_px=INPUT_SIZE_PX, flip_average=False
        )
        depth_m = (depth_mm * 1e-3).astype(np.float32)
        expected.append(image_reference(found_m[0, 0].numpy(), depth_m, depth_mm > 0))

    def watched(samples):
        for sample in samples:
            passed.append(sample.key)
            yield sample

    source = ValidationBatches(shards, 0, 1, 2, INPUT_SIZE_PX)
    table = new_table("whole_image")
    for number, scored in enumerate(score_rounds(learner, source, "whole_image", watched)):
        assert [key for key, _ in scored] == passed[2 * number :], "a batch, and none ahead of it"
        for key, metrics in scored:
            table.update(key, metrics)
    assert passed == ["f0", "f1", "f2", "f3", "f4"]
    found = table.compute().per_image_mean
    for name in ("delta1", "abs_rel", "rmse", "log10"):
        mean = sum(figures[name] for figures in expected) / len(expected)
        assert found[name] == pytest.approx(mean, rel=1e-4), name


def test_the_same_frames_are_drawn_each_time(shards: ShardList):
    learner = make_learner()
    drawn = [draw_epoch(learner, shards, None, INPUT_SIZE_PX, 2) for _ in range(2)]
    assert drawn[0] == drawn[1]
    with (
        Image.open(io.BytesIO(drawn[0])) as two,
        Image.open(io.BytesIO(draw_epoch(learner, shards, None, INPUT_SIZE_PX, 4))) as four,
    ):
        assert four.height > 1.8 * two.height
        assert four.width == two.width
