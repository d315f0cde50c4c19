"""Streets: what lines a road, block by block, for ever.

A street runs along +x; traffic keeps right, so the camera's lane is at negative y. Every block of
24 m is a function of the drive and its number, and a frame takes the blocks around it.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from densedepth.data.synthetic import materials, vehicles
from densedepth.data.synthetic.solids import Paint, Solid, placed, solid
from densedepth.sample import SPLITS, Split

BLOCK_M = 24.0
_BEHIND_M, _AHEAD_M = 1000.0, 5000.0
_KERB_M = 0.12
_WHITE = Paint("asphalt", (0.5, 0.5, 0.48), (0.72, 0.72, 0.7), (1.0, 1.0))
_METAL = materials.plain((0.25, 0.26, 0.27))
_BARK = Paint("wood", (0.05, 0.035, 0.025), (0.16, 0.12, 0.09), (0.5, 0.3))


@dataclass(frozen=True)
class Street:
    """What stays the same along a street; all lengths in metres.

    Attributes:
        numbers: seed, split and drive: with a block's number they give its content.
        kind: ``city``, ``suburb`` or ``country``.
        lane: width of a lane.
        kerb: from the middle of the road to its edge, parking included.
        walk: width of the pavement.
        setback: from the pavement to the houses.
        parking: how likely a parking place is taken.
        traffic: how likely a block has a car in a lane.
        trees: how likely a tree's place has one.
        sun: unit vector towards the sun.
        sunlight: its strength; the sky's is 1.
    """

    numbers: tuple[int, int, int]
    kind: str
    lane: float
    kerb: float
    walk: float
    setback: float
    parking: float
    traffic: float
    trees: float
    sun: tuple[float, float, float]
    sunlight: float


@dataclass(frozen=True)
class Block:
    """What stands along one block of a street.

    Attributes:
        fixed: houses, trees, posts, people, road marks.
        vehicles: the solids of each; the place of the first is the vehicle's.
    """

    fixed: tuple[Solid, ...]
    vehicles: tuple[tuple[Solid, ...], ...]


def _rng(*numbers: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence(numbers))


@lru_cache(maxsize=8)
def build_street(seed: int, split: Split, drive: int) -> Street:
    """Decide what kind of street a drive goes along.

    Args:
        seed: of the whole data set.
        split: drives of different splits are different streets.
        drive: number of the drive.
    """
    numbers = (seed, SPLITS.index(split), drive)
    rng = _rng(*numbers, 10)
    kind = ("city", "suburb", "suburb", "country")[int(rng.integers(4))]
    lane = float(rng.uniform(2.8, 3.6))
    parks = kind != "country" and rng.random() < 0.75
    height = math.radians(rng.uniform(28, 62))
    around = float(rng.uniform(0, 2 * math.pi))
    level = math.cos(height)
    return Street(
        numbers,
        kind,
        lane,
        lane + (2.2 if parks else 0.3),
        {"city": 2.8, "suburb": 1.8, "country": 0.0}[kind] * float(rng.uniform(0.8, 1.3)),
        {"city": 0.3, "suburb": 5.0, "country": 14.0}[kind] * float(rng.uniform(0.6, 1.4)),
        float(rng.uniform(0.3, 0.85)) if parks else 0.0,
        float(rng.uniform(0.1, 0.45)),
        float(rng.uniform(0.15, 0.8)),
        (level * math.cos(around), level * math.sin(around), math.sin(height)),
        float(rng.choice([0.4, 1.6, 2.4])),
    )


@lru_cache(maxsize=8)
def ground(street: Street) -> tuple[Solid, ...]:
    """Lay the road, its kerbs, pavements and edge lines, and the land beside it."""
    rng = _rng(*street.numbers, 11)
    tar = materials.pick(rng, ("#6a6a6c", "#7c7a78", "#5a5b60"))
    asphalt = Paint("asphalt", materials.scaled(tar, 0.7), materials.scaled(tar, 1.25), (3.0, 3.0))
    stone = materials.pick(rng, ("#a8a49c", "#989aa0"))
    paving = Paint("paving", materials.scaled(stone, 0.5), materials.scaled(stone, 1.1), (2.0, 2.0))
    kerb_stone = materials.plain(materials.scaled(stone, 1.1))
    green = materials.pick(rng, ("#5f7a3a", "#75803f", "#8a8450"))
    grass = Paint("grass", materials.scaled(green, 0.35), materials.scaled(green, 1.4), (2.5, 2.5))
    land = paving if street.kind == "city" else grass

    def strip(low_y: float, wide: float, top: float, paint: Paint) -> Solid:
        size = (_BEHIND_M + _AHEAD_M, wide, 0.5)
        return solid("box", (-_BEHIND_M, low_y, top - 0.5), size, paint, casts_shadow=False)

    out = [strip(-street.kerb, 2 * street.kerb, 0.0, asphalt)]
    for side in (-1, 1):
        edge = street.kerb
        for wide, top, paint in (
            (0.15, _KERB_M, kerb_stone),
            (street.walk, _KERB_M, paving),
            (400.0, _KERB_M - 0.04, land),
        ):
            if wide > 0:
                out.append(strip(edge if side > 0 else -edge - wide, wide, top, paint))
                edge += wide
        if street.kerb > street.lane + 1 or street.kind == "country":
            out.append(strip(side * street.lane - 0.06, 0.12, 0.004, _WHITE))
    return tuple(out)


@lru_cache(maxsize=64)
def block(street: Street, number: int) -> Block:
    """Fill one block of a street, from ``number * BLOCK_M`` on."""
    rng = _rng(*street.numbers, 12, number + 1000)
    start = number * BLOCK_M
    out: list[Solid] = []
    cars: list[tuple[Solid, ...]] = []
    for dash in (2.0, 14.0):
        mark = solid(
            "box", (start + dash, -0.06, 0.0), (4.0, 0.12, 0.004), _WHITE, casts_shadow=False
        )
        out.append(mark)
    for side in (-1, 1):
        _houses(street, rng, start, side, out)
        _trees_and_posts(street, rng, start, side, out)
        _parked(street, rng, start, side, cars)
        if street.walk > 0 and rng.random() < 0.3:
            y = side * (street.kerb + street.walk * float(rng.uniform(0.3, 0.8)))
            x, yaw = start + float(rng.uniform(0, BLOCK_M)), float(rng.choice([0.0, math.pi]))
            out.extend(placed(vehicles.person(rng), x, y, yaw, _KERB_M))
        if rng.random() < street.traffic:
            solids, _ = vehicles.vehicle(rng)
            x = start + float(rng.uniform(6, BLOCK_M - 6))
            yaw = math.pi if side > 0 else 0.0
            cars.append(tuple(placed(solids, x, side * street.lane / 2, yaw)))
    return Block(tuple(out), tuple(cars))


def _houses(
    street: Street, rng: np.random.Generator, start: float, side: int, out: list[Solid]
) -> None:
    """Build houses, a wall of them in the city and villas with roofs and hedges in the suburb."""
    front = street.kerb + 0.15 + street.walk + street.setback
    if street.kind == "country" and rng.random() < 0.8:
        if rng.random() < 0.6:
            _wood(rng, start, side, front, out)
        return
    if rng.random() < (0.08 if street.kind == "city" else 0.15):
        return
    deep = float(rng.uniform(8, 13))
    if street.kind == "city":
        wide, gap = BLOCK_M - float(rng.choice([0.0, 0.0, 4.0])), 0.0
        storeys = int(rng.integers(3, 7))
    else:
        wide, gap = float(rng.uniform(9, 17)), float(rng.uniform(0, 5))
        storeys = int(rng.integers(1, 4))
    facade = materials.house_wall(rng)
    tall = storeys * facade.tile_m[1]
    count = max(1, round(wide / facade.tile_m[0]))
    facade = Paint(facade.pattern, facade.low, facade.high, (wide / count, tall / storeys))
    y = front if side > 0 else -front - deep
    x = start + gap
    roof = materials.plain(materials.pick(rng, ("#7a4436", "#5a5a60", "#6a4f40")))
    out.append(solid("box", (x, y, 0.0), (wide, deep, tall), (facade, roof, roof)))
    if street.kind != "city" or rng.random() < 0.5:
        low, size = (x - 0.3, y - 0.4, tall), (wide + 0.6, deep + 0.8, float(rng.uniform(2.2, 4.5)))
        ridge = (0.0, 0.97) if rng.random() < 0.7 else (0.5, 0.95)
        out.append(solid("frustum", low, size, roof, taper=ridge))
    if street.kind == "suburb" and rng.random() < 0.6:
        hedge_y = street.kerb + 0.2 + street.walk
        paint = materials.foliage(rng) if rng.random() < 0.6 else materials.brick(rng)
        high = float(rng.uniform(0.7, 1.7))
        low = (start, hedge_y if side > 0 else -hedge_y - 0.5, 0.0)
        out.append(solid("box", low, (BLOCK_M - 3.0, 0.5, high), paint))


def _tree(rng: np.random.Generator, x: float, y: float) -> list[Solid]:
    tall, thick = float(rng.uniform(4.5, 11)), float(rng.uniform(0.18, 0.42))
    trunk, leaves = tall * float(rng.uniform(0.28, 0.42)), materials.foliage(rng)
    out = [
        solid("cylinder", (x - thick / 2, y - thick / 2, 0.0), (thick, thick, trunk + 0.8), _BARK)
    ]
    spread = tall * float(rng.uniform(0.28, 0.42))
    for _ in range(4):
        dx, dy = rng.uniform(-spread / 2, spread / 2, 2).tolist()
        size = spread * float(rng.uniform(0.9, 1.5))
        z = trunk + float(rng.uniform(0, 0.35)) * (tall - trunk)
        low = (x + dx - size / 2, y + dy - size / 2, z)
        out.append(solid("ellipsoid", low, (size, size, min(size * 1.2, tall - z + 0.5)), leaves))
    return out


def _wood(
    rng: np.random.Generator, start: float, side: int, front: float, out: list[Solid]
) -> None:
    for _ in range(3):
        x = start + float(rng.uniform(0, BLOCK_M))
        out.extend(_tree(rng, x, side * (front + float(rng.uniform(-8, 10)))))
    leaves = materials.foliage(rng)
    for place in np.arange(0.0, BLOCK_M, 4.0).tolist():
        wide, tall = rng.uniform((4.0, 5.0), (8.0, 13.0)).tolist()
        x, y = start + place, side * (front + 14 + float(rng.uniform(-3, 3)))
        low = (x - wide / 2, y - wide / 2, -tall * 0.25)
        out.append(solid("ellipsoid", low, (wide, wide, tall), leaves, casts_shadow=False))


def _trees_and_posts(
    street: Street, rng: np.random.Generator, start: float, side: int, out: list[Solid]
) -> None:
    """Plant trees and set lamp posts and signs along the edge of the road."""
    y = side * (street.kerb + 0.75)
    far_off = 2.5 if street.kind == "country" else 0.3
    for place in (4.0, 12.0, 20.0):
        if rng.random() < street.trees * 0.6:
            out.extend(_tree(rng, start + place + float(rng.uniform(-2, 2)), y + side * far_off))
    if rng.random() < (0.5 if street.kind != "country" else 0.15):
        x, tall = start + float(rng.uniform(0, 3)), float(rng.uniform(5.5, 8))
        out.append(solid("cylinder", (x, y, 0.0), (0.16, 0.16, tall), _METAL))
        low_y = y - (1.5 if side > 0 else 0.0)
        out.append(solid("box", (x, low_y, tall), (0.14, 1.6, 0.12), _METAL))
    if rng.random() < 0.25:
        x = start + float(rng.uniform(8, 16))
        shield = materials.plain(materials.pick(rng, ("#b02020", "#2048a0", "#e8e4d0", "#d8b020")))
        out.append(solid("cylinder", (x, y, 0.0), (0.07, 0.07, 2.9), _METAL))
        out.append(solid("box", (x - 0.02, y - 0.3, 2.25), (0.03, 0.62, 0.62), shield))


def _parked(
    street: Street, rng: np.random.Generator, start: float, side: int, cars: list[tuple[Solid, ...]]
) -> None:
    """Fill the parking places along one kerb."""
    x = start + 0.5
    while x < start + BLOCK_M - 5:
        solids, long = vehicles.vehicle(rng)
        if long < 6 and rng.random() < street.parking:
            y = side * (street.kerb - 1.05 + float(rng.normal(0, 0.06)))
            yaw = (math.pi if side > 0 else 0.0) + float(rng.normal(0, 0.02))
            cars.append(tuple(placed(solids, x + long / 2, y, yaw)))
        x += 5.9
