"""Cells of text: numbers as people read them, metrics as the library defines them."""

import math

import pytest

from densedepth.metrics import HIGHER_IS_BETTER, METRIC_NAMES
from stages.recipe import Recipe
from stages.reporting import tables
from stages.reporting.tables import difference_cell, duration, number, setting
from tests.stages.report_artifacts import make_evaluation, make_shards


def test_the_metrics_are_those_of_the_library_in_the_same_sense() -> None:
    assert {m.key for m in tables.METRICS} == set(METRIC_NAMES)
    assert {m.key for m in tables.METRICS if m.better == "higher"} == HIGHER_IS_BETTER
    assert [m.title for m in tables.SLIDES] == ["rel", "rms", "log10", "δ1", "δ2", "δ3"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.12349, "0.123"),
        (1234.5678, "1,234.568"),
        (-0.25, "−0.250"),
        (-0.0001, "0.000"),
        (None, "–"),
        (math.nan, "NaN"),
        (math.inf, "∞"),
        (-math.inf, "−∞"),
    ],
)
def test_numbers_have_three_decimals_and_say_what_they_are_not(
    value: float | None, text: str
) -> None:
    assert number(value) == text


@pytest.mark.parametrize(
    ("difference", "better", "text", "tone"),
    [
        (0.02, "higher", "+0.020 better", "better"),
        (0.02, "lower", "+0.020 worse", "worse"),
        (-0.02, "lower", "−0.020 better", "better"),
        (-0.0004, "lower", "0.000 same", "muted"),
        (None, "lower", "–", ""),
        (math.nan, "lower", "–", ""),
    ],
)
def test_a_difference_says_in_a_word_whether_it_is_better(
    difference: float | None, better: tables.Better, text: str, tone: str
) -> None:
    cell = difference_cell(difference, better)
    assert (cell.text, cell.tone) == (text, tone)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(4.26, "4.3 s"), (59.97, "1 min 00 s"), (254, "4 min 14 s"), (7260, "2 h 01 min")],
)
def test_times_are_written_as_people_say_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_settings_are_written_as_in_a_preset() -> None:
    values = [None, True, 1e-4, (480, 640), ["a", None], "best"]
    texts = ["none", "true", "0.0001", "[480, 640]", "[a, none]", "best"]
    assert [setting(value) for value in values] == texts


def test_a_recipe_stands_beside_the_paper_where_it_differs() -> None:
    recipe = Recipe(epochs=5).model_dump(mode="json")
    rows = {row[0].text: row for row in tables.recipe_table(recipe).rows}
    assert [cell.text for cell in rows["epochs"]] == ["epochs", "5", "20"]
    assert rows["optimiser.learning_rate"][2].text == "same"
    assert tables.num_changed(recipe) == 1
    assert tables.num_changed(Recipe().model_dump(mode="json")) == 0


def test_ranges_of_depth_show_their_share_and_empty_ones_no_figures() -> None:
    first, second, empty = tables.range_table(make_evaluation()).rows
    assert [first[0].text, first[1].text] == ["0 to 2 m", "75.0 %"]
    assert second[1].text == "25.0 %"
    assert {cell.text for cell in empty[2:]} == {"–"}


def test_splits_show_frames_bytes_and_the_whole_digest() -> None:
    rows = tables.data_table({"nyu": make_shards()}).rows
    texts = [[cell.text for cell in row] for row in rows]
    assert texts[0] == ["nyu, train", "487", "2", "3.0", "1" * 64]
    assert [row[1] for row in texts] == ["487", "63", "95"]


def test_a_long_list_of_skipped_frames_is_cut_and_says_so() -> None:
    skipped = tuple({"split": "train", "frame": f"{i}", "reason": "bad"} for i in range(7))
    table = tables.skipped_table(make_shards(skipped=skipped), most=5)
    assert len(table.rows) == 5
    assert table.caption == "2 more are in report.json."
