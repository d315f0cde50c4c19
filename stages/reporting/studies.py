"""An ablation's studies beside their baseline: means and spreads over seeds, and what they show."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from stages.artifacts import AblationTable, Checkpoint, ShardSet, Trial
from stages.reporting.tables import (
    METRICS,
    MISSING,
    Cell,
    Column,
    Metric,
    Table,
    counted,
    difference_cell,
    flat,
    metric_column,
    millions,
    number,
    setting,
)

VAL_LOSS = Metric("loss", "val loss", "", "lower")
COMPARED = (VAL_LOSS, METRICS[3], METRICS[0], METRICS[1])
"""What an ablation's table shows."""


@dataclass(frozen=True)
class Comparison:
    """One metric of one study over its finished seeds, beside the baseline's.

    Attributes:
        values: one a finished seed.
        mean: None without a finished seed.
        spread: sample standard deviation over seeds; None with fewer than two.
        difference: mean minus the baseline's; None for the baseline itself.
        is_noise: whether the difference is no larger than the larger of the two spreads.
    """

    values: tuple[float, ...]
    mean: float | None
    spread: float | None
    difference: float | None
    is_noise: bool


def compare(table: AblationTable, study: str, metric: str) -> Comparison:
    """Compare a study with the baseline in one metric."""
    values, base = _values(table, study, metric), _values(table, "baseline", metric)
    mean, spread = (fmean(values) if values else None), _spread(values)
    if study == "baseline" or mean is None or not base:
        return Comparison(values, mean, spread, None, False)
    difference = mean - fmean(base)
    spreads = [s for s in (spread, _spread(base)) if s is not None and math.isfinite(s)]
    is_noise = bool(spreads) and abs(difference) <= max(spreads)
    return Comparison(values, mean, spread, difference, is_noise)


def study_table(table: AblationTable) -> Table:
    """Tabulate the studies beside the baseline; a failed trial has a row of its own."""
    rows: list[tuple[Cell, ...]] = []
    for study, trials in table.studies().items():
        finished = [t for t in trials if t.status == "finished"]
        num_failed = len(trials) - len(finished)
        seeds = f"{len(finished)} of {len(trials)}" if num_failed else f"{len(trials)}"
        changes = "; ".join(f"{k} = {setting(v)}" for k, v in trials[0].changes.items())
        rows.append(
            (
                Cell(study, changes, note_is_code=True) if changes else Cell(study),
                Cell(seeds, f"{num_failed} failed" if num_failed else ""),
                *(_comparison_cell(compare(table, study, m.key), m) for m in COMPARED),
                Cell(millions(finished[0].num_parameters) if finished else MISSING),
                Cell(number(fmean(t.seconds for t in finished), 1) if finished else MISSING),
            )
        )
        rows += [_failed_row(t) for t in trials if t.status == "failed"]
    columns = (
        Column("study", "what changed", is_number=False),
        Column("seeds"),
        *map(metric_column, COMPARED),
        Column("parameters"),
        Column("time", "s a trial"),
    )
    caption = (
        "Validation figures after the last epoch, per-image means; below them, the difference to "
        "the baseline."
    )
    return Table(caption, columns, tuple(rows))


def recipe_differences(recipe: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Say in which settings one recipe differs from another."""
    here, there = flat(recipe), flat(other)
    return [
        f"{key} {setting(value)} instead of {setting(there[key])}"
        for key, value in here.items()
        if key in there and there[key] != value
    ]


def what_is_comparable(
    table: AblationTable, shard_set: ShardSet | None, checkpoint: Checkpoint | None
) -> str:
    """Say what an ablation's figures can be compared with."""
    seeds = {trial.seed for trial in table.trials}
    frames = "validation frames"
    if shard_set and "val" in shard_set.splits:
        frames = counted(shard_set.splits["val"].num_samples, "validation frame")
    sentences = [
        f"Rows are comparable with each other: one recipe "
        f"({counted(int(str(table.recipe.get('epochs', 0))), 'epoch')}), the same {frames}, "
        "the last epoch’s network. They are not comparable with the evaluation’s figures, "
        "which follow a protocol and come from the main training’s recipe."
    ]
    if checkpoint and (changed := recipe_differences(table.recipe, checkpoint.recipe)):
        sentences.append(f"The recipe differs from the main training’s: {'; '.join(changed)}.")
    if len(seeds) == 1:
        sentences.append("One seed each, so no spread: a small difference may be chance.")
    else:
        sentences.append(
            f"± is the sample standard deviation over {len(seeds)} seeds; a difference no larger "
            "than the larger spread of the two is marked as within it."
        )
    return " ".join(sentences)


def _comparison_cell(comparison: Comparison, metric: Metric) -> Cell:
    text = number(comparison.mean)
    if comparison.spread is not None:
        text += f" ± {number(comparison.spread)}"
    if comparison.difference is None:
        return Cell(text)
    change = difference_cell(comparison.difference, metric.better, comparison.is_noise)
    return Cell(text, "" if change.text == MISSING else change.text, change.tone)


def _failed_row(trial: Trial) -> tuple[Cell, ...]:
    reason = f"failed: {trial.reason or 'no reason was recorded'}"
    head = Cell(f"{trial.study}, seed {trial.seed}", "", "failed")
    return (head, Cell(reason, "", "failed", span=len(COMPARED) + 3))


def _values(table: AblationTable, study: str, metric: str) -> tuple[float, ...]:
    trials = table.studies().get(study, ())
    return tuple(t.metrics[metric] for t in trials if metric in t.metrics)


def _spread(values: Sequence[float]) -> float | None:
    if len(values) < 2:
        return None
    return stdev(values) if all(math.isfinite(v) for v in values) else math.nan
