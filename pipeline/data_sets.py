"""Which stored data sets a command means: the latest of each, a run's, a preset's, or all."""

import argparse
import re
import sys
from collections import Counter
from collections.abc import Iterable

from cluster.storage import ObjectStore, open_store
from pipeline.config import PipelineConfig, load_config
from pipeline.errors import UsageMistake
from pipeline.history import records_of
from pipeline.launch import store_of
from pipeline.records import StageRecord, latest_record, node_records
from pipeline.runs import load_run

_RECORD = re.compile(r"records/(shard\.[^/]+)/(?!latest\.json|failed\.json)[^/]+")


def chosen_data_sets(options: argparse.Namespace) -> tuple[ObjectStore, dict[str, StageRecord]]:
    """Find the store and the records of the data sets that a command means.

    Args:
        options: ``preset``, ``overrides``, ``store``, ``run``, ``all``, ``dataset``.

    Returns:
        The store, and name -> record. A name is the branch's, with the beginning of the record's
        fingerprint behind it where several are of one branch.

    Raises:
        UsageMistake: there are none, or the command contradicts itself.
    """
    preset, overrides = options.preset, options.overrides
    if preset is not None and "=" in preset:
        preset, overrides = None, [preset, *overrides]
    if sum((preset is not None, bool(options.run), options.all)) > 1:
        raise UsageMistake("a preset, --run and --all each choose data sets: give one of them")
    config = load_config(preset or "demo", overrides) if preset or not options.store else None
    store = store_of(options) if options.store or config is None else open_store(config.store)
    count = Counter(m[1] for key in store.list_keys("records/shard.") if (m := _RECORD.match(key)))
    if options.run:
        state = load_run(store, options.run)
        found = [r for r in records_of(store, state).values() if r.artifact.kind == "shard_set"]
        where = f"{state.name} in {store.url}"
    elif options.all:
        found = [record for node in sorted(count) for record in node_records(store, node)]
        where = store.url
    elif preset is not None and config is not None:
        found, where = _of_preset(store, config), f"{store.url}, by the settings of {preset},"
    else:
        found = [r for node in sorted(count) if (r := latest_record(store, node)) is not None]
        where = store.url
    if not found:
        there = ", ".join(f"{n} of {node.partition('.')[2]}" for node, n in sorted(count.items()))
        raise UsageMistake(
            f"{where} has no sharded data set"
            + (f"; the store has {there}: see --all, --run" if there else "")
            + ": run the pipeline first, or name the store by --store or store=..."
        )
    wanted = [r for r in found if options.dataset in (None, _branch(r))]
    if not wanted:
        have = ", ".join(dict.fromkeys(map(_branch, found)))
        raise UsageMistake(f"{where} has no data set {options.dataset!r}; it has {have}")
    others = sum(count[node] for node in {r.node for r in wanted}) - len(wanted)
    if others > 0 and preset is None and not options.run:
        text = f"{others} older data set{'s' if others > 1 else ''} left out: see --all, --run\n"
        sys.stderr.write(text)
    return store, _named(wanted)


def _of_preset(store: ObjectStore, config: PipelineConfig) -> list[StageRecord]:
    """Return of each of a preset's branches what was made last by these settings."""
    found = []
    for branch, settings in config.shard.items():
        made = [
            record
            for record in node_records(store, f"shard.{branch}")
            if record.fingerprint.config == settings.deciding()
        ]
        found += sorted(made, key=lambda record: record.finished_at)[-1:]
    return found


def _named(records: Iterable[StageRecord]) -> dict[str, StageRecord]:
    ordered = sorted(records, key=lambda record: (record.node, record.finished_at))
    count = Counter(record.node for record in ordered)
    return {
        _branch(r) + (f"-{r.fingerprint.digest()[:8]}" if count[r.node] > 1 else ""): r
        for r in ordered
    }


def _branch(record: StageRecord) -> str:
    return record.node.partition(".")[2]
