"""Ray casting: what each ray of a view meets first, and what a lamp cannot reach."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int16

from densedepth.data.synthetic.solids import Solid, span
from densedepth.data.synthetic.views import View

_NEAR = 1e-3
_VISIBLE_PX = 6
_SKIN_M = 0.02
_NOTHING = np.float32(np.inf)


@dataclass(frozen=True)
class Hits:
    """What the rays of a view met.

    Attributes:
        distance: along the ray, in multiples of its direction: the depth in metres for a
            ``PinholeView``, the range for a ``LidarView``; infinite where nothing was met.
        solid: index of the solid; -1 where nothing was met.
    """

    distance: Float32[np.ndarray, "h w"]
    solid: Int16[np.ndarray, "h w"]


def cast(view: View, solids: Sequence[Solid], directions: Float32[np.ndarray, "3 h w"]) -> Hits:
    """Find the first solid on every ray.

    Args:
        view: the sensor.
        solids: the scene.
        directions: ``view.directions()``; an argument because callers need it again.

    Returns:
        The hits, as a grid like the view's.
    """
    distance = np.full(directions.shape[1:], _NOTHING, np.float32)
    index = np.full(directions.shape[1:], -1, np.int16)
    corners = np.stack([one.corners_m for one in solids])
    nearest, windows = view.nearest(corners), view.windows(corners)
    # The nearest first, so that what they hide need not be cast.
    for i in np.argsort(nearest, kind="stable").tolist():
        for window in windows[i]:
            near = distance[window]
            if near.max() < nearest[i]:
                continue
            enter, leave = span(solids[i], view.origin_m, directions[(slice(None), *window)])
            if solids[i].kind == "room":
                met, closer = leave, leave < near
            else:
                met, closer = enter, (enter <= leave) & (enter > _NEAR) & (enter < near)
            np.copyto(near, met, where=closer)
            np.copyto(index[window], np.int16(i), where=closer)
    return Hits(distance, index)


def shadow(
    view: View,
    solids: Sequence[Solid],
    points_m: Float32[np.ndarray, "3 h w"],
    lamp_m: Float64[np.ndarray, "3"],
    floor_m: float,
) -> Bool[np.ndarray, "h w"]:
    """Say which seen points have a solid between them and a lamp.

    Args:
        view: the sensor that sees the points.
        solids: the scene; only those below the lamp that cast shadows count.
        points_m: the seen points.
        lamp_m: where the lamp is.
        floor_m: height of the lowest ground: no shadow falls deeper.

    Returns:
        True in shadow.
    """
    dark = np.zeros(points_m.shape[1:], np.bool_)
    casters = [s for s in solids if s.casts_shadow and s.kind != "room"]
    casters = [s for s in casters if s.center_m[2] + s.half_m[2] < lamp_m[2] - 0.05]
    if not casters:
        return dark
    corners = np.stack([one.corners_m for one in casters])
    # A corner's shadow on the ground; between both lies all that the solid can darken.
    stretch = (lamp_m[2] - floor_m) / (lamp_m[2] - corners[..., 2:])
    hulls = np.concatenate([corners, lamp_m + (corners - lamp_m) * stretch], axis=1)
    # The point's own solid ends its ray: stop a little before, or surfaces darken themselves.
    before = 1 - _SKIN_M / max(1.0, float(np.linalg.norm(lamp_m - view.origin_m)))
    for one, windows in zip(casters, view.windows(hulls), strict=True):
        for window in windows:
            rows, columns = window
            if (rows.stop - rows.start) * (columns.stop - columns.start) < _VISIBLE_PX:
                continue
            to_point = points_m[(slice(None), *window)] - lamp_m.astype(np.float32)[:, None, None]
            enter, leave = span(one, lamp_m, to_point)
            dark[window] |= (enter <= leave) & (enter < before) & (leave > 0)
    return dark
