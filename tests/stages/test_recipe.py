"""Recipes and studies: what a study changes, and what is refused."""

import os

import pytest
from pydantic import ValidationError

from densedepth.errors import WeightsError
from stages.ablate import SLIDES, AblateConfig, Study, sources
from stages.artifacts import ARTIFACT, AblationTable, EpochRecord, Trial
from stages.recipe import OptimiserConfig, Recipe, changed_recipe
from tests.stages.report_artifacts import (
    make_ablation,
    make_checkpoint,
    make_evaluation,
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


def test_all_values_that_a_recipe_refuses_are_named():
    changes = {"epochs": 0, "network.decoder_width": 3.0}
    with pytest.raises(ValueError, match=r"decoder_width = 3\.0: .*; epochs = 0: "):
        changed_recipe(Recipe(), changes)


def test_a_study_scales_numbers_only():
    with pytest.raises(ValueError, match=r"align_corners = True is no number"):
        Study(scale={"network.align_corners": 0.5}).changes(Recipe())


def test_files_of_weights_are_known_by_their_place_and_their_content(tmp_path, monkeypatch):
    """The baseline's and each study's; a URL's content cannot change, for it has a digest."""
    monkeypatch.chdir(tmp_path)
    names = ("base.pth", "deep.pth")
    for name in names:
        (tmp_path / name).write_bytes(b"1234")
    config = AblateConfig.model_validate(
        {
            "recipe": {"network": {"weights": "base.pth"}},
            "studies": {
                "deep": {"set": {"network.encoder": "densenet201", "network.weights": "deep.pth"}},
                "online": {"set": {"network.weights": "https://there/w.pth"}},
            },
        }
    )
    before = sources(config)
    assert set(before) == {str(tmp_path / name) for name in names}
    assert config.studies["deep"].set["network.weights"] == str(tmp_path / "deep.pth")
    for name in names:
        os.utime(tmp_path / name, ns=(1, 1))  # other bytes, as many
    assert all(before[path] != mark for path, mark in sources(config).items())
    (tmp_path / "deep.pth").unlink()
    with pytest.raises(WeightsError, match=r"deep\.pth.*no such file.*densenet201"):
        sources(config)


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
