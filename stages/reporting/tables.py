"""The report's tables: artifacts turned into cells of text, which HTML and Markdown share."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from stages.artifacts import EvalReport, ShardSet
from stages.recipe import Recipe

Tone = Literal["", "better", "worse", "failed", "muted", "changed"]
Better = Literal["", "higher", "lower"]
MISSING = "–"


@dataclass(frozen=True)
class Metric:
    """A metric's two names and its sense.

    Attributes:
        key: the field's name, as in the artifacts.
        title: the slides' name, where they have one.
        unit: ``m``, or nothing.
        better: whether higher or lower values are better.
    """

    key: str
    title: str
    unit: str
    better: Better

    @property
    def note(self) -> str:
        """The field's name and the unit, to stand beside the title."""
        name = "" if self.key == self.title else self.key
        return ", ".join(part for part in (name, self.unit) if part)


METRICS = (
    Metric("abs_rel", "rel", "", "lower"),
    Metric("rmse", "rms", "m", "lower"),
    Metric("log10", "log10", "", "lower"),
    Metric("delta1", "δ1", "", "higher"),
    Metric("delta2", "δ2", "", "higher"),
    Metric("delta3", "δ3", "", "higher"),
    Metric("sq_rel", "sq_rel", "m", "lower"),
    Metric("rmse_log", "rmse_log", "", "lower"),
    Metric("silog", "silog", "", "lower"),
)
"""The slides' six first, then three that the field reports beside them."""
SLIDES = METRICS[:6]


@dataclass(frozen=True)
class Column:
    """A column's head; ``better`` becomes an arrow."""

    title: str
    note: str = ""
    better: Better = ""
    is_number: bool = True


@dataclass(frozen=True)
class Cell:
    """One cell; ``note`` stands below the text, ``span`` covers columns to the right."""

    text: str
    note: str = ""
    tone: Tone = ""
    is_code: bool = False
    note_is_code: bool = False
    span: int = 1
    better: Better = ""


@dataclass(frozen=True)
class Table:
    """Rows of cells; the first cell of a row is its head."""

    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]


def number(value: float | None, digits: int = 3) -> str:
    """Write a number with fixed decimals; what is missing or not finite says so."""
    if value is None:
        return MISSING
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else ("∞" if value > 0 else "−∞")
    text = f"{value:,.{digits}f}".replace("-", "−")
    return text.removeprefix("−") if not text.strip("−0.,") else text


def difference_cell(difference: float | None, better: Better, is_noise: bool = False) -> Cell:
    """Write a difference with its sign and say in a word whether it is for the better."""
    if difference is None or not math.isfinite(difference):
        return Cell(MISSING)
    text = number(difference)
    if text == "0.000":
        return Cell("0.000 same", "", "muted")
    text = text if difference < 0 else f"+{text}"
    if is_noise:
        return Cell(f"{text} within spread", "", "muted")
    word: Tone = "better" if (difference > 0) == (better == "higher") else "worse"
    return Cell(f"{text} {word}", "", word)


def duration(seconds: float) -> str:
    """Write a time as people say it."""
    if not math.isfinite(seconds):
        return number(seconds)
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def millions(count: int) -> str:
    """Write a number of parameters."""
    return f"{count / 1e6:.2f} M" if count else MISSING


def counted(count: int, noun: str) -> str:
    """Write a number of things."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def headline_table(evaluations: Mapping[str, EvalReport]) -> Table:
    """Put the slides' six metrics of every data set, and the best constant's, in one table."""
    columns = [Column("data set", is_number=False), Column("images")]
    rows = []
    for name, report in evaluations.items():
        heads = (Cell(f"{name}, network"), Cell(f"{report.num_images:,}"))
        values = (Cell(number(report.per_image_mean.get(m.key))) for m in SLIDES)
        rows.append((*heads, *values))
        constant = (Cell(number(report.constant_baseline.get(m.key)), "", "muted") for m in SLIDES)
        rows.append((Cell(f"{name}, best constant", "", "muted"), Cell("", "", "muted"), *constant))
    caption = "Per-image means on the evaluated split."
    return Table(caption, (*columns, *map(metric_column, SLIDES)), tuple(rows))


def metric_table(report: EvalReport) -> Table:
    """Tabulate every metric of a network: both aggregations, interval, best constant."""
    rows = []
    for metric in METRICS:
        mean = report.per_image_mean.get(metric.key)
        constant = report.constant_baseline.get(metric.key)
        interval = report.intervals.get(metric.key)
        gain = None if mean is None or constant is None else mean - constant
        rows.append(
            (
                Cell(metric.title, metric.note, better=metric.better),
                Cell(number(mean)),
                Cell(f"{number(interval[0])} to {number(interval[1])}" if interval else MISSING),
                Cell(number(report.pooled.get(metric.key))),
                Cell(number(constant)),
                difference_cell(gain, metric.better),
            )
        )
    columns = (
        Column("metric", is_number=False),
        Column("per-image mean"),
        Column("95 % interval"),
        Column("pooled"),
        Column("best constant", "per-image mean"),
        Column("against constant"),
    )
    return Table(f"{report.num_images:,} images of the {report.split} split.", columns, tuple(rows))


def range_table(report: EvalReport) -> Table:
    """Tabulate the metrics within ranges of measured depth."""
    total = sum(depth_range.get("num_pixels", 0.0) for depth_range in report.by_depth)
    rows = []
    for values in report.by_depth:
        share = values.get("num_pixels", 0.0) / total if total else 0.0
        limits = f"{values['lower_m']:g} to {values['upper_m']:g} m"
        cells = (Cell(number(values.get(m.key))) for m in SLIDES)
        rows.append((Cell(limits), Cell(f"{100 * share:.1f} %"), *cells))
    columns = (Column("measured depth", is_number=False), Column("pixels"))
    caption = "Pooled over the pixels of each range of measured depth."
    return Table(caption, (*columns, *map(metric_column, SLIDES)), tuple(rows))


def recipe_table(recipe: Mapping[str, Any]) -> Table:
    """Tabulate every setting of a training beside the paper's where it differs."""
    rows = []
    paper = flat(Recipe().model_dump(mode="json"))
    for key, value in flat(recipe).items():
        differs = key in paper and paper[key] != value
        rows.append(
            (
                Cell(key, is_code=True),
                Cell(setting(value), "", "changed" if differs else "", is_code=True),
                Cell(setting(paper[key]), is_code=True) if differs else Cell("same", "", "muted"),
            )
        )
    names = ("setting", "this run", "the paper on NYU")
    return Table("", tuple(Column(n, is_number=False) for n in names), tuple(rows))


def num_changed(recipe: Mapping[str, Any]) -> int:
    """Count the settings that differ from the paper's."""
    paper, here = flat(Recipe().model_dump(mode="json")), flat(recipe)
    return sum(key in paper and paper[key] != value for key, value in here.items())


def data_table(shards: Mapping[str, ShardSet]) -> Table:
    """Tabulate the splits: frames, shards, bytes, and the digest that is their version."""
    rows = [
        (
            Cell(f"{name}, {split_name}"),
            Cell(f"{split.num_samples:,}"),
            Cell(f"{len(split.shards):,}"),
            Cell(f"{sum(ref.size_bytes for ref in split.shards) / 1e6:,.1f}"),
            Cell(split.manifest.sha256, is_code=True),
        )
        for name, shard_set in shards.items()
        for split_name, split in shard_set.splits.items()
    ]
    columns = (
        Column("split", is_number=False),
        Column("frames"),
        Column("shards"),
        Column("size", "MB"),
        Column("manifest", "sha256", is_number=False),
    )
    return Table("", columns, tuple(rows))


def skipped_table(shard_set: ShardSet, most: int = 100) -> Table:
    """List the frames that sharding left out."""
    rows = tuple(
        (Cell(s.split), Cell(s.frame, is_code=True), Cell(s.reason))
        for s in shard_set.skipped[:most]
    )
    rest = len(shard_set.skipped) - most
    caption = f"{rest:,} more are in report.json." if rest > 0 else ""
    names = ("split", "frame", "reason")
    return Table(caption, tuple(Column(n, is_number=False) for n in names), rows)


def flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested tables of settings as dotted key -> value."""
    out: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping):
            out.update(flat(value, f"{prefix}{key}."))
        else:
            out[f"{prefix}{key}"] = list(value) if isinstance(value, tuple) else value
    return out


def setting(value: Any) -> str:
    """Write a setting's value as in a preset."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(setting(v) for v in value)}]"
    return str(value)


def metric_column(metric: Metric) -> Column:
    """Head a column with a metric's names and sense."""
    return Column(metric.title, metric.note, metric.better)
