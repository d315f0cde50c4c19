"""Charts: what is drawn is where the values are."""

import math
import re
from itertools import pairwise
from xml.etree import ElementTree

import pytest

from stages.reporting import curves
from stages.reporting.curves import Curve, DotRow, dot_chart, line_chart


def parse(figure: str) -> ElementTree.Element:
    return ElementTree.fromstring(figure)


def classes(figure: str, tag: str = "path") -> list[str]:
    return [e.get("class", "") for e in parse(figure).iter(tag)]


def line_of(figure: str, index: int = 0) -> str:
    """Return the path of the index-th line of the chart itself, not of its legend."""
    svg = next(e for e in parse(figure) if e.tag == "svg")
    lines = [e for e in svg.iter("path") if e.get("class", "").startswith("line")]
    return lines[index].get("d", "")


def axis_of(figure: str) -> list[tuple[float, float]]:
    """Return (position, value) of the ticks on the vertical axis."""
    return [
        (float(e.get("y", "")) - 4, float((e.text or "").replace("−", "-")))
        for e in parse(figure).iter("text")
        if e.get("text-anchor") == "end"
    ]


@pytest.mark.parametrize(
    ("low", "high"), [(0, 1), (0.2131, 0.2133), (-3, 17), (1e-6, 4e-6), (99, 12_345), (0.5, 0.5)]
)
def test_ticks_are_round_and_hold_the_range(low: float, high: float) -> None:
    ticks = curves.ticks(low, high)
    assert ticks[0] <= low + 1e-12
    assert ticks[-1] >= high - 1e-12
    assert 2 <= len(ticks) <= 9
    step = ticks[1] - ticks[0]
    mantissa = step / 10 ** math.floor(math.log10(step) + 1e-9)
    assert min(abs(mantissa - m) for m in (1, 2, 5)) < 1e-6
    labels = curves.tick_labels(ticks)
    assert len(set(labels)) == len(labels)


@pytest.mark.parametrize(("low", "high"), [(1, 1), (1, 2), (1, 18), (3, 1000)])
def test_ticks_of_epochs_are_whole_and_inside(low: int, high: int) -> None:
    ticks = curves.whole_ticks(low, high)
    assert ticks
    assert all(low <= t <= high and t == int(t) for t in ticks)


def test_points_lie_where_the_axis_says() -> None:
    values = [0.42, 0.31, 0.375, 0.2]
    figure = line_chart("t", "epoch", "loss", [Curve("a", tuple(enumerate(values, 1)), 0)])
    points = [
        (float(x), float(y)) for x, y in re.findall(r"[ML]([\d.]+) ([\d.]+)", line_of(figure))
    ]
    (y0, v0), *_, (y1, v1) = axis_of(figure)
    read = [v0 + (y - y0) * (v1 - v0) / (y1 - y0) for _, y in points]
    assert read == pytest.approx(values, abs=1e-3)
    gaps = [b[0] - a[0] for a, b in pairwise(points)]
    assert gaps == pytest.approx([gaps[0]] * 3, abs=0.2)


def test_a_value_that_is_not_finite_breaks_the_line_and_leaves_a_cross() -> None:
    points = ((1.0, 0.4), (2.0, 0.3), (3.0, math.nan), (4.0, 0.2), (5.0, math.inf))
    figure = line_chart("t", "x", "y", [Curve("a", points, 0)])
    assert line_of(figure).count("M") == 2
    assert line_of(figure).count("L") == 1
    assert classes(figure).count("cross") == 2


def test_nothing_finite_gives_a_sentence() -> None:
    empty = line_chart("t", "x", "y", [Curve("a", ((1.0, math.nan),), 0)])
    assert "No finite value to draw." in empty
    assert "No finite value to draw." in dot_chart("t", "x", [DotRow("a", (), 0)], None)


def test_one_epoch_is_drawn_in_the_middle() -> None:
    figure = line_chart("t", "x", "y", [Curve("a", ((7.0, 0.4),), 0)], marked=(7.0, "kept"))
    x = float(re.findall(r"M([\d.]+)", line_of(figure))[0])
    assert x == pytest.approx((curves.LEFT + curves.WIDTH - curves.RIGHT) / 2)
    assert "7" in [e.text for e in parse(figure).iter("text")]


def test_the_legend_names_each_series_once_and_the_mark() -> None:
    lines = [Curve("a & <b>", ((1.0, 2.0), (2.0, 1.0)), 0), Curve("c", ((1.0, 1.5),), 1)]
    figure = line_chart("t", "x", "y", [*lines, lines[0]], marked=(2.0, "kept network"))
    names = ["".join(item.itertext()) for item in parse(figure).iter("li")]
    assert names == ["a & <b>", "c", "kept network"]


def test_series_differ_in_more_than_colour() -> None:
    looks = [re.sub(r'class="[^"]*"', "", curves.swatch(style)) for style in range(12)]
    assert len(set(looks)) == len(looks)


def test_long_curves_are_drawn_without_markers() -> None:
    points = tuple((float(i), 1.0 / (i + 1)) for i in range(curves.MAX_MARKERS + 1))
    long = line_chart("t", "x", "y", [Curve("a", points, 0)])
    short = line_chart("t", "x", "y", [Curve("a", points[:5], 0)])
    assert classes(long).count("dot") == 1
    assert classes(short).count("dot") == 6


def test_dots_lie_where_the_axis_says_with_their_mean_and_the_baseline() -> None:
    rows = [DotRow("baseline", (0.5, 0.54), 0), DotRow("half", (0.4,), 1), DotRow("bad", (), 2)]
    figure = dot_chart("t", "delta1", rows, 0.52)
    svg = next(e for e in parse(figure) if e.tag == "svg")
    ticks = [
        (float(e.get("x", "")), float(e.text or ""))
        for e in svg.iter("text")
        if e.get("text-anchor") == "middle" and e.get("class") == "tick"
    ]
    (x0, v0), *_, (x1, v1) = ticks

    def values(kind: str) -> list[float]:
        paths = [e.get("d", "") for e in svg.iter("path") if e.get("class") == kind]
        return [v0 + (float(d[1:].split()[0]) - x0) * (v1 - v0) / (x1 - x0) for d in paths]

    assert values("dot") == pytest.approx([0.5, 0.54, 0.4], abs=1e-3)
    assert values("line") == pytest.approx([0.52], abs=1e-3)
    assert values("mark") == pytest.approx([0.52], abs=1e-3)
    assert "no finite value" in figure
