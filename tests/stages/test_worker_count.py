"""How many workers a training has: by what is free, and for how long it waits, by a set clock."""

import math

import pytest

from cluster.errors import NoRoom
from stages.worker_count import ASK_S, ENOUGH_S, SETTLE_S, WorkerCount

CPU = {"CPU": 1.0}


def count(least=2, most=4, each=CPU, max_wait_s=None, **settings) -> WorkerCount:
    return WorkerCount(least, most, each, max_wait_s, "train.rooms", **settings)


def nodes(*cpus: float) -> list[dict[str, float]]:
    return [{"CPU": amount} for amount in cpus]


@pytest.mark.parametrize(
    ("each", "free", "expected"),
    [
        (CPU, nodes(2, 1, 0), 3),
        ({"CPU": 2.0}, nodes(1, 1, 3), 1),
        ({"CPU": 0.1}, nodes(0.1 + 0.2, 0.3), 6),
        ({"CPU": 4.0, "GPU": 1}, [{"CPU": 64.0, "GPU": 2.0}, {"CPU": 7.0, "GPU": 4.0}], 3),
        ({"CPU": 1.0, "GPU": 1}, nodes(8), 0),
        (CPU, [{"memory": 1e9}], 0),
        (CPU, [], 0),
    ],
)
def test_a_worker_has_room_where_one_node_has_all_that_it_needs(each, free, expected):
    assert count(each=each).fitting(free) == expected


def test_all_workers_start_at_once_where_there_is_room():
    assert count().start(nodes(3, 3), now_s=50.0) == 4
    assert count(4, 4).start(nodes(4), now_s=50.0) == 4


def test_a_training_makes_do_with_fewer_when_no_more_have_come_for_a_while():
    waiting = count()
    assert waiting.start(nodes(1), now_s=0.0) == 0
    assert waiting.start(nodes(2), now_s=100.0) == 0
    assert waiting.start(nodes(2), now_s=100.0 + SETTLE_S - 1) == 0
    assert waiting.start(nodes(2, 1), now_s=100.0 + SETTLE_S) == 0, "another has come"
    assert waiting.start(nodes(2, 1), now_s=100.0 + 2 * SETTLE_S) == 3


def test_room_that_is_enough_and_changes_without_end_is_taken_in_the_end():
    waiting, enough_s = count(max_wait_s=600.0), 100.0
    assert waiting.start(nodes(1), now_s=0.0) == 0
    seconds = [enough_s + s for s in range(0, int(ENOUGH_S), 5)]
    rooms = [2 + i % 2 for i in range(len(seconds))]
    started = [waiting.start(nodes(*[1] * room), s) for room, s in zip(rooms, seconds, strict=True)]
    assert started == [0] * len(rooms)
    assert waiting.start(nodes(1), seconds[-1] + 1) == 0, "too few: it begins anew"
    assert waiting.start(nodes(2), seconds[-1] + 2) == 0
    assert waiting.start(nodes(3), seconds[-1] + 2 + ENOUGH_S - 1) == 0
    assert waiting.start(nodes(2), seconds[-1] + 2 + ENOUGH_S) == 2


def test_a_training_of_a_fixed_size_waits_for_all_of_its_workers():
    waiting = count(3, 3)
    assert [waiting.start(nodes(2), now_s=float(s)) for s in (0, 1000, 100_000)] == [0, 0, 0]
    assert waiting.start(nodes(2, 1), now_s=100_001.0) == 3


@pytest.mark.parametrize("least", [2, 4])
def test_a_wait_ends_with_what_was_asked_for_and_what_there_is(least):
    waiting = count(least, each={"CPU": 2.0}, max_wait_s=90.0)
    assert waiting.start(nodes(1, 3), now_s=1000.0) == 0
    assert waiting.start(nodes(1, 3), now_s=1090.0) == 0
    wanted = "2 to 4" if least == 2 else "4"
    with pytest.raises(
        NoRoom,
        match=rf"^train\.rooms: waited 1\.5 min for {wanted} workers of 2 CPU each; there is room "
        r"for 1, free by node: CPU 3, 1\. .*lower num_workers.*max_wait_min",
    ):
        waiting.start(nodes(1, 3), now_s=1090.1)


def test_a_short_wait_leaves_time_to_start_with_fewer():
    waiting, changing = count(max_wait_s=4.0), count(max_wait_s=4.0)
    assert waiting.start(nodes(2), now_s=0.0) == 0
    assert waiting.start(nodes(2), now_s=2.0) == 2
    assert [changing.start(nodes(2 + s % 2), now_s=float(s)) for s in range(3)] == [0, 0, 2]


def test_room_that_ray_does_not_give_is_not_asked_for_without_end():
    waiting = count(max_wait_s=60.0)
    assert waiting.start(nodes(4), now_s=0.0) == 4
    assert waiting.start(nodes(4), now_s=21.0) == 4
    with pytest.raises(NoRoom, match="room for 4"):
        waiting.start(nodes(4), now_s=63.0)


def test_each_wait_begins_anew_after_the_workers_have_run():
    waiting = count(max_wait_s=60.0)
    waiting.start(nodes(1), now_s=0.0)
    waiting.start(nodes(4), now_s=50.0)
    assert waiting.grow(4, True, lambda: nodes(4), now_s=55.0) == 4
    assert waiting.start(nodes(1), now_s=500.0) == 0
    assert waiting.start(nodes(1), now_s=560.0) == 0
    with pytest.raises(NoRoom, match="waited 1"):
        waiting.start(nodes(1), now_s=561.0)


def test_a_training_grows_to_what_has_room_after_a_while_and_never_shrinks_by_itself():
    running, every_s = count(grow_every_s=60.0), 60.0

    def grown(num_running: int, now_s: float, *cpus: float) -> int:
        return running.grow(num_running, True, lambda: nodes(*cpus), now_s)

    running.start(nodes(2), now_s=0.0)
    assert grown(2, 20.0, 3) == 2, "it has just begun"
    assert grown(2, 19.0 + every_s, 3) == 2
    assert grown(2, 20.0 + every_s, 1, 0.5) == 2
    assert grown(2, 30.0 + every_s, 3) == 2, "it has just looked"
    assert grown(2, 20.0 + 2 * every_s, 3) == 3
    assert grown(3, 20.0 + 3 * every_s, 9) == 4


def test_a_training_grows_only_when_its_state_has_just_been_saved():
    running = count()
    assert running.grow(2, False, lambda: nodes(4), now_s=1e6) == 2
    assert running.grow(2, True, lambda: nodes(4), now_s=1e6 + 1) == 4


def test_a_training_that_has_all_its_workers_does_not_look_for_more():
    def looks() -> list[dict[str, float]]:
        raise AssertionError("it looked")

    assert count().grow(4, True, looks, now_s=math.inf) == 4


def test_a_waiting_training_asks_for_its_least_number_of_workers_together():
    assert count(2, 4).wanted(0, now_s=0.0) == 2
    assert count(4, 4).wanted(0, now_s=1e6) == 4


def test_a_training_that_runs_with_fewer_asks_for_one_more_for_a_moment_after_each_look():
    running, full = count(grow_every_s=60.0), nodes(2)
    running.start(full, now_s=0.0)
    for looked_s in (20.0, 80.0, 140.0):
        assert running.grow(2, True, lambda: full, looked_s) == 2
        asked = [running.wanted(2, looked_s + after_s) for after_s in (0.0, ASK_S - 1, ASK_S, 59.0)]
        assert asked == [1, 1, 0, 0]
    assert running.wanted(4, 140.0) == 0, "it has all its workers"
