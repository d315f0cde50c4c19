"""Recipes and studies: what a study changes, and what is refused."""

from dataclasses import asdict

import pytest
from pydantic import ValidationError

from stages.ablate import SLIDES, AblateConfig, Study
from stages.artifacts import ARTIFACT, AblationTable, EpochRecord, Trial
from stages.recipe import OptimiserConfig, Recipe, changed_recipe
from tests.stages.report_artifacts import (
    make_ablation,
    make_checkpoint,
    make_evaluation,
    make_shards,
)


def test_the_slides_three_studies_change_one_thing_each():
    base = Recipe()
    changed = {name: changed_recipe(base, study.changes(base)) for name, study in SLIDES.items()}
    assert changed["densenet201"].network.encoder == "densenet201"
    assert changed["half_decoder"].network.decoder_width == 0.5
    assert changed["no_colour_swap"].augment.channel_swap_probability == 0.0
    for name, recipe in changed.items():
        back = {key: _value(base, key) for key in SLIDES[name].changes(base)}
        assert changed_recipe(recipe, back) == base


def _value(recipe: Recipe, dotted: str):
    value = recipe
    for part in dotted.split("."):
        value = getattr(value, part)
    return value


def test_half_is_half_of_the_baselines_own_width():
    base = changed_recipe(Recipe(), {"network.decoder_width": 0.25})
    assert SLIDES["half_decoder"].changes(base) == {"network.decoder_width": 0.125}


def test_a_setting_there_is_not_is_refused():
    with pytest.raises(ValueError, match=r"no setting 'network\.depth'"):
        changed_recipe(Recipe(), {"network.depth": 3})


def test_a_study_with_another_encoder_may_not_load_the_baselines_weights():
    recipe = changed_recipe(Recipe(), {"network.weights": "/data/densenet169.pth"})
    with pytest.raises(ValidationError, match="study densenet201 changes the encoder, but weights"):
        AblateConfig(recipe=recipe)
    own = Study(set={"network.encoder": "densenet201", "network.weights": "/data/201.pth"})
    assert AblateConfig(recipe=recipe, studies={"deep": own})


def test_a_diverged_trial_is_kept_as_it_was():
    record = EpochRecord(epoch=0, step=1, train_loss=float("nan"), metrics={}, seconds=1.0)
    assert "NaN" in record.model_dump_json()
    again = EpochRecord.model_validate_json(record.model_dump_json())
    assert again.train_loss != again.train_loss


def test_every_shown_figure_but_the_loss_says_how_it_was_averaged():
    metrics = {"loss": 0.3, "delta1": 0.7, "abs_rel": 0.2}
    record = EpochRecord(epoch=0, step=1, train_loss=0.4, metrics=metrics, seconds=1.0)
    shown = {"val_loss": 0.3, "val_per_image_delta1": 0.7, "val_per_image_abs_rel": 0.2}
    assert record.labelled() == shown
    summary = make_checkpoint(epochs=(record,), best_epoch=0).summary()
    assert {name: value for name, value in summary.items() if name.startswith("val_")} == shown
    assert all(name.endswith("_per_image_delta1") for name in make_ablation().summary())
    assert all(name.startswith("per_image_") for name in make_evaluation().summary())


def test_an_ablation_means_over_the_seeds_that_finished():
    def trial(seed: int, delta1: float | None) -> Trial:
        metrics = {} if delta1 is None else {"delta1": delta1}
        status = "failed" if delta1 is None else "finished"
        return Trial(study="baseline", seed=seed, changes={}, status=status, metrics=metrics)

    table = AblationTable(
        dataset="nyu", recipe={}, trials=(trial(0, 0.4), trial(1, 0.6), trial(2, None))
    )
    assert table.mean_metric("baseline", "delta1") == pytest.approx(0.5)
    assert ARTIFACT.validate_json(table.model_dump_json()) == table


def test_statistics_of_no_weights_cannot_be_kept():
    with pytest.raises(ValidationError, match=r"freeze_encoder_norm = true keeps the statistics"):
        Recipe.model_validate({"freeze_encoder_norm": True, "network": {"weights": "none"}})


def test_a_schedule_in_steps_must_say_when_the_rate_drops():
    with pytest.raises(ValidationError, match="needs drop_every_epochs"):
        OptimiserConfig(schedule="step")
    assert OptimiserConfig(schedule="step", drop_every_epochs=5).drop_factor == 0.1


def test_every_setting_of_the_recipe_arrives_at_the_learner():
    """All are changed, and so is all that the learner is given."""
    import torch

    from stages.learner_setup import make_learner
    from stages.scaling import ScalingSettings
    from stages.trainer import TrainJob

    changes = {
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
        "optimiser.drop_factor": 0.5,
        "optimiser.clip_gradient_norm": 1.0,
        "augment.flip_probability": 0.1,
        "augment.channel_swap_probability": 0.1,
        "augment.zoom_max": 1.5,
        "augment.rotation_deg": 5.0,
        "augment.colour_jitter": 0.2,
        "speed.precision": "bf16",
        "speed.channels_last": False,
        "speed.cuda_graphs": False,
        "speed.micro_batch_size": 1,
        "epochs": 3,
        "global_batch_size": 4,
        "ema_decay": 0.9,
        "max_skipped_steps": 3,
        "seed": 1,
    }
    base = changed_recipe(
        Recipe(),
        {"network.encoder": "mobilenet_v2", "network.decoder_width": 0.0625}
        | {"network.weights": "none"},
    )

    def settings_of(recipe: Recipe):
        job = TrainJob(recipe=recipe, scaling=ScalingSettings(), shards=make_shards())
        return make_learner(job, torch.device("cpu"), 64, 1).settings

    before, after = (asdict(settings_of(r)) for r in (base, changed_recipe(base, changes)))
    same = {
        (table, name)
        for table in ("schedule", "distortion")
        for name, value in before.pop(table).items()
        if after[table][name] == value
    }
    same |= {("", name) for name, value in before.items() if after[name] == value}
    # These need another data set, weights, or a minute of compiling.
    assert same == {("", "masked"), ("", "freeze_encoder_norm"), ("", "compiled")}
