"""Charts for the report as inline SVG: shapes and text, coloured by the page's style sheet.

A series is told apart by colour, dash and marker together. A value that is not finite breaks its
line and leaves a cross at the upper edge.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise

WIDTH, HEIGHT = 460, 270
LEFT, RIGHT, TOP, BOTTOM = 60, 18, 14, 48
NUM_COLOURS = 6
MAX_MARKERS = 30
"""Curves with more points than this are drawn as lines alone."""
DASHES = ("", "7 3", "2 3", "9 3 2 3", "5 5")


@dataclass(frozen=True)
class Curve:
    """One line.

    Attributes:
        name: what the legend calls it; curves of one name share one entry.
        points: (x, y) in the order of drawing.
        style: index of colour, dash and marker.
        is_faint: a thin line without markers, such as one seed beside the mean.
    """

    name: str
    points: tuple[tuple[float, float], ...]
    style: int
    is_faint: bool = False


@dataclass(frozen=True)
class DotRow:
    """One row of a dot chart.

    Attributes:
        name: what stands left of it.
        values: one dot each.
        style: index of colour and marker.
    """

    name: str
    values: tuple[float, ...]
    style: int


def line_chart(
    title: str,
    x_title: str,
    y_title: str,
    curves: Sequence[Curve],
    marked: tuple[float, str] | None = None,
) -> str:
    """Draw curves over whole-numbered x, such as epochs, with axes and a legend.

    Args:
        title: stands above the chart and is read out for it.
        x_title: of the horizontal axis.
        y_title: of the vertical axis.
        curves: what is drawn.
        marked: x of a vertical line, and what it marks.

    Returns:
        An HTML ``figure``; one with a sentence in place of the chart where no value is finite.
    """
    finite = [(x, y) for curve in curves for x, y in curve.points if math.isfinite(y)]
    if not finite:
        return _figure(title, "", "<p>No finite value to draw.</p>")
    xs = [x for curve in curves for x, _ in curve.points]
    x_low, x_high = min(xs), max(xs)
    if x_low == x_high:
        x_low, x_high = x_low - 0.5, x_high + 0.5
    y_ticks = ticks(min(y for _, y in finite), max(y for _, y in finite))
    area = _Area(x_low, x_high, y_ticks[0], y_ticks[-1])
    parts = [_rows(area, y_ticks)]
    for tick in whole_ticks(min(xs), max(xs)):
        parts.append(_text(area.x(tick), HEIGHT - BOTTOM + 18, f"{tick:g}", "middle"))
    entries = {curve.name: swatch(curve.style) for curve in curves}
    if marked is not None:
        line = f"M{_pixels(area.x(marked[0]))} {TOP}V{HEIGHT - BOTTOM}"
        parts.append(f'<path class="mark" d="{line}"/>')
        entries[marked[1]] = _sample('<path class="mark" d="M15 0V14"/>')
    parts += [_curve(area, curve) for curve in curves]
    parts.append(_titles(x_title, y_title))
    return _figure(title, _legend(entries), _svg(title, HEIGHT, parts))


def dot_chart(title: str, x_title: str, rows: Sequence[DotRow], reference: float | None) -> str:
    """Draw each row's values, one a seed, as dots on one axis, and their mean as a bar.

    Args:
        title: stands above the chart and is read out for it.
        x_title: of the axis.
        rows: from top to bottom.
        reference: the baseline's mean, drawn as a vertical line.
    """
    finite = [v for row in rows for v in row.values if math.isfinite(v)]
    if not finite:
        return _figure(title, "", "<p>No finite value to draw.</p>")
    names = [row.name if len(row.name) <= 20 else f"{row.name[:19]}…" for row in rows]
    left = 24 + 7 * max(len(name) for name in names)
    x_ticks = ticks(min(finite), max(finite), 4)
    area = _Area(x_ticks[0], x_ticks[-1], 0.0, 1.0, left)
    height = TOP + 34 * len(rows) + BOTTOM
    bottom = height - BOTTOM
    parts = []
    for tick, label in zip(x_ticks, tick_labels(x_ticks), strict=True):
        x = _pixels(area.x(tick))
        parts.append(f'<path class="grid" d="M{x} {TOP}V{bottom}"/>')
        parts.append(_text(area.x(tick), bottom + 18, label, "middle"))
    if reference is not None and math.isfinite(reference):
        parts.append(f'<path class="mark" d="M{_pixels(area.x(reference))} {TOP}V{bottom}"/>')
    for index, (row, name) in enumerate(zip(rows, names, strict=True)):
        y = TOP + 34 * index + 17
        parts.append(_text(left - 12, y + 4, name, "end"))
        values = [v for v in row.values if math.isfinite(v)]
        dots = "".join(_marker(row.style, area.x(v), y) for v in values)
        if len(values) > 1:
            x = _pixels(area.x(sum(values) / len(values)))
            dots += f'<path class="line" d="M{x} {y - 11}V{y + 11}"/>'
        if not values:
            dots = _text(left + 8, y + 4, "no finite value", "start")
        parts.append(f'<g class="c{row.style % NUM_COLOURS}">{dots}</g>')
    parts.append(_text((left + WIDTH - RIGHT) / 2, height - 8, x_title, "middle", "title"))
    entries = {"one seed": _sample(_marker(0, 15, 7), "c0")}
    if any(len(row.values) > 1 for row in rows):
        entries["mean"] = _sample('<path class="line" d="M15 1V13"/>', "c0")
    if reference is not None:
        entries["baseline"] = _sample('<path class="mark" d="M15 0V14"/>')
    return _figure(title, _legend(entries), _svg(title, height, parts))


def ticks(low: float, high: float, target: int = 5) -> list[float]:
    """Return round numbers, evenly spaced by 1, 2 or 5 times a power of ten, around [low, high]."""
    if high - low <= 1e-9 * max(abs(low), abs(high), 1e-9):
        margin = abs(low) * 0.1 or 0.1
        low, high = low - margin, high + margin
    step = _round_step((high - low) / target)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [index * step for index in range(first, last + 1)]


def whole_ticks(low: float, high: float, target: int = 7) -> list[float]:
    """Return whole multiples of a round step that lie in [low, high]."""
    step = max(1.0, _round_step(max(high - low, 1.0) / target))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [index * step for index in range(first, last + 1)]


def tick_labels(values: Sequence[float]) -> list[str]:
    """Write ticks with as many decimals as tell them apart; powers of ten where they are large."""
    step = min((b - a for a, b in pairwise(values)), default=1.0)
    if max(abs(v) for v in values) >= 1e5:
        return [f"{v:.2g}" for v in values]
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    return [f"{v + 0.0:.{decimals}f}".replace("-", "−") for v in values]


def swatch(style: int) -> str:
    """Draw a legend's sample of a series: a bit of its line with its marker."""
    line = f'<path class="line" d="M1 7H29"{_dash(style)}/>'
    return _sample(line + _marker(style, 15, 7), f"c{style % NUM_COLOURS}")


@dataclass(frozen=True)
class _Area:
    """The plot's rectangle in the drawing, and the values at its edges."""

    x_low: float
    x_high: float
    y_low: float
    y_high: float
    left: float = LEFT

    def x(self, value: float) -> float:
        share = (value - self.x_low) / (self.x_high - self.x_low)
        return self.left + share * (WIDTH - RIGHT - self.left)

    def y(self, value: float) -> float:
        share = (value - self.y_low) / (self.y_high - self.y_low)
        return HEIGHT - BOTTOM - share * (HEIGHT - BOTTOM - TOP)


def _curve(area: _Area, curve: Curve) -> str:
    steps, markers, pen_is_up = [], [], True
    has_markers = len(curve.points) <= MAX_MARKERS and not curve.is_faint
    for x, y in curve.points:
        if not math.isfinite(y):
            pen_is_up = True
            at, top = area.x(x), TOP + 5
            cross = f"M{_pixels(at - 4)} {top - 4}l8 8m0 -8l-8 8"
            markers.append(f'<path class="cross" d="{cross}"><title>not finite</title></path>')
            continue
        steps.append(f"{'M' if pen_is_up else 'L'}{_pixels(area.x(x))} {_pixels(area.y(y))}")
        pen_is_up = False
        if has_markers:
            markers.append(_marker(curve.style, area.x(x), area.y(y)))
    kind = "line faint" if curve.is_faint else "line"
    path = f'<path class="{kind}" d="{"".join(steps)}"{_dash(curve.style)}/>' if steps else ""
    return f'<g class="c{curve.style % NUM_COLOURS}">{path}{"".join(markers)}</g>'


def _rows(area: _Area, y_ticks: Sequence[float]) -> str:
    parts = []
    for index, (tick, label) in enumerate(zip(y_ticks, tick_labels(y_ticks), strict=True)):
        y = area.y(tick)
        kind = "grid" if index else "axis"
        parts.append(f'<path class="{kind}" d="M{LEFT} {_pixels(y)}H{WIDTH - RIGHT}"/>')
        parts.append(_text(LEFT - 8, y + 4, label, "end"))
    return "".join(parts)


def _titles(x_title: str, y_title: str) -> str:
    middle_x, middle_y = (LEFT + WIDTH - RIGHT) / 2, (TOP + HEIGHT - BOTTOM) / 2
    turned = f'<g transform="translate(14 {_pixels(middle_y)}) rotate(-90)">'
    return (
        _text(middle_x, HEIGHT - 8, x_title, "middle", "title")
        + turned
        + _text(0, 0, y_title, "middle", "title")
        + "</g>"
    )


def _marker(style: int, x: float, y: float) -> str:
    """Draw a disc, square, triangle or diamond around a point."""
    shapes = (
        "m-3.2 0a3.2 3.2 0 1 0 6.4 0a3.2 3.2 0 1 0 -6.4 0",
        "m-2.9 -2.9h5.8v5.8h-5.8z",
        "m0 -3.9l3.7 6.4h-7.4z",
        "m0 -4.1l4.1 4.1l-4.1 4.1l-4.1 -4.1z",
    )
    d = f"M{_pixels(x)} {_pixels(y)}{shapes[style % len(shapes)]}"
    return f'<path class="dot" d="{d}"/>'


def _dash(style: int) -> str:
    dash = DASHES[style % len(DASHES)]
    return f' stroke-dasharray="{dash}"' if dash else ""


def _sample(shapes: str, colour: str = "") -> str:
    name = f"swatch {colour}".rstrip()
    return f'<svg class="{name}" viewBox="0 0 30 14" aria-hidden="true">{shapes}</svg>'


def _legend(entries: Mapping[str, str]) -> str:
    items = "".join(f"<li>{sample}{escape(name)}</li>" for name, sample in entries.items())
    return f'<ul class="legend">{items}</ul>'


def _figure(title: str, legend: str, body: str) -> str:
    caption = f"<figcaption>{escape(title)}</figcaption>"
    return f'<figure class="chart">{caption}{legend}{body}</figure>'


def _svg(title: str, height: float, parts: Iterable[str]) -> str:
    label = escape(title)
    body = "".join(parts)
    return f'<svg viewBox="0 0 {WIDTH} {height:g}" role="img" aria-label="{label}">{body}</svg>'


def _text(x: float, y: float, text: str, anchor: str, kind: str = "tick") -> str:
    place = f'x="{_pixels(x)}" y="{_pixels(y)}" text-anchor="{anchor}"'
    return f'<text class="{kind}" {place}>{escape(text)}</text>'


def _pixels(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def _round_step(raw: float) -> float:
    power = 10.0 ** math.floor(math.log10(raw))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw * (1 - 1e-9))
