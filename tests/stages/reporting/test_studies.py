"""Studies beside the baseline: means, spreads and what a difference is worth."""

import numpy as np
import pytest

from stages.reporting import studies
from stages.reporting.studies import compare, study_table
from tests.stages.report_artifacts import (
    make_ablation,
    make_checkpoint,
    make_failed_trial,
    make_shards,
    make_trial,
)

BASE, OTHER = (0.60, 0.63, 0.61), (0.52, 0.55, 0.50)


def three_seeds(other: tuple[float, ...] = OTHER):
    trials = [make_trial("half_decoder", seed, v) for seed, v in enumerate(other)]
    trials += [make_trial("baseline", seed, v) for seed, v in enumerate(BASE)]
    return make_ablation(*trials)


def test_mean_spread_and_difference_agree_with_numpy() -> None:
    result = compare(three_seeds(), "half_decoder", "delta1")
    assert result.values == OTHER
    assert result.mean == pytest.approx(np.mean(OTHER))
    assert result.spread == pytest.approx(np.std(OTHER, ddof=1))
    assert result.difference == pytest.approx(np.mean(OTHER) - np.mean(BASE))
    assert not result.is_noise


def test_the_baseline_has_no_difference_to_itself() -> None:
    assert compare(three_seeds(), "baseline", "delta1").difference is None


def test_a_difference_within_the_spread_is_called_noise() -> None:
    table = three_seeds((0.60, 0.63, 0.62))
    assert compare(table, "half_decoder", "delta1").is_noise
    cell = study_table(table).rows[1][3]
    assert cell.note == "+0.003 within spread"
    assert cell.tone == "muted"


def test_one_seed_has_no_spread() -> None:
    result = compare(make_ablation(), "half_decoder", "delta1")
    assert result.spread is None
    assert not result.is_noise


def test_without_a_finished_baseline_there_is_no_difference() -> None:
    table = make_ablation(
        make_failed_trial("baseline", 0, "killed"), make_trial("half_decoder", 0, 0.5)
    )
    result = compare(table, "half_decoder", "delta1")
    assert result.mean == 0.5
    assert result.difference is None


def test_the_table_says_better_and_worse_in_words() -> None:
    table = study_table(three_seeds())
    assert [row[0].text for row in table.rows] == ["baseline", "half_decoder"]
    loss, delta1, rel, _ = table.rows[1][2:6]
    assert delta1.text == "0.523 ± 0.025"
    assert (delta1.note, delta1.tone) == ("−0.090 worse", "worse")
    assert (loss.note, loss.tone) == ("+0.090 worse", "worse")
    assert (rel.note, rel.tone) == ("0.000 same", "muted")
    assert table.rows[1][0].note == "network.decoder_width = 0.5"


def test_a_failed_trial_has_a_row_that_fills_the_table() -> None:
    trials = [make_trial("baseline", 0, 0.6), make_failed_trial("deeper", 3, "killed")]
    table = study_table(make_ablation(*trials))
    summary, failed = table.rows[1:]
    assert (summary[1].text, summary[1].note) == ("0 of 1", "1 failed")
    assert failed[0].text == "deeper, seed 3"
    assert failed[1].text == "failed: killed"
    for row in table.rows:
        assert sum(cell.span for cell in row) == len(table.columns)


def test_what_is_comparable_names_frames_recipe_and_seeds() -> None:
    one = studies.what_is_comparable(make_ablation(), make_shards(), make_checkpoint())
    assert "the same 63 validation frames" in one
    assert "differs from the main training’s: epochs 3 instead of 4." in one
    assert "One seed each, so no spread" in one
    several = studies.what_is_comparable(three_seeds(), None, None)
    assert "3 seeds" in several
    assert "main training’s: " not in several


def test_a_seed_that_diverged_shows_in_the_mean() -> None:
    table = three_seeds((0.5, float("nan"), 0.5))
    assert np.isnan(compare(table, "half_decoder", "delta1").mean)
    assert study_table(table).rows[1][3].text == "NaN ± NaN"
