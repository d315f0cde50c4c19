"""What a study changes in a recipe, and what is refused."""

import pytest

from stages.recipe import Recipe
from stages.study import SLIDES, Study, changed_recipe


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


def test_a_setting_there_is_not_is_refused():
    with pytest.raises(ValueError, match=r"no setting 'network\.depth'"):
        changed_recipe(Recipe(), {"network.depth": 3})
    with pytest.raises(ValueError, match=r"no setting 'network\.depth'"):
        Study(scale={"network.depth": 0.5}).changes(Recipe())
