"""What a person sees: plain lines in a log, bars with what is left, readable durations."""

import datetime
import io

import pytest
from rich.console import Console

from cluster.monitor import Progress
from pipeline import console as module
from pipeline.console import RunDisplay, duration_text, progress_text


def progress(done: float, total: float, text: str = "loss 0.2", elapsed_s: float = 30.0):
    return Progress(
        stage="train.nyu", done=done, total=total, unit="steps", text=text, elapsed_s=elapsed_s
    )


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59.4, "59 s"), (60, "1 min 00 s"), (200, "3 min 20 s"), (7500, "2 h 05 min")],
)
def test_durations_are_written_as_people_say_them(seconds, text):
    assert duration_text(seconds) == text


def test_progress_says_how_far_how_long_still_and_the_latest_figures():
    text = progress_text(progress(25, 100))
    assert "━━━━━───────────────" in text
    assert "25/100 steps, 1 min 30 s left" in text
    assert text.endswith("loss 0.2")


def test_no_time_is_promised_before_anything_is_done():
    assert "left" not in progress_text(progress(0, 100))
    assert progress_text(progress(0, 0, "starting 2 workers")) == "starting 2 workers"


def test_a_log_gets_a_line_per_change_and_not_per_poll(monkeypatch):
    text = io.StringIO()
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    with RunDisplay(["train.nyu"], Console(file=text, width=140)) as display:
        display.set("train.nyu", "runs", "never run")
        for second in range(1, 31):
            now[0] = float(second)
            display.progress({"train.nyu": progress(second, 30)})
        display.set("train.nyu", "done", "in 30 s")
    lines = text.getvalue().splitlines()
    assert lines[0].split()[2:] == ["train.nyu", "runs", "never", "run"]
    assert [line.split("steps")[0].split()[-1] for line in lines[1:-1]] == [
        "10/30",
        "20/30",
        "30/30",
    ]
    assert lines[-1].split()[2:] == ["train.nyu", "done", "in", "30", "s"]


def test_every_line_of_a_log_begins_with_the_time_and_is_whole():
    text = io.StringIO()
    with RunDisplay(["train.nyu"], Console(file=text, width=60)) as display:
        before = datetime.datetime.now().replace(microsecond=0)
        display.set("train.nyu", "failed", "a long reason " * 20 + "\nin two lines")
        display.say("waiting: another driver works on it")
    failed, said = text.getvalue().splitlines()
    for line in (failed, said):
        when = datetime.datetime.strptime(line[:19], "%Y-%m-%d %H:%M:%S")
        assert before <= when <= datetime.datetime.now()
    assert failed.endswith("a long reason  in two lines")
    assert said[19:] == "  waiting: another driver works on it"


def test_a_stage_with_nothing_new_to_tell_says_that_it_still_runs(monkeypatch):
    text = io.StringIO()
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    with RunDisplay(["train.nyu"], Console(file=text, width=140)) as display:
        display.set("train.nyu", "runs", "never run")
        for second in range(1, 76):
            now[0] = float(second)
            display.progress({"train.nyu": progress(0, 0, "starting 2 workers")})
    said = [line.split("runs")[1].strip() for line in text.getvalue().splitlines()]
    assert said == [
        "never run",
        "starting 2 workers",
        "starting 2 workers  (still, 40 s)",
        "starting 2 workers  (still, 1 min 10 s)",
    ]


def test_a_terminal_gets_one_row_per_stage():
    console = Console(file=io.StringIO(), width=120, force_terminal=True)
    display = RunDisplay(["a", "b"], console)
    with display:
        display.set("a", "runs", "[x] changed")
    drawn = console.file.getvalue()
    assert "[x] changed" in drawn
    assert "waits" in drawn
