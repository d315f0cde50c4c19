"""The verb ``verify``: read every object that a result names, and compare size and digest."""

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from cluster.errors import ObjectCorrupt, ObjectMissing
from cluster.storage import ObjectRef, ObjectStore
from pipeline.errors import FINDINGS, UsageMistake
from pipeline.history import records_of
from pipeline.launch import store_of
from pipeline.output import console, print_json, print_table
from pipeline.records import StageRecord, all_records, unreadable_records
from pipeline.runs import load_run


def verify_verb(options: argparse.Namespace) -> int:
    """Verify a run's results, or all that are recorded; say what is missing or damaged."""
    store = store_of(options)
    if options.run:
        records = list(records_of(store, load_run(store, options.run)).values())
    else:
        records = list(all_records(store))
    objects = named_by(records)
    total = sum(ref.size_bytes for ref in objects)
    damaged = [
        {"key": key, "stages": key.split("/")[1], "problem": f"{store.url_of(key)} cannot be read"}
        for key in ([] if options.run else unreadable_records(store))
    ]
    if not options.run and not records and not damaged:  # as well where a store is misspelt
        raise UsageMistake(f"no results yet in {store.url}: there is nothing to verify")
    err = Console(stderr=True)
    with Progress(console=err, transient=True, disable=not err.is_terminal) as progress:
        task = progress.add_task("verifying", total=max(1, total))
        for ref, problem in check(store, objects):
            progress.advance(task, ref.size_bytes)
            if problem:
                stages = ", ".join(sorted(objects[ref]))
                damaged.append({"key": ref.key, "stages": stages, "problem": problem})
    if options.json:
        print_json({"objects": len(objects), "size_bytes": total, "damaged": damaged})
    elif damaged:
        print_table(
            f"{len(damaged)} objects or records are not what they should be; running the same "
            "command again makes them anew",
            ("stage", "problem"),
            [(row["stages"], row["problem"]) for row in damaged],
        )
    else:
        console().print(
            f"{len(objects)} objects of {len(records)} results, {total / 1e6:.1f} MB: all as they "
            "should be"
        )
    return FINDINGS if damaged else 0


def named_by(records: list[StageRecord]) -> dict[ObjectRef, set[str]]:
    """Return every object that the records' artifacts name, with the stages that do."""
    found: dict[ObjectRef, set[str]] = {}
    for record in records:
        for ref in record.artifact.objects():
            found.setdefault(ref, set()).add(record.node)
    return found


def check(
    store: ObjectStore, objects: dict[ObjectRef, set[str]]
) -> Iterator[tuple[ObjectRef, str]]:
    """Read objects and yield each with what is wrong with it, or nothing."""
    for ref in objects:
        problem = ""
        with tempfile.TemporaryDirectory(prefix="verify-") as folder:
            try:
                store.fetch(ref, Path(folder))
            except (ObjectMissing, ObjectCorrupt) as error:
                problem = f"{error.url}: {error.reason}"
        yield ref, problem
