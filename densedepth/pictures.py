"""Pictures for people: colour, depth and error side by side, with colour bars below."""

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw, ImageFont

from densedepth.depth_colours import ERROR_LIMIT, colorize_depth, colorize_error, shown_range_m
from densedepth.sparse_depth import shown_pixels, thickened

_PAPER, _INK, _FAINT = (255, 255, 255), (20, 20, 20), (110, 110, 110)
_SPARSE = 0.7
_TILE_PX, _GAP_PX, _TEXT_PX, _LINE_PX, _BAR_PX = 300, 6, 13, 19, 12
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


def panel(
    rows: Sequence[PanelRow],
    *,
    range_m: tuple[float, float] | None = None,
) -> UInt8[np.ndarray, "h w 3"]:
    """Set input, truth, prediction and error side by side, a row per sample, with colour bars.

    Args:
        rows: what to show; their pictures may differ in size.
        range_m: depths of the brightest and the darkest colour; from the truth where absent.

    Raises:
        ValueError: there is no row.
    """
    if not rows:
        raise ValueError("rows is empty: a panel needs at least one row")
    low_m, high_m = range_m if range_m is not None else shown_range_m([row.truth_m for row in rows])
    strips = []
    for row in rows:
        tiles = _tiles(row, low_m, high_m)
        gap = np.full((tiles[0].shape[0], _GAP_PX, 3), 255, np.uint8)
        strips.append((row.caption, np.hstack([part for tile in tiles for part in (tile, gap)])))
    step = _TILE_PX + _GAP_PX
    width = 4 * step + _GAP_PX
    tail = _BAR_PX + _LINE_PX + _GAP_PX
    height = _LINE_PX + sum(_LINE_PX + strip.shape[0] for _, strip in strips) + _GAP_PX + tail
    canvas = Image.new("RGB", (width, height), _PAPER)
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(size=_TEXT_PX)
    for i, title in enumerate(_TITLES):
        middle = _GAP_PX + i * step + _TILE_PX / 2
        draw.text((middle, 2), title, _INK, font, anchor="ma")
    y = _LINE_PX
    for caption, strip in strips:
        draw.text((_GAP_PX, y + 2), caption, _INK, font)
        canvas.paste(Image.fromarray(strip), (_GAP_PX, y + _LINE_PX))
        y += _LINE_PX + strip.shape[0]
    y += _GAP_PX
    _depth_bar(canvas, (_GAP_PX + step, y), low_m, high_m, 2 * _TILE_PX + _GAP_PX)
    along = np.linspace(-ERROR_LIMIT, ERROR_LIMIT, _TILE_PX)[None]
    bar = colorize_error(np.repeat(along, _BAR_PX, 0))
    texts = [f"-{ERROR_LIMIT:.0%} near", "0", f"+{ERROR_LIMIT:.0%} far"]
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
    low_m, high_m = range_m if range_m is not None else shown_range_m([depth_m])
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


def _tiles(row: PanelRow, low_m: float, high_m: float) -> list[np.ndarray]:
    height = max(1, round(_TILE_PX * row.image.shape[0] / row.image.shape[1]))
    size = (height, _TILE_PX)
    sparse = float(np.mean(row.truth_m > 0)) < _SPARSE
    source = shown_pixels(row.truth_m, size, keep_all=sparse)
    if sparse:
        source = thickened(source, row.truth_m)
    truth_m = np.where(source >= 0, row.truth_m.ravel()[source], 0)
    error = np.where(source >= 0, row.prediction_m.ravel()[source] - truth_m, np.nan)
    error_rel = error / np.where(truth_m > 0, truth_m, 1)
    shown = Image.fromarray(row.image).resize(size[::-1], Image.Resampling.BICUBIC)
    prediction = Image.fromarray(row.prediction_m.astype(np.float32))
    smooth = np.asarray(prediction.resize(size[::-1], Image.Resampling.BILINEAR))
    return [
        np.asarray(shown),
        colorize_depth(truth_m, low_m, high_m),
        colorize_depth(smooth, low_m, high_m),
        colorize_error(error_rel),
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
