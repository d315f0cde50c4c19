"""What a recipe refuses."""

import pytest
from pydantic import ValidationError

from stages.recipe import OptimiserConfig, Recipe


def test_statistics_of_no_weights_cannot_be_kept():
    with pytest.raises(ValidationError, match=r"freeze_encoder_norm = true keeps the statistics"):
        Recipe.model_validate({"freeze_encoder_norm": True, "network": {"weights": "none"}})


def test_a_schedule_in_steps_must_say_when_the_rate_drops():
    with pytest.raises(ValidationError, match="needs drop_every_epochs"):
        OptimiserConfig(schedule="step")
    assert OptimiserConfig(schedule="step", drop_every_epochs=5).drop_factor == 0.1
