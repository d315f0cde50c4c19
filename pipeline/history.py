"""The verbs that look at runs: ``status``, ``list``, ``show``. They read the store, no more."""

import argparse
import contextlib
import datetime
import time
from collections.abc import Mapping
from typing import Any

from rich.console import Group
from rich.live import Live
from rich.text import Text

from cluster.storage import ObjectStore
from pipeline.console import STYLES, duration_text, local_time
from pipeline.errors import UsageMistake
from pipeline.launch import store_of
from pipeline.lease import BEAT_S, DEAD_AFTER_S, Watch, lease_key
from pipeline.output import console, make_table, print_json, print_table
from pipeline.records import StageRecord, find_record
from pipeline.results import METRICS, places
from pipeline.runs import RunState, is_alive, list_runs, load_events, load_run

PATIENCE_S = DEAD_AFTER_S + BEAT_S
"""Seconds after which it is known whether a driver elsewhere lives."""
DIED = "died"
"""Status of an attempt whose driver is gone without a word."""


def status_verb(options: argparse.Namespace) -> int:
    """Show how a run stands; with ``--follow`` until it has ended, in JSON a line per change."""
    store = store_of(options)
    state = _chosen(store, options.run)
    watch = Watch(store, lease_key(state.run_id))
    if not options.follow:
        status = standing(store, state, watch, patience_s=PATIENCE_S)
        if options.json:
            print_json(_facts(state, status))
        else:
            console().print(_page(state, status))
        return 0
    with contextlib.nullcontext() if options.json else Live(refresh_per_second=4) as live:
        last = None
        while True:
            status = standing(store, state, watch)
            if live is not None:
                live.update(_page(state, status))
            elif (state, status) != last:
                print_json(_facts(state, status), one_line=True)
                last = (state, status)
            if status != "running":
                return 0
            time.sleep(1.0)
            state = load_run(store, state.name)


def list_verb(options: argparse.Namespace) -> int:
    """Show every run's last attempt."""
    store = store_of(options)
    rows: list[dict[str, Any]] = []
    for state in list_runs(store):
        done = sum(stage.status in ("done", "cached") for stage in state.stages.values())
        rows.append(
            {
                "run": state.run_id,
                "attempt": state.attempt,
                "status": standing(store, state),
                "started_at": state.started_at,
                "seconds": seconds_of(state),
                "stages_done": done,
                "stages": len(state.stages),
                "commit": state.tags.get("mlflow.source.git.commit", ""),
                "figures": figures_of(store, state),
            }
        )
    if options.json:
        print_json(rows)
        return 0
    if not rows:
        console().print(f"no runs yet in {store.url}", soft_wrap=True)
        return 0
    print_table(
        f"{len(rows)} run{'s' if len(rows) != 1 else ''} in {store.url}",
        ("run", "status", "started", "took", "stages", "commit", "figures"),
        [
            (
                f"{row['run']}@{row['attempt']}",
                row["status"],
                local_time(row["started_at"]),
                duration_text(row["seconds"]),
                f"{row['stages_done']}/{row['stages']}",
                row["commit"][:8],
                "  ".join(f"{k} {v:.3f}" for k, v in row["figures"].items()),
            )
            for row in rows
        ],
        [STATUS_STYLES.get(row["status"], "") for row in rows],
    )
    return 0


def show_verb(options: argparse.Namespace) -> int:
    """Show one run: what each stage did and left."""
    store = store_of(options)
    state = load_run(store, options.run)
    status = standing(store, state, patience_s=PATIENCE_S)
    records = records_of(store, state)
    if options.json:
        facts = {**_facts(state, status), "store": store.url}
        facts["results"] = {
            name: {
                "summary": record.artifact.summary(),
                "objects": [ref.model_dump() for ref in record.artifact.objects()],
                "finished_at": record.finished_at,
                "made_by": record.run_id,
            }
            for name, record in records.items()
        }
        facts["events"] = load_events(store, state)
        facts["config"] = state.config
        print_json(facts)
        return 0
    out = console()
    out.print(_page(state, status))
    rows = [
        (name, f"{len(record.artifact.objects())}", _short(record.artifact.summary()))
        for name, record in records.items()
    ]
    if rows:
        out.print()
        print_table("Results", ("stage", "objects", "figures"), rows)
        for what, where in places(store, {n: record.artifact for n, record in records.items()}):
            out.print(f"{what:<9}{where}", markup=False, soft_wrap=True)
    if options.events:
        out.print()
        events = load_events(store, state)
        print_table(
            "Events",
            ("at", "event", "stage", ""),
            [
                (local_time(e["at"]), e["event"], e.get("stage", ""), e.get("note", ""))
                for e in events
            ],
        )
    if options.config:
        out.print()
        print_json(state.config)
    return 0


STATUS_STYLES = {
    "running": "cyan",
    "finished": "green",
    "failed": "red",
    "killed": "red",
    DIED: "red",
}


def standing(
    store: ObjectStore, state: RunState, watch: Watch | None = None, patience_s: float = 0.0
) -> str:
    """Return an attempt's status; ``died`` where its driver is gone.

    Args:
        store: where the run is.
        state: the attempt.
        watch: remembers earlier looks at the driver's lease.
        patience_s: how long to watch a driver on another machine for its next heartbeat.
    """
    watch = watch or Watch(store, lease_key(state.run_id))
    until = time.monotonic() + patience_s
    while (lives := is_alive(store, state, watch)) is None and time.monotonic() < until:
        time.sleep(0.3)
    return DIED if state.status == "running" and lives is False else state.status


def records_of(store: ObjectStore, state: RunState) -> dict[str, StageRecord]:
    """Return the records of an attempt's stages, as far as they are done."""
    found = {
        name: find_record(store, name, stage.fingerprint)
        for name, stage in state.stages.items()
        if stage.fingerprint and stage.status in ("done", "cached")
    }
    return {name: record for name, record in found.items() if record is not None}


def figures_of(store: ObjectStore, state: RunState) -> dict[str, float]:
    """Return delta1 of each data set that an attempt evaluated."""
    return {
        name.partition(".")[2]: record.artifact.summary()["per_image_delta1"]
        for name, record in records_of(store, state).items()
        if record.artifact.kind == "eval_report"
    }


def seconds_of(state: RunState) -> float:
    """Return how long an attempt took, or has been taking."""
    started = datetime.datetime.fromisoformat(state.started_at)
    ended = datetime.datetime.now(datetime.UTC)
    if state.ended_at:
        ended = datetime.datetime.fromisoformat(state.ended_at)
    return (ended - started).total_seconds()


def _chosen(store: ObjectStore, name: str | None) -> RunState:
    if name:
        return load_run(store, name)
    runs = list_runs(store)
    if not runs:
        raise UsageMistake(f"no runs yet in {store.url}")
    return runs[0]


def _facts(state: RunState, status: str) -> dict[str, Any]:
    facts = state.model_dump(mode="json", exclude={"config", "owner"})
    return {**facts, "status": status, "seconds": seconds_of(state)}


def _page(state: RunState, status: str) -> Group:
    style = STATUS_STYLES.get(status, "")
    took = duration_text(seconds_of(state))
    heading = Text.assemble(
        f"{state.name}  ", (status, style), f"  {took}, since {local_time(state.started_at)}, "
        f"process {state.pid} on {state.host}"
    )  # fmt: skip
    facts = [f"preset {state.tags.get('depth.preset', '?')}"]
    facts.append(f"commit {state.tags.get('mlflow.source.git.commit', '?')[:12]}")
    if state.mlflow_run_id:
        facts.append(f"MLflow run {state.mlflow_run_id}")
    rows, styles = [], []
    for name, stage in state.stages.items():
        shown = DIED if status == DIED and stage.status == "runs" else stage.status
        tries = f"{stage.tries} tries" if stage.tries > 1 else ""
        took = "" if stage.seconds is None else duration_text(stage.seconds)
        rows.append((name, shown, took, tries, stage.note))
        styles.append("red" if shown == DIED else STYLES[stage.status])
    parts: list[Any] = [heading, Text(", ".join(facts), style="dim")]
    parts.append(make_table(("stage", "status", "took", "", "note"), rows, styles))
    if status in (DIED, "killed", "failed"):
        parts.append(Text(f"Go on with it: python -m pipeline resume {state.run_id}"))
    return Group(*parts)


def _short(summary: Mapping[str, float]) -> str:
    wanted = [f"per_image_{metric}" for metric in METRICS]
    shown = {k: v for k, v in summary.items() if k in wanted} or summary
    return ", ".join(f"{name} {value:.4g}" for name, value in list(shown.items())[:6])
