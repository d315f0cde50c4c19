"""Pictures for people: depth and error in colour, and panels that set them side by side.

Near is bright and far is dark; what has no measurement is dark grey. In errors, blue was
predicted too near and red too far.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from jaxtyping import Float, Int, UInt8
from PIL import Image, ImageDraw, ImageFont

HOLE = (38, 38, 38)
_PAPER, _INK, _FAINT = (255, 255, 255), (20, 20, 20), (110, 110, 110)
_SPARSE = 0.7
_GAP_PX, _TEXT_PX, _LINE_PX, _BAR_PX = 6, 13, 19, 12
_TITLES = ("input", "ground truth", "prediction", "relative error")
_ROUND_M = (0.2, 0.5, 0.7, 1, 1.5, 2, 2.5, 3, 4, 5, 7, 10, 15, 20, 30, 50, 80, 100, 200)


@dataclass(frozen=True)
class PanelRow:
    """One row of a panel.

    Attributes:
        image: the colour picture.
        truth_m: measured depth in metres; 0 = no measurement.
        prediction_m: predicted depth in metres.
        caption: what is written above the row, such as its name, abs_rel and delta1.
    """

    image: UInt8[np.ndarray, "h w 3"]
    truth_m: Float[np.ndarray, "h w"]
    prediction_m: Float[np.ndarray, "h w"]
    caption: str


@cache
def _palette(name: str, low: float, high: float) -> np.ndarray:
    """Take a part of a colour map of matplotlib's as 256 colours."""
    from matplotlib import colormaps

    colours = colormaps[name](np.linspace(low, high, 256))[:, :3]
    return np.round(colours * 255).astype(np.uint8)


def _paint(position: np.ndarray, valid: np.ndarray, palette: np.ndarray) -> np.ndarray:
    index = np.where(valid, np.clip(position, 0, 1) * 255, 0)
    out = palette[np.rint(index).astype(np.uint8)]
    out[~valid] = HOLE
    return out


def colorize_depth(
    depth_m: Float[np.ndarray, "h w"], min_m: float, max_m: float, log: bool = True
) -> UInt8[np.ndarray, "h w 3"]:
    """Show depth in colour, near bright and far dark.

    Args:
        depth_m: metres; 0, negative and not finite = no measurement, shown dark grey.
        min_m: depth of the brightest colour.
        max_m: depth of the darkest colour.
        log: equal ratios of depth, not equal differences, get equal steps of colour.

    Raises:
        ValueError: the range is upside down or, with ``log``, starts at or below 0.
    """
    if not (min_m > 0 or (not log and min_m == 0)) or not min_m < max_m:
        raise ValueError(f"min_m={min_m}, max_m={max_m}: give 0 < min_m < max_m, in metres")
    valid = np.isfinite(depth_m) & (depth_m > 0)
    safe_m = np.where(valid, depth_m, max_m).astype(np.float64)
    if log:
        position = np.log(safe_m / min_m) / np.log(max_m / min_m)
    else:
        position = (safe_m - min_m) / (max_m - min_m)
    return _paint(1 - position, valid, _palette("magma", 0.18, 1.0))


def colorize_error(
    error_rel: Float[np.ndarray, "h w"], limit: float = 0.5
) -> UInt8[np.ndarray, "h w 3"]:
    """Show relative error in colour: white is right, blue too near, red too far.

    Args:
        error_rel: (prediction - truth) / truth; not finite = unknown, shown dark grey.
        limit: error of the strongest colours.
    """
    if limit <= 0:
        raise ValueError(f"limit={limit}: give a relative error above 0")
    valid = np.isfinite(error_rel)
    position = 0.5 + np.where(valid, error_rel, 0) / (2 * limit)
    return _paint(position, valid, _palette("RdBu_r", 0.03, 0.97))


def overlay_depth(
    image: UInt8[np.ndarray, "h w 3"],
    depth_m: Float[np.ndarray, "h w"],
    min_m: float,
    max_m: float,
    radius_px: int = 1,
) -> UInt8[np.ndarray, "h w 3"]:
    """Draw measured points in colour over a darkened picture; a dense map lets it shine through.

    Args:
        image: the colour picture.
        depth_m: metres; 0 = no measurement.
        min_m: depth of the brightest colour.
        max_m: depth of the darkest colour.
        radius_px: by how much points are thickened.
    """
    source = _thickened(_sources(depth_m, image.shape[:2], keep_all=True), depth_m, radius_px)
    shown_m = np.where(source >= 0, depth_m.ravel()[source], 0)
    grey = (image.mean(axis=2, keepdims=True) * 0.6).astype(np.uint8)
    colours = colorize_depth(shown_m, min_m, max_m)
    if (depth_m > 0).mean() > 0.5:  # nothing of the picture would be left to compare with
        colours = colours // 2 + grey // 2
    return np.where(source[..., None] >= 0, colours, grey)


def _sources(
    depth_m: np.ndarray, size_px: tuple[int, int], keep_all: bool
) -> Int[np.ndarray, "h w"]:
    """Say which pixel of a depth map each pixel of a resized one shows; -1 = none.

    Args:
        depth_m: the map; only its measured pixels are shown.
        size_px: the new height and width.
        keep_all: no measured pixel may get lost between two others: the nearest in place wins.
    """
    height, width = depth_m.shape
    valid = np.isfinite(depth_m) & (depth_m > 0)
    if not keep_all:
        rows = ((np.arange(size_px[0]) + 0.5) * height / size_px[0]).astype(int)
        columns = ((np.arange(size_px[1]) + 0.5) * width / size_px[1]).astype(int)
        source = rows[:, None] * width + columns[None, :]
        return np.where(valid[rows[:, None], columns[None, :]], source, -1)
    row, column = np.nonzero(valid)
    # The nearest last: where several fall on one place, the last one written stays.
    order = np.argsort(-depth_m[row, column], kind="stable")
    row, column = row[order], column[order]
    out = np.full(size_px, -1, np.int64)
    place_row = ((row + 0.5) * size_px[0] / height).astype(int)
    place_column = ((column + 0.5) * size_px[1] / width).astype(int)
    out[place_row, place_column] = row * width + column
    return out


def _thickened(source: np.ndarray, depth_m: np.ndarray, radius_px: int) -> np.ndarray:
    """Let measured points spread over neighbours without one, the nearer over the farther."""
    flat_m = np.where(depth_m > 0, depth_m, np.inf).ravel()
    for _ in range(radius_px):
        best, best_m = source.copy(), np.where(source >= 0, -1.0, np.inf)
        padded = np.pad(source, 1, constant_values=-1)
        for down in range(3):
            for right in range(3):
                shifted = padded[down : down + source.shape[0], right : right + source.shape[1]]
                shifted_m = np.where(shifted >= 0, flat_m[shifted], np.inf)
                nearer = shifted_m < best_m
                best, best_m = np.where(nearer, shifted, best), np.where(nearer, shifted_m, best_m)
        source = best
    return source


def panel(
    rows: Sequence[PanelRow],
    *,
    range_m: tuple[float, float] | None = None,
    error_limit: float = 0.5,
    tile_width_px: int = 300,
) -> UInt8[np.ndarray, "h w 3"]:
    """Set input, truth, prediction and error side by side, a row per sample, with colour bars.

    Args:
        rows: what to show; their pictures may differ in size.
        range_m: depths of the brightest and the darkest colour; from the truth where absent.
        error_limit: relative error of the strongest colours.
        tile_width_px: width of each picture; heights follow.

    Raises:
        ValueError: there is no row.
    """
    if not rows:
        raise ValueError("rows is empty: a panel needs at least one row")
    low_m, high_m = range_m if range_m is not None else _range_of([row.truth_m for row in rows])
    strips = []
    for row in rows:
        tiles = _tiles(row, low_m, high_m, error_limit, tile_width_px)
        gap = np.full((tiles[0].shape[0], _GAP_PX, 3), 255, np.uint8)
        strips.append((row.caption, np.hstack([part for tile in tiles for part in (tile, gap)])))
    step = tile_width_px + _GAP_PX
    width = 4 * step + _GAP_PX
    tail = _BAR_PX + _LINE_PX + _GAP_PX
    height = _LINE_PX + sum(_LINE_PX + strip.shape[0] for _, strip in strips) + _GAP_PX + tail
    canvas = Image.new("RGB", (width, height), _PAPER)
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(size=_TEXT_PX)
    for i, title in enumerate(_TITLES):
        middle = _GAP_PX + i * step + tile_width_px / 2
        draw.text((middle, 2), title, _INK, font, anchor="ma")
    y = _LINE_PX
    for caption, strip in strips:
        draw.text((_GAP_PX, y + 2), caption, _INK, font)
        canvas.paste(Image.fromarray(strip), (_GAP_PX, y + _LINE_PX))
        y += _LINE_PX + strip.shape[0]
    y += _GAP_PX
    _depth_bar(canvas, (_GAP_PX + step, y), low_m, high_m, 2 * tile_width_px + _GAP_PX)
    along = np.linspace(-error_limit, error_limit, tile_width_px)[None]
    bar = colorize_error(np.repeat(along, _BAR_PX, 0), error_limit)
    texts = [f"-{error_limit:.0%} near", "0", f"+{error_limit:.0%} far"]
    _bar(canvas, (_GAP_PX + 3 * step, y), bar, np.array([0.0, 0.5, 1.0]), texts)
    return np.asarray(canvas).copy()


def depth_view(
    image: UInt8[np.ndarray, "h w 3"],
    depth_m: Float[np.ndarray, "h w"],
    *,
    range_m: tuple[float, float] | None = None,
    tile_width_px: int = 640,
) -> UInt8[np.ndarray, "H W 3"]:
    """Set a picture and its depth side by side, with a colour bar in metres below.

    Args:
        image: the colour picture.
        depth_m: metres; 0 = nothing known.
        range_m: depths of the brightest and the darkest colour; from the depth where absent.
        tile_width_px: width of each of both at most; smaller pictures keep their size.
    """
    low_m, high_m = range_m if range_m is not None else _range_of([depth_m])
    width = min(tile_width_px, image.shape[1])
    size = (max(1, round(width * image.shape[0] / image.shape[1])), width)
    shown = Image.fromarray(image).resize(size[::-1], Image.Resampling.BICUBIC)
    smooth = Image.fromarray(depth_m.astype(np.float32)).resize(
        size[::-1], Image.Resampling.BILINEAR
    )
    tail = _BAR_PX + _LINE_PX + 2 * _GAP_PX
    canvas = Image.new("RGB", (2 * width + 3 * _GAP_PX, size[0] + _GAP_PX + tail), _PAPER)
    canvas.paste(shown, (_GAP_PX, _GAP_PX))
    left = width + 2 * _GAP_PX
    colours = colorize_depth(np.asarray(smooth), low_m, high_m)
    canvas.paste(Image.fromarray(colours), (left, _GAP_PX))
    _depth_bar(canvas, (left, size[0] + 2 * _GAP_PX), low_m, high_m, width)
    return np.asarray(canvas).copy()


def _range_of(truths_m: list[np.ndarray]) -> tuple[float, float]:
    """Take the range that nearly all measured depths are in."""
    measured = np.concatenate([t[np.isfinite(t) & (t > 0)] for t in truths_m])
    if measured.size == 0:
        return 1.0, 10.0
    low, high = (float(x) for x in np.percentile(measured, (1, 99)))
    return low, max(high, low * 1.1)


def _tiles(
    row: PanelRow, low_m: float, high_m: float, error_limit: float, width_px: int
) -> list[np.ndarray]:
    height = max(1, round(width_px * row.image.shape[0] / row.image.shape[1]))
    size = (height, width_px)
    sparse = float(np.mean(row.truth_m > 0)) < _SPARSE
    source = _sources(row.truth_m, size, keep_all=sparse)
    if sparse:
        source = _thickened(source, row.truth_m, 1)
    truth_m = np.where(source >= 0, row.truth_m.ravel()[source], 0)
    error = np.where(source >= 0, row.prediction_m.ravel()[source] - truth_m, np.nan)
    error_rel = error / np.where(truth_m > 0, truth_m, 1)
    shown = Image.fromarray(row.image).resize((width_px, height), Image.Resampling.BICUBIC)
    prediction = Image.fromarray(row.prediction_m.astype(np.float32))
    smooth = np.asarray(prediction.resize((width_px, height), Image.Resampling.BILINEAR))
    return [
        np.asarray(shown),
        colorize_depth(truth_m, low_m, high_m),
        colorize_depth(smooth, low_m, high_m),
        colorize_error(error_rel, error_limit),
    ]


def _depth_bar(
    canvas: Image.Image, place_px: tuple[int, int], low_m: float, high_m: float, width_px: int
) -> None:
    """Draw the colours of depths, with round metres marked."""
    ticks = [m for m in _ROUND_M if low_m <= m <= high_m]
    places = np.log(np.array(ticks) / low_m) / np.log(high_m / low_m)
    along = np.geomspace(low_m, high_m, width_px)[None]
    bar = colorize_depth(np.repeat(along, _BAR_PX, 0), low_m, high_m)
    _bar(canvas, place_px, bar, places, [f"{m:g} m" for m in ticks])


def _bar(
    canvas: Image.Image,
    place_px: tuple[int, int],
    bar: np.ndarray,
    places: Float[np.ndarray, "n"],
    texts: list[str],
) -> None:
    """Draw a colour bar with marks; texts that would run into the one before are left out."""
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(size=_TEXT_PX - 2)
    x, y = place_px
    canvas.paste(Image.fromarray(bar), place_px)
    last = float(x - 1)
    for place, text in zip(places.tolist(), texts, strict=True):
        at = x + place * (bar.shape[1] - 1)
        wide = draw.textlength(text, font)
        left = min(max(at - wide / 2, x), x + bar.shape[1] - wide)
        draw.line([(at, y + _BAR_PX), (at, y + _BAR_PX + 3)], _FAINT)
        if left > last + 4 or last < x:
            draw.text((left, y + _BAR_PX + 4), text, _FAINT, font)
            last = left + wide


def to_png(array: UInt8[np.ndarray, "h w 3"]) -> bytes:
    """Encode a picture as PNG."""
    out = io.BytesIO()
    Image.fromarray(array).save(out, "PNG", optimize=True)
    return out.getvalue()


def to_jpeg(array: UInt8[np.ndarray, "h w 3"], quality: int = 88) -> bytes:
    """Encode a picture as JPEG."""
    out = io.BytesIO()
    Image.fromarray(array).save(out, "JPEG", quality=quality, subsampling=0)
    return out.getvalue()
