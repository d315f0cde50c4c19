"""A study of an ablation: a recipe that differs from the baseline's in a few settings."""

import difflib
from collections.abc import Iterator
from typing import Any

from pydantic import Field, ValidationError, field_validator

from stages.recipe import Recipe, anchored_weights
from stages.settings import Settings


class Study(Settings):
    """What a study changes in the baseline's recipe."""

    set: dict[str, Any] = Field(default_factory=dict, description="dotted key -> value")
    scale: dict[str, float] = Field(
        default_factory=dict, description="dotted key -> factor on the baseline's value"
    )

    @field_validator("set")
    @classmethod
    def _anchor_weights(cls, changes: dict[str, Any]) -> dict[str, Any]:
        weights = changes.get("network.weights")
        if not isinstance(weights, str):
            return changes
        return {**changes, "network.weights": anchored_weights(weights)}

    def changes(self, baseline: Recipe) -> dict[str, Any]:
        """Return dotted key -> value for this baseline."""
        scaled: dict[str, Any] = {}
        for key, factor in self.scale.items():
            table, name = _place(baseline.model_dump(mode="json"), key)
            value = table[name]
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise ValueError(f"scale: {key} = {value!r} is no number that could be scaled")
            scaled[key] = value * factor
        return {**self.set, **scaled}


SLIDES = {
    "densenet201": Study(set={"network.encoder": "densenet201"}),
    "half_decoder": Study(scale={"network.decoder_width": 0.5}),
    "no_colour_swap": Study(set={"augment.channel_swap_probability": 0.0}),
}
"""Deeper encoder, halved decoder, no colour augmentation: the three studies of the slides."""


def changed_recipe(recipe: Recipe, changes: dict[str, Any]) -> Recipe:
    """Make a recipe that differs in some settings.

    Args:
        recipe: the one to start from.
        changes: dotted key -> new value, such as ``{"network.encoder": "densenet201"}``.

    Raises:
        ValueError: a key that a recipe does not have, or a value it refuses.
    """
    data: dict[str, Any] = recipe.model_dump(mode="json")
    for dotted, value in changes.items():
        table, name = _place(data, dotted)
        table[name] = value
    try:
        return Recipe.model_validate(data)
    except ValidationError as error:
        wrong = error.errors(include_url=False)
        told = [f"{'.'.join(map(str, e['loc']))} = {e['input']!r}: {e['msg']}" for e in wrong]
        raise ValueError("; ".join(told)) from None


def _place(data: dict[str, Any], dotted: str) -> tuple[dict[str, Any], str]:
    """Return the table of a recipe's that a setting is in, and its name there."""
    *path, name = dotted.split(".")
    table: Any = data
    for part in path:
        table = table.get(part) if isinstance(table, dict) else None
    if not isinstance(table, dict) or name not in table:
        raise _no_such_setting(dotted)
    return table, name


def _no_such_setting(dotted: str) -> ValueError:
    """Return the error for a recipe's setting that there is not, with the nearest names."""

    def names(table: dict[str, Any], prefix: str) -> Iterator[str]:
        for key, value in table.items():
            yield prefix + key
            if isinstance(value, dict):
                yield from names(value, f"{prefix}{key}.")

    known = list(names(Recipe().model_dump(mode="json"), ""))
    close = difflib.get_close_matches(dotted, known, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(close)}?" if close else f"there are {', '.join(known)}"
    return ValueError(f"a recipe has no setting {dotted!r}; {hint}")
