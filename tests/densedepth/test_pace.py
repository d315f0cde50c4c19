"""The host stays near the GPU, and leaves it something to do."""

import pytest
import torch

from densedepth.pace import STEPS_AHEAD, Pace
from tests.densedepth.small_training import make_learner, train


def test_on_the_cpu_nothing_is_waited_for(monkeypatch):
    made = []
    monkeypatch.setattr(torch.cuda, "Event", lambda blocking: made.append(blocking))
    pace = Pace(torch.device("cpu"))
    for _ in range(STEPS_AHEAD + 2):
        pace.step_queued()
    assert made == []


def test_each_step_is_waited_for_when_two_more_are_queued(monkeypatch):
    told = []

    class Event:
        def __init__(self, blocking: bool) -> None:
            assert blocking

        def record(self, stream: str) -> None:
            self.number = sum(what == "queued" for what, _ in told)
            told.append(("queued", self.number))

        def synchronize(self) -> None:
            told.append(("done", self.number))

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: str(device))
    pace = Pace(torch.device("cuda", 0))
    for _ in range(4):
        pace.step_queued()
    queued = [("queued", number) for number in range(4)]
    assert told == [*queued[:3], ("done", 0), queued[3], ("done", 1)]


def test_the_loop_keeps_the_pace_after_each_step(monkeypatch):
    learner, steps = make_learner(), []
    monkeypatch.setattr(Pace, "step_queued", lambda pace: steps.append(learner.step))
    train(learner, 2)
    assert steps == [1, 2, 3, 4, 5, 6]


@pytest.mark.gpu
def test_a_gpu_has_a_step_left_when_the_host_goes_on():
    device = torch.device("cuda")
    side, pace, done = torch.randn(4096, 4096, device=device), Pace(device), []
    for _ in range(6):
        for _ in range(20):
            side = (side @ side).clamp(-1, 1)
        done.append(torch.cuda.Event())
        done[-1].record()
        pace.step_queued()
        assert not done[-1].query()
        assert all(event.query() for event in done[:-STEPS_AHEAD])
