"""Light and patterns against one-point-at-a-time versions."""

import math

import numpy as np
import pytest

from densedepth.data.synthetic.camera import develop
from densedepth.data.synthetic.patterns import PATTERN_INDEX, PATTERNS, draw, sample
from densedepth.data.synthetic.raycast import cast
from densedepth.data.synthetic.shading import Lamp, shade
from densedepth.data.synthetic.solids import Paint, solid
from densedepth.data.synthetic.views import PinholeView, camera_rotation

GREY = Paint("plain", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def seen_floor(lamps: list[Lamp], extra: list) -> tuple[np.ndarray, np.ndarray]:
    """Look straight down on a floor; return the light and where each pixel's floor point is."""
    floor = solid("box", (-50.0, -50.0, -1.0), (100.0, 100.0, 1.0), GREY)
    rotation = camera_rotation(0.0, -math.pi / 2, 0.0)
    view = PinholeView(np.array([0.0, 0.0, 4.0]), rotation, (20.0, 20.0), (15.5, 15.5), (32, 32))
    directions = view.directions()
    hits = cast(view, [floor, *extra], directions)
    light = shade(view, [floor, *extra], hits, directions, lamps, ambient=(0.0, 0.0, 0.0))
    return light, np.moveaxis(directions * hits.distance, 0, -1) + view.origin_m


def test_light_follows_lamberts_law_and_falls_off() -> None:
    light, points = seen_floor([Lamp((1.0, 0.5, 2.0), (3.0, 2.0, 1.0))], [])
    for row, column in [(3, 3), (16, 16), (30, 9)]:
        to_lamp = np.array([1.0, 0.5, 2.0]) - points[row, column]
        squared = float(to_lamp @ to_lamp)
        arriving = (to_lamp[2] / math.sqrt(squared)) / (squared + 0.25)
        expected = 0.5 * arriving * np.array([3.0, 2.0, 1.0])
        np.testing.assert_allclose(light[row, column], expected, rtol=1e-3)


def test_the_sun_does_not_fall_off_and_leaves_sharp_shadows() -> None:
    sun = Lamp((600.0, 0.0, 600.0), (1.0, 1.0, 1.0), falls_off=False)
    wall = solid("box", (0.0, -9.0, 0.0), (0.1, 18.0, 1.0), GREY)
    light, points = seen_floor([sun], [wall])
    on_floor = points[..., 2] < 1e-3
    x = points[..., 0]
    lit = on_floor & ((x > 0.2) | (x < -1.2))
    dark = on_floor & (x < -0.2) & (x > -0.8)
    assert lit.sum() > 100
    assert dark.sum() > 50
    np.testing.assert_allclose(light[lit], 0.5 * math.sqrt(0.5), rtol=0.02)
    assert light[dark].max() == 0


@pytest.mark.parametrize("name", PATTERNS)
def test_patterns_are_pictures_with_some_structure(name: str) -> None:
    picture = draw(name)
    assert picture.shape == (256, 256)
    assert picture.min() >= 0
    assert picture.max() <= 1
    assert picture.std() > 0.01
    np.testing.assert_array_equal(picture, draw(name))


def test_sampling_blends_the_four_nearest_points_and_repeats() -> None:
    picture = draw("tiles")
    rng = np.random.default_rng(0)
    u, v = rng.uniform(-2, 2, (2, 50)).astype(np.float32)
    which = np.full(50, PATTERN_INDEX["tiles"])
    got = sample(which, u, v, np.zeros(50, np.float32))
    for i in range(50):
        x, y = float(u[i]) % 1 * 256 - 0.5, float(v[i]) % 1 * 256 - 0.5
        left, top = math.floor(x), math.floor(y)
        expected = 0.0
        for row, row_part in ((top, 1 - (y - top)), (top + 1, y - top)):
            for column, column_part in ((left, 1 - (x - left)), (left + 1, x - left)):
                expected += row_part * column_part * float(picture[row % 256, column % 256])
        assert got[i] == pytest.approx(expected, abs=2e-3)


def test_from_far_away_a_pattern_is_its_mean() -> None:
    which = np.full(8, PATTERN_INDEX["planks"])
    u = np.linspace(0, 1, 8, dtype=np.float32)
    got = sample(which, u, u, np.full(8, 4.0, np.float32))
    np.testing.assert_allclose(got, draw("planks").mean(), atol=1e-4)


def test_developing_exposes_to_the_wanted_brightness() -> None:
    light = np.random.default_rng(1).uniform(2, 4, (40, 50, 3)).astype(np.float32)
    dim, bright = (
        develop(light * scale, np.random.default_rng(0), brightness=level, noise=0.0, vignette=0.0)
        for scale, level in ((1.0, 0.1), (7.0, 0.4))
    )
    assert np.mean((dim / 255.0) ** 2.2) == pytest.approx(0.1, rel=0.05)
    assert np.mean((bright / 255.0) ** 2.2) == pytest.approx(0.4, rel=0.05)


def test_developing_adds_the_same_noise_for_the_same_seed() -> None:
    light = np.ones((20, 20, 3), np.float32)
    one, same, other = (
        develop(light, np.random.default_rng(seed), brightness=0.3) for seed in (5, 5, 6)
    )
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()
