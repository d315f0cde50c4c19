"""Real NYU and KITTI frames through the whole DAG, small and short."""

from pathlib import Path

import pytest

from tests.integration.test_pipeline import artifact, pipeline

PRESET = """
[session]
num_cpus = 4

[shard.nyu]
format = "nyu_densedepth"
root = "{samples}/nyu_densedepth"
options = {{ val_fraction = 0.1 }}
max_frames = 24
samples_per_shard = 16

[train.nyu]
num_workers = 2

[train.nyu.recipe]
epochs = 1
global_batch_size = 8
input_size_px = [96, 128]

[train.nyu.recipe.network]
encoder = "mobilenet_v2"
decoder_width = 0.0625
weights = "none"

[ablate.nyu]
num_workers = 0
max_train_samples = 16

[ablate.nyu.studies]
no_colour_swap = {{ set = {{ "augment.channel_swap_probability" = 0.0 }} }}

[evaluate.nyu]
num_pictures = 2

[shard.kitti]
format = "kitti_eigen"
root = "{samples}/kitti/raw"
min_depth_m = 1.0
max_depth_m = 80.0

[shard.kitti.options]
ground_truth = "velodyne"
val_fraction = 0.3
train_list = "{samples}/kitti/raw_lidar_train_files.txt"
test_list = "{samples}/kitti/raw_lidar_test_files.txt"
"""


@pytest.mark.samples
def test_real_frames_go_through_every_stage(samples_root: Path, tmp_path: Path):
    (tmp_path / "real.toml").write_text(PRESET.format(samples=samples_root))
    run = pipeline(tmp_path, str(tmp_path / "real.toml"))
    assert run.returncode == 0, run.stdout + run.stderr
    nyu, kitti = artifact(tmp_path, "shard.nyu"), artifact(tmp_path, "shard.kitti")
    assert {s: p.num_samples for s, p in nyu.splits.items()} == {"train": 24, "val": 24, "test": 24}
    assert nyu.dense
    assert kitti.splits["test"].num_samples == 3
    assert not kitti.dense
    trials = artifact(tmp_path, "ablate.nyu").trials
    assert [(t.study, t.status) for t in trials] == [
        ("baseline", "finished"),
        ("no_colour_swap", "finished"),
    ]
    assert all(0 < t.metrics["abs_rel"] < 50 and len(t.curve) == 1 for t in trials)
    evaluation = artifact(tmp_path, "evaluate.nyu")
    assert evaluation.num_images == 24
    assert evaluation.num_skipped == 0
    assert 0.2 < evaluation.constant_baseline["delta1"] < 0.6
    assert "nyu_densedepth" in evaluation.protocol_text
