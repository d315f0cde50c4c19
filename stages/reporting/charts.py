"""Which curves the report shows: a training's epochs, an ablation's studies."""

from collections.abc import Sequence
from itertools import zip_longest
from statistics import fmean

from stages.artifacts import AblationTable, Checkpoint, Trial
from stages.reporting.curves import Curve, DotRow, dot_chart, line_chart
from stages.reporting.studies import compare


def training_charts(checkpoint: Checkpoint, has_val: bool) -> list[str]:
    """Draw losses, and the validation split's delta1 where there is such a split, over epochs."""
    records = checkpoint.epochs
    kept = (checkpoint.best_epoch + 1.0, "kept network")
    losses = [Curve("training loss", tuple((r.epoch + 1.0, r.train_loss) for r in records), 0)]
    delta1: list[Curve] = []
    if has_val:
        for key, curves in (("loss", losses), ("delta1", delta1)):
            points = tuple((r.epoch + 1.0, r.metrics[key]) for r in records if key in r.metrics)
            curves += [Curve(f"validation {key}", points, 1)] if points else []
    charts = [line_chart("Loss", "epoch", "loss", losses, kept)]
    if delta1:
        charts.append(
            line_chart("Validation delta1, per-image mean", "epoch", "delta1", delta1, kept)
        )
    return charts


def ablation_charts(table: AblationTable) -> list[str]:
    """Draw each study's validation loss over epochs, and its seeds' delta1 side by side."""
    curves: list[Curve] = []
    rows: list[DotRow] = []
    has_seeds = False
    for style, (study, trials) in enumerate(table.studies().items()):
        drawn = [trial for trial in trials if trial.curve]
        if len(drawn) > 1:
            has_seeds = True
            curves += [Curve(study, _points(t.curve), style, is_faint=True) for t in drawn]
            curves.append(Curve(study, _points(_mean_curve(drawn)), style))
        elif drawn:
            curves.append(Curve(study, _points(drawn[0].curve), style))
        rows.append(DotRow(study, compare(table, study, "delta1").values, style))
    charts = []
    if curves:
        title = "Validation loss, mean over seeds" if has_seeds else "Validation loss"
        charts.append(line_chart(title, "epoch", "loss", curves))
    if any(row.values for row in rows):
        baseline = compare(table, "baseline", "delta1").mean
        charts.append(dot_chart("Validation delta1, per-image mean", "delta1", rows, baseline))
    return charts


def _points(values: Sequence[float]) -> tuple[tuple[float, float], ...]:
    return tuple((index + 1.0, value) for index, value in enumerate(values))


def _mean_curve(trials: Sequence[Trial]) -> list[float]:
    columns = zip_longest(*(trial.curve for trial in trials))
    return [fmean(v for v in column if v is not None) for column in columns]
