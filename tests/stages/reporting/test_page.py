"""Verdicts and notes: what a reader is told before the figures."""

import math

import pytest

from stages.artifacts import Checkpoint, EvalReport, ShardSet
from stages.reporting.page import Inputs, make_page, make_verdict
from tests.stages.report_artifacts import (
    CONSTANT,
    PER_IMAGE,
    RECIPE,
    make_checkpoint,
    make_evaluation,
    make_shards,
)


def evaluation(delta1: float, constant: float, low: float | None = None) -> EvalReport:
    return make_evaluation(
        per_image_mean={**PER_IMAGE, "delta1": delta1},
        constant_baseline={**CONSTANT, "delta1": constant},
        intervals={} if low is None else {"delta1": (low, 1.0)},
    )


def notes(shards: ShardSet, checkpoint: Checkpoint, report: EvalReport) -> list[str]:
    inputs = Inputs({"nyu": shards}, {"nyu": checkpoint}, {}, {"nyu": report})
    found: list[str] = make_page("t", 1.1, "run/report/abc", inputs)["datasets"][0]["notes"]
    return found


@pytest.mark.parametrize(
    ("delta1", "constant", "low", "text", "is_warning"),
    [
        (0.76, 0.4, 0.7, "beats the best constant prediction by 1.9 times: delta1 0.760", False),
        (0.76, 0.4, None, "by 1.9 times", False),
        (0.76, 0.4, 0.39, "by 1.9 times, but the 95 % interval of its delta1 begins at", True),
        (0.42, 0.4, 0.41, "hardly beats the best constant prediction (1.05 times)", True),
        (0.3, 0.4, 0.2, "is worse than the best constant prediction (0.75 times)", True),
        (0.5, 0.0, 0.4, "cannot be compared", False),
        (0.0, 0.0, 0.0, "cannot be compared", True),
        (math.nan, 0.4, None, "cannot be compared", True),
    ],
)
def test_the_verdict_follows_the_ratio_to_the_best_constant(
    delta1: float, constant: float, low: float | None, text: str, is_warning: bool
) -> None:
    verdict = make_verdict(evaluation(delta1, constant, low), 1.1)
    assert text in verdict.text
    assert verdict.is_warning is is_warning


def test_a_sound_data_set_has_no_notes() -> None:
    assert notes(make_shards(skipped=()), make_checkpoint(), make_evaluation()) == []


def test_notes_say_what_weakens_the_figures() -> None:
    report = make_evaluation(
        split="val",
        num_images=12,
        num_skipped=1,
        per_image_mean={**PER_IMAGE, "rmse": 99.0, "delta3": 0.01},
    )
    found = notes(make_shards(), make_checkpoint(best_epoch=3), report)
    assert found == [
        "Only 12 images: the intervals are rough.",
        "1 image without a valid pixel under the protocol, not scored.",
        "The scored split also chose the epoch: the figures are optimistic.",
        "Worse than the best constant prediction in rms, δ3.",
        "The last epoch has the lowest validation loss: more epochs may lower it further.",
        "1 frame left out; see Data for reasons.",
    ]


def test_keeping_the_last_epoch_is_not_mistaken_for_a_falling_loss() -> None:
    recipe = RECIPE.model_copy(update={"keep": "last"}).model_dump(mode="json")
    checkpoint = make_checkpoint(best_epoch=3, recipe=recipe)
    report = make_evaluation(split="val")
    assert notes(make_shards(skipped=()), checkpoint, report) == []


def test_validation_curves_are_drawn_only_where_there_was_a_validation_split() -> None:
    shards = make_shards()
    without = make_shards(splits={"train": shards.splits["train"]})
    counts = []
    for shard_set in (shards, without):
        inputs = Inputs({"nyu": shard_set}, {"nyu": make_checkpoint()}, {}, {})
        counts.append(len(make_page("t", 1.1, "run/x", inputs)["datasets"][0]["charts"]))
    assert counts == [2, 1]
