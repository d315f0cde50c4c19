"""Progress: how far a stage is, how long it still takes, which rank is silent."""

import pytest

from cluster import monitor
from cluster.monitor import Beat, Monitor, MonitorHandle
from cluster.tracking import TrackingConfig


@pytest.fixture
def now(monkeypatch) -> list[float]:
    """The time, in its only place."""
    seconds = [0.0]
    monkeypatch.setattr(monitor.time, "monotonic", lambda: seconds[0])
    return seconds


def test_trials_speak_beside_their_stages_count():
    handle = MonitorHandle(Monitor(TrackingConfig()), remote=False)
    handle.progress("ablate.nyu", 1, 4, "trials")
    handle.say("ablate.nyu", "baseline: 3/8 steps")
    shown = handle.snapshot()["ablate.nyu"]
    assert (shown.done, shown.total, shown.text) == (1, 4, "baseline: 3/8 steps")


def test_another_unit_starts_another_clock(now):
    mine = Monitor(TrackingConfig())
    mine.progress("shard.nyu", 1, 600, "scenes", "")
    now[0] = 60.0
    mine.progress("shard.nyu", 0, 100, "frames", "")
    now[0] = 62.0
    mine.progress("shard.nyu", 10, 100, "frames", "")
    assert mine.snapshot()["shard.nyu"].eta_s() == pytest.approx(18.0)


def test_words_move_the_clock_and_a_ranks_silence_is_counted(now):
    mine = Monitor(TrackingConfig())
    mine.progress("ablate.nyu", 0, 4, "trials", "")
    mine.progress("ablate.nyu", 1, 4, "trials", "")
    mine.beat("key", 3, Beat(node="n", pid=1, doing="step", step=5, seconds=2.0))
    now[0] = 60.0
    mine.say("ablate.nyu", "baseline: 3/8 steps")
    assert mine.snapshot()["ablate.nyu"].eta_s() == pytest.approx(180.0)
    assert mine.beats("key")[3].silent_s == 60.0


def test_a_resumed_training_promises_time_by_what_it_did_itself(now):
    mine = Monitor(TrackingConfig())
    mine.progress("train.nyu", 90, 100, "steps", "")
    now[0] = 10.0
    mine.progress("train.nyu", 95, 100, "steps", "")
    assert mine.snapshot()["train.nyu"].eta_s() == pytest.approx(10.0)
