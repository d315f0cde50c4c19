"""What a person sees while a run goes on: live bars on a terminal, lines with the time in a log."""

import datetime
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

LINE_EVERY_S = 10.0
"""Seconds between the plain lines of a stage that goes on."""
STILL_EVERY_S = 30.0
"""Seconds until a stage with nothing new to tell says that it still runs."""

STYLES = {
    "waits": "dim",
    "runs": "cyan",
    "done": "green",
    "cached": "green",
    "failed": "red",
    "killed": "red",
    "left out": "dim",
}
"""A stage's status -> how it is written."""


class RunDisplay:
    """The stages of a run and how far each is."""

    def __init__(self, stages: Sequence[str], console: Console | None = None) -> None:
        self.console = console or Console(width=None if sys.stdout.isatty() else 140)
        self._states = dict.fromkeys(stages, "waits")
        self._notes = dict.fromkeys(stages, "")
        self._started: dict[str, float] = {}
        self._last_line: dict[str, tuple[float, str]] = {}
        self._live: Live | None = None

    def __enter__(self) -> "RunDisplay":
        """Start drawing."""
        if self.console.is_terminal:
            self._live = Live(self._table(), console=self.console, refresh_per_second=4)
            self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        """Draw the last state and stop."""
        if self._live is not None:
            self._live.update(self._table())
            self._live.stop()

    def set(self, stage: str, state: str, note: str) -> None:
        """Move a stage to another status, with a word about it."""
        self._states[stage], self._notes[stage] = state, note
        self._started.setdefault(stage, time.monotonic())
        self._last_line[stage] = (time.monotonic(), note)
        if self._live is None:
            self._log(f"{stage:<16} {state:<7} {note}")
        else:
            self._live.update(self._table())

    def say(self, text: str) -> None:
        """Show a sentence above the stages."""
        if self._live is None:
            self._log(text)
        else:
            self.console.print(text, markup=False, highlight=False)

    def progress(self, snapshot: Mapping[str, Any]) -> None:
        """Show how far the running stages are."""
        for stage, state in self._states.items():
            if state == "runs" and stage in snapshot:
                self._notes[stage] = progress_text(snapshot[stage])
        if self._live is not None:
            self._live.update(self._table())
            return
        now = time.monotonic()
        for stage, state in self._states.items():
            last_time, last_note = self._last_line.get(stage, (self._started.get(stage, now), ""))
            note = self._notes[stage]
            is_new = note != last_note
            if state != "runs" or now - last_time < (LINE_EVERY_S if is_new else STILL_EVERY_S):
                continue
            self._last_line[stage] = (now, note)
            still = "" if is_new else f"  (still, {duration_text(now - self._started[stage])})"
            self._log(f"{stage:<16} runs    {note}{still}")

    def _log(self, text: str) -> None:
        """Write one line, however long, so that a search finds all of it."""
        line = f"{datetime.datetime.now():%Y-%m-%d %H:%M:%S}  {' '.join(text.splitlines())}"
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def _table(self) -> Table:
        table = Table.grid(padding=(0, 2))
        for stage, state in self._states.items():
            style = STYLES[state]
            since = ""
            if state == "runs":
                since = duration_text(time.monotonic() - self._started[stage])
            table.add_row(
                f"[{style}]{stage}[/]", f"[{style}]{state}[/]", since, escape(self._notes[stage])
            )
        return table


def progress_text(progress: Any) -> str:
    """Say how far: a bar, the count, the time left, the latest figures."""
    if progress.total <= 0:
        return str(progress.text)
    share = min(1.0, progress.done / progress.total)
    filled = round(share * 20)
    left = progress.eta_s()
    eta = f", {duration_text(left)} left" if left is not None and share < 1 else ""
    text = f"  {progress.text}" if progress.text else ""
    bar = "━" * filled + "─" * (20 - filled)
    return f"{bar} {progress.done:g}/{progress.total:g} {progress.unit}{eta}{text}"


def local_time(iso: str) -> str:
    """Write a time as the reader's clock shows it."""
    return f"{datetime.datetime.fromisoformat(iso).astimezone():%Y-%m-%d %H:%M:%S}"


def duration_text(seconds: float) -> str:
    """Write a duration as people say it: 8 s, 3 min 20 s, 2 h 05 min."""
    total = round(seconds)
    if total < 60:
        return f"{total} s"
    if total < 3600:
        return f"{total // 60} min {total % 60:02d} s"
    return f"{total // 3600} h {total % 3600 // 60:02d} min"
