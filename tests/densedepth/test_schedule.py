"""The learning rate's schedules, at the places that can be told by hand."""

import pytest

from densedepth.schedule import Schedule


@pytest.mark.parametrize(
    ("kind", "warmup", "step", "expected"),
    [
        ("constant", 0, 0, 1.0),
        ("constant", 0, 99, 1.0),
        ("constant", 10, 0, 0.1),
        ("constant", 10, 9, 1.0),
        ("cosine", 0, 0, 1.0),
        ("cosine", 0, 50, 0.505),
        ("cosine", 0, 100, 0.01),
        ("cosine", 0, 150, 0.01),
        ("cosine", 20, 60, 0.505),
        ("one_cycle", 0, 0, 0.04),
        ("one_cycle", 0, 15, 0.52),
        ("one_cycle", 0, 30, 1.0),
        ("one_cycle", 0, 65, 0.505),
        ("one_cycle", 0, 100, 0.01),
        ("one_cycle", 50, 50, 1.0),
        ("step", 0, 39, 1.0),
        ("step", 0, 40, 0.1),
        ("step", 0, 80, 0.01),
        ("step", 10, 4, 0.5),
    ],
)
def test_the_rate_follows_its_schedule(kind, warmup, step, expected):
    schedule = Schedule(100, kind, warmup, 0.01, drop_every_steps=40, drop_factor=0.1)
    assert schedule.factor(step) == pytest.approx(expected)


def test_a_schedule_in_steps_needs_their_length():
    with pytest.raises(ValueError, match="drop_every_steps"):
        Schedule(100, "step")
