"""All that the report says, from the artifacts: verdicts, notes, figures, curves."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.artifacts import AblationTable, Checkpoint, EvalReport, ShardSet
from stages.reporting import charts, studies, tables
from stages.reporting.tables import number

FEW_IMAGES = 30
"""Below this the report warns that the figures say little about other images."""


@dataclass(frozen=True)
class Verdict:
    """How a network's delta1 stands to the best constant prediction's.

    Attributes:
        delta1: the network's per-image mean.
        interval: its 95 % interval, where there is one.
        constant_delta1: the best constant's.
        ratio: the first over the last; NaN or infinite where there is none.
        is_warning: whether the network cannot be said to have learnt depth.
        text: all of it in a sentence.
    """

    delta1: float
    interval: tuple[float, float] | None
    constant_delta1: float
    ratio: float
    is_warning: bool
    text: str

    @property
    def ratio_text(self) -> str:
        """The ratio as it stands in large type."""
        return f"{_short_ratio(self.ratio)}×" if math.isfinite(self.ratio) else number(self.ratio)

    @property
    def can_be_drawn(self) -> bool:
        """Whether there are two finite values to draw as bars."""
        return math.isfinite(self.delta1) and math.isfinite(self.constant_delta1)


@dataclass(frozen=True)
class Inputs:
    """The artifacts by data set; any of them may be missing."""

    shards: Mapping[str, ShardSet]
    checkpoints: Mapping[str, Checkpoint]
    ablations: Mapping[str, AblationTable]
    evaluations: Mapping[str, EvalReport]

    def datasets(self) -> tuple[str, ...]:
        """Names of all data sets, once each."""
        named = (*self.shards, *self.checkpoints, *self.ablations, *self.evaluations)
        return tuple(dict.fromkeys(named))


def make_verdict(report: EvalReport, warn_below_ratio: float) -> Verdict:
    """Compare a network's delta1 with the best constant prediction's."""
    delta1 = report.per_image_mean.get("delta1", math.nan)
    constant = report.constant_baseline.get("delta1", math.nan)
    interval = report.intervals.get("delta1")
    if interval is not None and not all(math.isfinite(limit) for limit in interval):
        interval = None
    ratio = delta1 / constant if constant else (math.inf if delta1 > 0 else math.nan)
    times = f"{_short_ratio(ratio)} times"
    figures = f"delta1 {number(delta1)} against {number(constant)}"
    is_warning = True
    if not math.isfinite(ratio):
        text = f"cannot be compared with the best constant prediction: {figures}"
        is_warning = not ratio > 0
    elif ratio < 1:
        text = f"is worse than the best constant prediction ({times}): {figures}"
    elif ratio < warn_below_ratio:
        text = f"hardly beats the best constant prediction ({times}): {figures}"
    elif interval is not None and interval[0] <= constant:
        text = (
            f"beats the best constant prediction by {times}, but the 95 % interval of its delta1 "
            f"begins at {number(interval[0])}: {figures}"
        )
    else:
        text, is_warning = f"beats the best constant prediction by {times}: {figures}", False
    return Verdict(delta1, interval, constant, ratio, is_warning, text)


def make_page(title: str, warn_below_ratio: float, key: str, inputs: Inputs) -> dict[str, Any]:
    """Put together all that the page says, pictures apart."""
    verdicts = {
        name: make_verdict(report, warn_below_ratio) for name, report in inputs.evaluations.items()
    }
    return {
        "title": title,
        "run_id": key.partition("/")[0],
        "summary": _summary(inputs),
        "verdicts": verdicts,
        "headline": tables.headline_table(inputs.evaluations) if inputs.evaluations else None,
        "datasets": [_dataset(name, inputs) for name in inputs.datasets()],
        "ablations": [_ablation(name, table, inputs) for name, table in inputs.ablations.items()],
        "data": tables.data_table(inputs.shards) if inputs.shards else None,
        "depths": [_depths(name, shard_set) for name, shard_set in inputs.shards.items()],
        "skipped": [
            {"name": n, "count": len(s.skipped), "table": tables.skipped_table(s)}
            for n, s in inputs.shards.items()
            if s.skipped
        ],
    }


def _summary(inputs: Inputs) -> str:
    trials = [t for table in inputs.ablations.values() for t in table.trials]
    num_failed = sum(t.status == "failed" for t in trials)
    parts = [
        tables.counted(len(inputs.datasets()), "data set"),
        tables.counted(len(inputs.checkpoints), "trained network"),
        tables.counted(len(inputs.evaluations), "evaluation"),
        tables.counted(len(trials), "ablation trial")
        + (f" ({num_failed} failed)" if num_failed else ""),
    ]
    return ", ".join(parts) + "."


def _dataset(name: str, inputs: Inputs) -> dict[str, Any]:
    shard_set, checkpoint = inputs.shards.get(name), inputs.checkpoints.get(name)
    report = inputs.evaluations.get(name)
    return {
        "name": name,
        "notes": _notes(shard_set, checkpoint, report),
        "metrics": tables.metric_table(report) if report else None,
        "protocol": report.protocol_text if report else "",
        "ranges": tables.range_table(report) if report and report.by_depth else None,
        "facts": _facts(checkpoint, report),
        "charts": charts.training_charts(checkpoint, _has_val(shard_set)) if checkpoint else [],
        "recipe": tables.recipe_table(checkpoint.recipe) if checkpoint else None,
        "num_changed": tables.num_changed(checkpoint.recipe) if checkpoint else 0,
    }


def _notes(
    shard_set: ShardSet | None, checkpoint: Checkpoint | None, report: EvalReport | None
) -> list[str]:
    """Say what a reader must know before believing the figures."""
    notes = []
    if report is None:
        notes.append("This run has no evaluation of this data set.")
    else:
        if report.num_images < FEW_IMAGES:
            notes.append(
                f"Only {tables.counted(report.num_images, 'image')}: the intervals are rough."
            )
        if report.num_skipped:
            count = tables.counted(report.num_skipped, "image")
            notes.append(f"{count} without a valid pixel under the protocol, not scored.")
        if report.split == "val" and checkpoint and checkpoint.recipe.get("keep") == "best":
            notes.append("The scored split also chose the epoch: the figures are optimistic.")
        worse = [
            m.title
            for m in tables.SLIDES
            if (difference := _against_constant(report, m.key)) is not None
            and (difference < 0 if m.better == "higher" else difference > 0)
        ]
        if worse:
            notes.append(f"Worse than the best constant prediction in {', '.join(worse)}.")
    if checkpoint is None:
        notes.append("This run trained no network on this data set.")
    elif checkpoint.epochs:
        last = checkpoint.epochs[-1].epoch
        chooses = checkpoint.recipe.get("keep") == "best" and _has_val(shard_set)
        if chooses and checkpoint.best_epoch == last and len(checkpoint.epochs) > 1:
            notes.append(
                "The last epoch has the lowest validation loss: more epochs may lower it further."
            )
        bad = [r for r in checkpoint.epochs if not math.isfinite(r.train_loss)]
        if bad:
            notes.append(
                f"The training loss was not finite in {tables.counted(len(bad), 'epoch')}."
            )
    if shard_set and shard_set.skipped:
        notes.append(
            f"{tables.counted(len(shard_set.skipped), 'frame')} left out; see Data for reasons."
        )
    return notes


def _facts(checkpoint: Checkpoint | None, report: EvalReport | None) -> list[tuple[str, str]]:
    facts = []
    if checkpoint:
        recipe = checkpoint.recipe
        network = recipe.get("network")
        network = network if isinstance(network, Mapping) else {}
        size_px = recipe.get("input_size_px")
        facts = [
            ("Encoder", tables.setting(network.get("encoder", tables.MISSING))),
            ("First weights", Path(str(network.get("weights", tables.MISSING))).name),
            ("Decoder width", tables.setting(network.get("decoder_width", tables.MISSING))),
            (
                "Input",
                " × ".join(map(str, size_px)) + " px"
                if isinstance(size_px, list | tuple)
                else tables.MISSING,
            ),
            ("Parameters", tables.millions(checkpoint.num_parameters)),
            ("Training", tables.duration(checkpoint.train_seconds)),
            ("Workers", f"{checkpoint.num_workers}"),
            ("Network kept", f"epoch {checkpoint.best_epoch + 1} of {len(checkpoint.epochs)}"),
        ]
    if report:
        facts.append(("Prediction", f"{number(report.seconds_per_image)} s an image"))
    return facts


def _ablation(name: str, table: AblationTable, inputs: Inputs) -> dict[str, Any]:
    return {
        "name": name,
        "table": studies.study_table(table),
        "charts": charts.ablation_charts(table),
        "comparable": studies.what_is_comparable(
            table, inputs.shards.get(name), inputs.checkpoints.get(name)
        ),
    }


def _depths(name: str, shard_set: ShardSet) -> str:
    kind = (
        "dense: every training pixel has a depth"
        if shard_set.dense
        else "masked: losses leave out training pixels without a depth"
    )
    limits = f"depths of {shard_set.min_depth_m:g} to {shard_set.max_depth_m:g} m"
    if shard_set.measured_m is None:
        return f"{name}: {limits}; {kind}."
    low_m, median_m, high_m = shard_set.measured_m
    measured = f"measured mostly {low_m:.3g} to {high_m:.3g} m, median {median_m:.3g} m"
    return f"{name}: {limits}; {measured}; {kind}."


def _against_constant(report: EvalReport, metric: str) -> float | None:
    mean, constant = report.per_image_mean.get(metric), report.constant_baseline.get(metric)
    return None if mean is None or constant is None else mean - constant


def _has_val(shard_set: ShardSet | None) -> bool:
    return shard_set is None or "val" in shard_set.splits


def _short_ratio(ratio: float) -> str:
    return number(ratio, 1 if ratio >= 1.2 else 2)
