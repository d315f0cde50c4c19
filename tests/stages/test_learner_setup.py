"""What a recipe says is what the learner has."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

from densedepth.checkpoint import save_network
from densedepth.depth_range import NYU, DepthRange
from densedepth.errors import WeightsError
from densedepth.learner import Learner
from densedepth.model import DenseDepth
from densedepth.schedule import Schedule
from stages.learner_setup import make_learner
from stages.recipe import Recipe
from stages.scaling import ScalingSettings
from stages.study import changed_recipe
from stages.trainer import TrainJob
from tests.stages.report_artifacts import make_shards

SMALL = changed_recipe(
    Recipe(),
    {
        "network.encoder": "mobilenet_v2",
        "network.decoder_width": 0.0625,
        "network.weights": "none",
    },
)
CHANGES = {
    "network.decoder_width": 0.125,
    "network.conva_activation": True,
    "network.align_corners": False,
    "network.input_normalisation": "imagenet",
    "optimiser.learning_rate": 1e-3,
    "optimiser.encoder_rate_factor": 0.5,
    "optimiser.beta1": 0.8,
    "optimiser.beta2": 0.99,
    "optimiser.amsgrad": True,
    "optimiser.weight_decay": 0.1,
    "optimiser.schedule": "one_cycle",
    "optimiser.warmup_steps": 3,
    "optimiser.final_rate_factor": 0.5,
    "optimiser.drop_every_epochs": 2.0,
    "optimiser.drop_factor": 0.25,
    "optimiser.clip_gradient_norm": 1.0,
    "augment.flip_probability": 0.1,
    "augment.channel_swap_probability": 0.2,
    "augment.zoom_max": 1.5,
    "augment.rotation_deg": 5.0,
    "augment.colour_jitter": 0.2,
    "loss.l1_weight": 0.3,
    "loss.gradient_weight": 0.7,
    "loss.ssim_weight": 0.9,
    "speed.precision": "bf16",
    "speed.channels_last": False,
    "speed.compile": True,
    "speed.cuda_graphs": False,
    "speed.micro_batch_size": 1,
    "epochs": 3,
    "global_batch_size": 4,
    "ema_decay": 0.9,
    "freeze_encoder_norm": True,
    "max_skipped_steps": 3,
    "seed": 1,
}


def learner_of(recipe: Recipe, num_samples: int = 64, **shards: Any) -> Learner:
    job = TrainJob(recipe=recipe, scaling=ScalingSettings(), shards=make_shards(**shards))
    learner = make_learner(job, torch.device("cpu"), num_samples, 1)
    assert isinstance(learner, Learner)
    return learner


def flat(table: dict[str, Any]) -> dict[str, Any]:
    tables = {name: value for name, value in table.items() if isinstance(value, dict)}
    return {**table, **{k: v for inner in tables.values() for k, v in inner.items()}}


def test_every_setting_of_the_recipe_arrives_at_the_learner(tmp_path: Path, monkeypatch):
    """All are changed, and so is all that the learner is given."""
    monkeypatch.setattr(torch, "compile", lambda function: function)  # takes seconds
    save_network(DenseDepth("mobilenet_v2", 0.125), NYU, tmp_path / "w.safetensors")
    weights = {"network.weights": str(tmp_path / "w.safetensors")}
    recipe = changed_recipe(SMALL, CHANGES | weights)
    before = learner_of(SMALL)
    after = learner_of(recipe, dense=False, min_depth_m=1.0, max_depth_m=80.0)
    given, default = (flat(asdict(learner.settings)) for learner in (after, before))
    assert not {name for name, value in given.items() if default[name] == value}
    # Names differ: what is not among the learner's is looked at below.
    other = {"beta1", "beta2", "compile", "schedule", "warmup_steps", "final_rate_factor"}
    other |= {"drop_every_epochs", "epochs"}
    for key, value in CHANGES.items():
        name = key.rpartition(".")[2]
        if key.startswith("network."):
            assert after.network.settings()[name] == value, key
        elif key.startswith("loss."):
            assert getattr(after.loss, name) == value, key
        elif name not in other:
            assert given[name] == value, key
    assert (given["betas"], given["compiled"], given["masked"]) == ((0.8, 0.99), True, True)
    # 16 steps an epoch.
    assert after.settings.schedule == Schedule(48, "one_cycle", 3, 0.5, 32, 0.25)
    assert after.depth_range == DepthRange(1.0, 80.0)
    assert after.loss.max_target == 80.0


def test_a_seed_gives_the_same_weights_and_another_one_others():
    def bits(seed: int) -> torch.Tensor:
        network = learner_of(changed_recipe(SMALL, {"seed": seed})).network
        return torch.cat([p.flatten() for p in network.parameters()])

    torch.manual_seed(5)
    first = bits(1)
    assert torch.equal(first, bits(1))
    assert not torch.equal(first, bits(2))


def test_a_file_of_weights_that_is_another_one_than_the_recipes_is_refused(tmp_path: Path):
    save_network(DenseDepth("mobilenet_v2", 0.0625), NYU, tmp_path / "w.safetensors")
    named = {"network.weights": str(tmp_path / "w.safetensors"), "network.weights_sha256": "0" * 64}
    with pytest.raises(WeightsError, match="0000"):
        learner_of(changed_recipe(SMALL, named))
