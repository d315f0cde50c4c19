"""Floor plans: which furniture stands where in a room."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from densedepth.data.synthetic import fixtures, furniture, materials, storage
from densedepth.data.synthetic.furniture import Piece
from densedepth.data.synthetic.shading import Lamp
from densedepth.data.synthetic.solids import Paint, Solid, highest_m, placed, solid

Maker = Callable[[np.random.Generator], Piece]

SETS: dict[str, Sequence[Maker]] = {
    "bedroom": (
        furniture.bed,
        storage.cabinet,
        storage.cabinet,
        furniture.desk,
        storage.bookshelf,
        furniture.floor_lamp,
        furniture.plant,
        furniture.chair,
    ),
    "living_room": (
        furniture.sofa,
        furniture.sofa,
        furniture.screen,
        storage.bookshelf,
        storage.cabinet,
        furniture.floor_lamp,
        furniture.plant,
        furniture.cartons,
    ),
    "office": (
        furniture.desk,
        furniture.desk,
        storage.bookshelf,
        storage.bookshelf,
        storage.cabinet,
        furniture.plant,
        furniture.cartons,
        furniture.table,
    ),
    "kitchen": (
        storage.counter,
        storage.counter,
        storage.cabinet,
        storage.cabinet,
        furniture.plant,
        furniture.chair,
        furniture.cartons,
    ),
    "dining_room": (
        storage.cabinet,
        furniture.sofa,
        storage.bookshelf,
        furniture.floor_lamp,
        furniture.plant,
        storage.cabinet,
        furniture.chair,
    ),
}
"""What stands along the walls of each kind of room, the most telling first."""

KINDS = tuple(SETS)
_CHAIRS_AT = ("dining_room", "kitchen", "office")


@dataclass(frozen=True)
class Rectangle:
    """A piece of floor, and how high what stands on it is; metres."""

    x: float
    y: float
    half_x: float
    half_y: float
    tall: float = 0.0

    def overlaps(self, other: "Rectangle", gap: float) -> bool:
        """Say whether two pieces of floor come closer than a gap."""
        return (
            abs(self.x - other.x) < self.half_x + other.half_x + gap
            and abs(self.y - other.y) < self.half_y + other.half_y + gap
        )


@dataclass(frozen=True)
class Room:
    """A room: the box from the origin to ``size_m``, what is in it and its lights."""

    kind: str
    size_m: tuple[float, float, float]
    solids: tuple[Solid, ...]
    lamps: tuple[Lamp, ...]
    ambient: tuple[float, float, float]
    taken: tuple[Rectangle, ...]


class FloorPlan:
    """An empty room that is filled step by step; every step draws from the same generator."""

    def __init__(self, rng: np.random.Generator, kind: str) -> None:
        self.rng, self.kind = rng, kind
        self.wide = float(rng.uniform(2.4, 5.6))
        self.long = float(rng.uniform(2.8, 9.2))
        self.tall = float(rng.uniform(2.35, 2.95))
        walls, ground = materials.wall(rng), materials.floor(rng)
        ceiling = materials.plain(materials.pick(rng, ("#f2f0ea", "#e6e4de"), 0.04))
        size = (self.wide, self.long, self.tall)
        self.solids = [solid("room", (0.0, 0.0, 0.0), size, (walls, ceiling, ground))]
        self.taken: list[Rectangle] = []
        self.lamps: list[Lamp] = []

    def furnish(self) -> Room:
        """Do all the steps."""
        self._along_walls()
        self._in_the_middle()
        self._on_walls()
        self._on_the_ceiling()
        level = float(self.rng.uniform(0.2, 0.45))
        return Room(
            self.kind,
            (self.wide, self.long, self.tall),
            tuple(self.solids),
            tuple(self.lamps),
            (level, level * 0.97, level * 0.92),
            tuple(self.taken),
        )

    def _on_wall(self, index: int, at_m: float, off_m: float = 0.0) -> tuple[float, float, float]:
        """Give the place at a wall, so far along and off it, and the yaw that faces the room."""
        wide, long = self.wide, self.long
        start_x, start_y = ((0.0, 0.0), (wide, 0.0), (wide, long), (0.0, long))[index]
        yaw = index * math.pi / 2
        x = start_x + at_m * math.cos(yaw) - off_m * math.sin(yaw)
        return x, start_y + at_m * math.sin(yaw) + off_m * math.cos(yaw), yaw

    def _length(self, index: int) -> float:
        return self.wide if index % 2 == 0 else self.long

    def _put(self, piece: Piece, x: float, y: float, yaw: float, gap: float) -> bool:
        """Place a piece by the middle of its back, if it fits in and nothing stands there yet."""
        cos, sin = math.cos(yaw), math.sin(yaw)
        wide, deep = piece.width_m / 2, piece.deep_m / 2
        floor = Rectangle(
            x - sin * deep,
            y + cos * deep,
            wide * abs(cos) + deep * abs(sin),
            wide * abs(sin) + deep * abs(cos),
            highest_m(piece.solids),
        )
        fits = (
            abs(floor.x - self.wide / 2) + floor.half_x < self.wide / 2 + 1e-6
            and abs(floor.y - self.long / 2) + floor.half_y < self.long / 2 + 1e-6
        )
        if not fits or any(floor.overlaps(other, gap) for other in self.taken):
            return False
        self.taken.append(floor)
        self.solids.extend(placed(piece.solids, x, y, yaw))
        if piece.glow_m is not None:
            glow_x, glow_y, glow_z = piece.glow_m
            place = (x + glow_x * cos - glow_y * sin, y + glow_x * sin + glow_y * cos, glow_z)
            self.lamps.append(Lamp(place, (0.9, 0.7, 0.42), casts_shadows=False))
        return True

    def _along_walls(self) -> None:
        """Stand furniture against the walls, the most telling pieces first."""
        rng = self.rng
        for maker in SETS[self.kind]:
            if rng.random() < 0.12:
                continue
            piece = maker(rng)
            for _ in range(8):
                index = int(rng.integers(4))
                margin = piece.width_m / 2 + 0.03
                if 2 * margin > self._length(index):
                    continue
                at = float(rng.uniform(margin, self._length(index) - margin))
                if self._put(piece, *self._on_wall(index, at, 0.02), gap=0.06):
                    if maker is furniture.desk:
                        self._desk_chair(index, at, piece.deep_m)
                    break

    def _desk_chair(self, index: int, at_m: float, deep_m: float) -> None:
        """Put a turning chair before a desk, facing it more or less."""
        x, y, yaw = self._on_wall(index, at_m, deep_m + float(self.rng.uniform(0.25, 0.7)))
        turn = yaw + math.pi + float(self.rng.normal(0, 0.4))
        self._put(furniture.office_chair(self.rng), x, y, turn, -0.3)

    def _in_the_middle(self) -> None:
        """Put a table with chairs, or a low table on a rug, in the open floor."""
        rng = self.rng
        with_chairs = self.kind in _CHAIRS_AT
        piece = furniture.table(rng) if with_chairs else furniture.coffee_table(rng)
        for _ in range(10):
            x, y = rng.uniform((0.8, 0.8), (self.wide - 0.8, self.long - 0.8)).tolist()
            yaw = float(rng.integers(4)) * math.pi / 2 + float(rng.normal(0, 0.12))
            if not self._put(piece, x, y, yaw, 0.45):
                continue
            if with_chairs:
                self._chairs(piece, x, y, yaw)
            else:
                low, high = materials.vivid(rng, 0.5, 0.35), materials.vivid(rng, 0.4, 0.6)
                paint = Paint("ornament", low, high, (0.7, 0.7))
                rug = solid("box", (-1.0, -0.5, 0.0), (2.0, 1.6, 0.012), paint, casts_shadow=False)
                self.solids.extend(placed([rug], x, y, yaw))
            return

    def _chairs(self, piece: Piece, x: float, y: float, yaw: float) -> None:
        """Push one chair to either long side of a table, half under it."""
        rng, cos, sin = self.rng, math.cos(yaw), math.sin(yaw)
        for side in (-1, 1):
            off = piece.deep_m / 2 + side * (piece.deep_m / 2 + float(rng.uniform(0.3, 0.5)))
            slide = float(rng.uniform(-0.3, 0.3))
            turn = yaw + (math.pi if side > 0 else 0.0) + float(rng.normal(0, 0.2))
            chair_x, chair_y = x + slide * cos - off * sin, y + slide * sin + off * cos
            self._put(furniture.chair(rng), chair_x, chair_y, turn, -0.5)

    def _on_walls(self) -> None:
        """Set a window and a door, hang pictures, run skirting boards."""
        rng = self.rng
        frame = materials.plain(materials.pick(rng, ("#e8e4dc", "#6a4a30", "#f4f4f4")))
        for place, index in enumerate(rng.permutation(4).tolist()):
            length = self._length(index)
            middle = self._on_wall(index, length / 2)
            self.solids.extend(placed(fixtures.skirting_board(length, frame), *middle))
            at = float(rng.uniform(0.8, length - 0.8))
            if place == 0:
                parts, height, day = fixtures.window(rng, frame)
                self.solids.extend(placed(parts, *self._on_wall(index, at)))
                x, y, _ = self._on_wall(index, at, 0.4)
                power = (day * 0.8, day * 0.95, day * 1.1)
                self.lamps.append(Lamp((x, y, height), power, casts_shadows=False))
            elif place == 1:
                self.solids.extend(placed(fixtures.door(rng, frame), *self._on_wall(index, at)))
            else:
                for _ in range(int(rng.integers(0, 3))):
                    at = float(rng.uniform(0.5, length - 0.5))
                    self.solids.extend(placed(fixtures.picture(rng), *self._on_wall(index, at)))

    def _on_the_ceiling(self) -> None:
        """Hang one lamp, or two in a long room."""
        rng = self.rng
        count = 2 if self.long > 5 else 1
        for i in range(count):
            x = self.wide * float(rng.uniform(0.4, 0.6))
            y = self.long * (i + float(rng.uniform(0.4, 0.6))) / count
            solids, lamp = fixtures.ceiling_lamp(rng, x, y, self.tall)
            self.solids.extend(solids)
            self.lamps.append(lamp)
