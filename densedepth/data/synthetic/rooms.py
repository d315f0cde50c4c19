"""Rooms: pictures of furnished rooms with their depth, each a function of its numbers alone."""

import math
from functools import lru_cache

import numpy as np
from jaxtyping import Float32, UInt8

from densedepth.data.synthetic.camera import develop
from densedepth.data.synthetic.floorplan import KINDS, FloorPlan, Rectangle, Room
from densedepth.data.synthetic.raycast import cast
from densedepth.data.synthetic.shading import shade
from densedepth.data.synthetic.views import PinholeView, camera_rotation
from densedepth.sample import SPLITS, Split

MAX_DEPTH_M = 9.9
_FOCAL = 0.81  # of the width: the Kinect's 519 px at 640
_BODY_M = 0.35


def _rng(*numbers: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence(numbers))


def room_kind(seed: int, split: Split, scene: int) -> str:
    """Say what kind of room a scene is: ``bedroom``, ``kitchen`` ..."""
    return KINDS[int(_rng(seed, SPLITS.index(split), scene, 0).integers(len(KINDS)))]


@lru_cache(maxsize=8)
def build_room(seed: int, split: Split, scene: int) -> Room:
    """Build the room of one scene.

    Args:
        seed: of the whole data set.
        split: scenes of different splits are different rooms.
        scene: number of the scene.
    """
    rng = _rng(seed, SPLITS.index(split), scene, 1)
    return FloorPlan(rng, room_kind(seed, split, scene)).furnish()


def room_view(room: Room, rng: np.random.Generator, size_px: tuple[int, int]) -> PinholeView:
    """Hold a camera where one can stand in a room, so that it sees more than a wall.

    Draws how far away the middle of the picture should be, then viewpoints, and keeps the first
    that comes close to it with nothing in the way and something to see; or else the best.
    """
    wide, long, tall = room.size_m
    height, width = size_px
    focal = float(rng.normal(1.0, 0.01)) * _FOCAL * width
    wanted_m = float(np.exp(rng.uniform(math.log(1.5), math.log(6.5))))

    def view(x: float, y: float, z: float, rotation: np.ndarray) -> PinholeView:
        center = ((width - 1) / 2, (height - 1) / 2)
        return PinholeView(np.array([x, y, z]), rotation, (focal, focal), center, size_px)

    # Where there is no place to stand: along the room, from above its furniture.
    best = view(wide / 2, 0.15, tall - 0.5, camera_rotation(0.0, math.radians(-20), 0.0))
    best_score = -1.0
    for _ in range(10):
        x, y = rng.uniform((0.3, 0.3), (wide - 0.3, long - 0.3)).tolist()
        aim_x, aim_y = rng.uniform((0.2, 0.2), (wide - 0.2, long - 0.2)).tolist()
        pitch, roll = math.radians(rng.normal(-9, 3)), math.radians(rng.normal(0, 1))
        eye = float(rng.uniform(1.25, 1.45))
        here = Rectangle(x, y, 0.0, 0.0)
        if any(here.overlaps(t, _BODY_M if t.tall > 0.6 else 0.1) for t in room.taken):
            continue
        candidate = view(x, y, eye, camera_rotation(math.atan2(x - aim_x, aim_y - y), pitch, roll))
        small = PinholeView(
            candidate.origin_m, candidate.world_from_camera, (9.8, 9.8), (5.5, 4.0), (9, 12)
        )
        hits = cast(small, room.solids, small.directions())
        near = min(float(np.percentile(hits.distance, 5)) / 0.6, 1.0)
        content = min(len(np.unique(hits.solid)) / 7, 1.0)
        ratio = float(np.median(hits.distance)) / wanted_m
        score = near * content * min(ratio, 1 / ratio)
        if score > best_score:
            best, best_score = candidate, score
        if score >= 0.9:
            break
    return best


def room_frame(
    seed: int, split: Split, scene: int, frame: int, size_px: tuple[int, int]
) -> tuple[UInt8[np.ndarray, "h w 3"], Float32[np.ndarray, "h w"]]:
    """Render one picture of a room with its depth.

    Args:
        seed: of the whole data set.
        split: scenes of different splits are different rooms.
        scene: number of the room.
        frame: number of the picture in the room; each has its own viewpoint.
        size_px: height and width.

    Returns:
        The colour picture, and the depth in metres (dense).
    """
    room = build_room(seed, split, scene)
    rng = _rng(seed, SPLITS.index(split), scene, 2, frame)
    view = room_view(room, rng, size_px)
    directions = view.directions()
    hits = cast(view, room.solids, directions)
    light = shade(view, room.solids, hits, directions, room.lamps, ambient=room.ambient)
    tint = (float(rng.normal(1, 0.05)), 1.0, float(rng.normal(1, 0.06)))
    image = develop(light, rng, brightness=float(rng.uniform(0.2, 0.4)), tint=tint)
    return image, np.minimum(hits.distance, np.float32(MAX_DEPTH_M))
