"""The verb ``diff``: what differs between two runs, by configuration, data, code and metrics."""

import argparse
import math
from collections.abc import Mapping
from typing import Any

from cluster.storage import ObjectStore
from cluster.tracking import flat
from pipeline.history import records_of
from pipeline.launch import store_of
from pipeline.output import console, print_json, print_table
from pipeline.records import StageRecord
from pipeline.runs import RunState, load_run

NOTHING = "-"


def diff_verb(options: argparse.Namespace) -> int:
    """Show what differs between two runs, and their figures side by side."""
    store = store_of(options)
    old, new = load_run(store, options.old), load_run(store, options.new)
    found = differences(store, old, new)
    if options.json:
        print_json({"old": old.name, "new": new.name, **found})
        return 0
    for part, rows in found.items():
        if not rows:
            console().print(f"{part}: no difference\n")
            continue
        print_table(
            f"{part} ({len(rows)})",
            ("", old.name, new.name, ""),
            [(row["name"], _text(row["old"]), _text(row["new"]), row["note"]) for row in rows],
        )
        console().print()
    return 0


def differences(
    store: ObjectStore, old: RunState, new: RunState
) -> dict[str, list[dict[str, Any]]]:
    """Compare two attempts.

    Returns:
        ``config``, ``data``, ``code``, ``libraries``, ``metrics``: rows of name, old, new, note.
    """
    before, after = records_of(store, old), records_of(store, new)
    # What a stage was made by says nothing beside a run that has not done it.
    both = [
        {name: record for name, record in records.items() if name in before and name in after}
        for records in (before, after)
    ]
    return {
        "config": _changed(flat(old.config), flat(new.config)),
        "data": _changed(_data(before), _data(after)),
        "code": _changed(_code(old, both[0]), _code(new, both[1])),
        "libraries": _changed(_libraries(both[0]), _libraries(both[1])),
        "metrics": _metrics(before, after),
    }


def _changed(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        {"name": name, "old": old.get(name), "new": new.get(name), "note": ""}
        for name in dict.fromkeys([*old, *new])
        if old.get(name) != new.get(name)
    ]


def _data(records: Mapping[str, StageRecord]) -> dict[str, Any]:
    """Return each split's frames and version."""
    found: dict[str, Any] = {}
    for name, record in records.items():
        artifact = record.artifact
        if artifact.kind != "shard_set":
            continue
        for split, shards in artifact.splits.items():
            version = shards.manifest.sha256[:12]
            found[f"{name} {split}"] = f"{shards.num_samples} frames, {version}"
        found[f"{name} left out"] = len(artifact.skipped)
    return found


def _code(state: RunState, records: Mapping[str, StageRecord]) -> dict[str, Any]:
    """Return the commit, and the digest of each file as each stage saw it."""
    found: dict[str, Any] = {"commit": state.tags.get("mlflow.source.git.commit", "")[:12]}
    for name, record in records.items():
        found |= {f"{name} {path}": digest for path, digest in record.fingerprint.code.items()}
    return found


def _libraries(records: Mapping[str, StageRecord]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, record in records.items():
        found |= {f"{name} {lib}": version for lib, version in record.fingerprint.libraries.items()}
    return found


def _metrics(
    before: Mapping[str, StageRecord], after: Mapping[str, StageRecord]
) -> list[dict[str, Any]]:
    """Return every figure of both runs; those of a stage that is the same in both are left out."""
    rows = []
    for name in dict.fromkeys([*before, *after]):
        old, new = before.get(name), after.get(name)
        if old and new and old.fingerprint.digest() == new.fingerprint.digest():
            continue
        ours = old.artifact.summary() if old else {}
        theirs = new.artifact.summary() if new else {}
        for metric in dict.fromkeys([*ours, *theirs]):
            a, b = ours.get(metric), theirs.get(metric)
            note = "" if a is None or b is None or not math.isfinite(b - a) else f"{b - a:+.4g}"
            rows.append({"name": f"{name} {metric}", "old": a, "new": b, "note": note})
    return rows


def _text(value: Any) -> str:
    if value is None:
        return NOTHING
    return f"{value:.4g}" if isinstance(value, float) else str(value)
