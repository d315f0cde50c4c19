"""The verb ``gc``: objects of the store that nothing refers to any more.

A result's record refers to its objects; a run that is not done, to what Ray keeps for its
restart. All else below the pipeline's own prefixes is left over: of executions that died, of
results that were replaced, of runs that were forgotten. Other keys are never touched, but for what
interrupted writes left (``cluster.leftovers``), once it is a day old.
"""

import argparse
import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field

from pydantic import ValidationError
from rich.console import Console
from rich.progress import track

from cluster.errors import ObjectMissing
from cluster.leftovers import SAFE_AGE_S, Leftover, delete_leftover, find_leftovers
from cluster.storage import ObjectStore
from pipeline.errors import RunHeld, UsageMistake
from pipeline.gate import sweeping
from pipeline.launch import store_of
from pipeline.lease import holder_of, living_drivers
from pipeline.output import console, print_json, print_table
from pipeline.records import (
    all_records,
    failure_key,
    find_record,
    record_key,
    unreadable_records,
)
from pipeline.runs import (
    RunState,
    list_runs,
    load_attempts,
    unreadable_states,
)
from stages.shard_writer import ShardResult

PREFIXES = (
    "shards/",
    "shard_results/",
    "manifests/",
    "networks/",
    "pictures/",
    "reports/",
    "ray/",
    "records/",
    "claims/",
    "runs/",
)
"""What the pipeline writes."""


@dataclass
class Kept:
    """What must stay: whole keys, and beginnings of keys."""

    keys: set[str] = field(default_factory=set)
    beginnings: set[str] = field(default_factory=set)

    def has(self, key: str) -> bool:
        """Whether a key stays."""
        return key in self.keys or any(key.startswith(begin) for begin in self.beginnings)


def gc_verb(options: argparse.Namespace) -> int:
    """List what nothing refers to; with ``--delete`` delete it."""
    if options.keep_runs is not None and options.keep_runs < 0:
        raise UsageMistake(f"--keep-runs {options.keep_runs}: give 0 or more")
    store = store_of(options)
    leftovers = find_leftovers(store)
    # In an empty store nothing is worth a lease, for which a misspelt folder would be made.
    is_empty = not leftovers and next(iter(store.list_keys()), None) is None
    if is_empty or not options.delete:
        garbage = find_garbage(store, options.keep_runs)
        _report(store, garbage, leftovers, options.delete, options.json)
        return 0
    with sweeping(store) as lease:
        garbage = find_garbage(store, options.keep_runs)
        # Records before their objects: what is stopped half-way leaves no record without objects.
        order = sorted(garbage, key=lambda key: not key.startswith("records/"))
        for key in track(order, "deleting", console=Console(stderr=True), transient=True):
            if lease.lost_to:
                raise RunHeld(f"stopped half-way: the store was taken over by {lease.lost_to}")
            store.delete(key)
        leftovers = find_leftovers(store)
        for leftover in leftovers:
            if leftover.age_s >= SAFE_AGE_S:
                delete_leftover(store, leftover)
    _report(store, garbage, leftovers, True, options.json)
    return 0


def find_garbage(store: ObjectStore, keep_runs: int | None = None) -> dict[str, int]:
    """Return every key that nothing refers to, with its size in bytes.

    Args:
        store: what is looked through.
        keep_runs: forget all but this many of the newest runs, with the results that only they
            used; None = forget none, and keep every result.
    """
    unknown = [*unreadable_records(store), *unreadable_states(store)]
    if unknown:
        raise UsageMistake(
            f"{store.url}: {len(unknown)} records or states cannot be read, such as {unknown[0]}: "
            "another version of the project wrote them, or they are damaged. What they refer to is "
            "not known, so nothing is called left over: use that version, or delete these keys"
        )
    kept = what_to_keep(store, keep_runs)
    garbage = {}
    for prefix in PREFIXES:
        for key in store.list_keys(prefix):
            if not kept.has(key) and (info := store.stat(key)) is not None:
                garbage[key] = info.size_bytes
    return garbage


def what_to_keep(store: ObjectStore, keep_runs: int | None) -> Kept:
    """Return what runs and results refer to."""
    newest = list_runs(store)
    runs = newest if keep_runs is None else newest[:keep_runs]
    attempts = [attempt for run in runs for attempt in load_attempts(store, run.run_id)]
    used = {
        record_key(name, stage.fingerprint)
        for attempt in attempts
        for name, stage in attempt.stages.items()
        if stage.fingerprint
    }
    kept = Kept(beginnings={f"runs/{run.run_id}/" for run in runs})
    kept.keys |= {failure_key(name) for attempt in attempts for name in attempt.stages}
    for record in all_records(store):
        key = record_key(record.node, record.fingerprint.digest())
        if keep_runs is None or key in used:
            kept.keys |= {key, f"records/{record.node}/latest.json"}
            kept.keys |= {ref.key for ref in record.artifact.objects()}
    kept.beginnings |= set(_unfinished(store, attempts))
    kept.keys |= _held_claims(store) | set(_notes(store, kept))
    return kept


def _notes(store: ObjectStore, kept: Kept) -> Iterator[str]:
    """Yield the notes of sharding whose shards stay."""
    for key in store.list_keys("shard_results/"):
        with contextlib.suppress(ObjectMissing, ValidationError):
            result = ShardResult.model_validate_json(store.get_bytes(key))
            if result.shard is None or kept.has(result.shard.key):
                yield key


def _unfinished(store: ObjectStore, attempts: Iterable[RunState]) -> Iterator[str]:
    """Yield what the stages go on from that are not done.

    For a training that is where Ray keeps its checkpoints (``stages.trainer``); a sharding may go
    on from any shard.
    """
    for attempt in attempts:
        for name, stage in attempt.stages.items():
            mark = attempt.forced.get(name, "")
            record = find_record(store, name, stage.fingerprint) if stage.fingerprint else None
            if stage.fingerprint and (record is None or (mark and record.mark != mark)):
                if name.startswith("shard."):
                    yield from ("shards/", "shard_results/")
                parts = (attempt.run_id, name, stage.fingerprint[:12], mark)
                yield f"ray/{'-'.join(filter(None, parts))}"


def _held_claims(store: ObjectStore) -> set[str]:
    """Return the claims of drivers that may live."""
    owners = {holder.owner for holder in living_drivers(store)}
    claims = {key: holder_of(store, key) for key in store.list_keys("claims/")}
    return {key for key, holder in claims.items() if holder and holder.owner in owners}


def _report(
    store: ObjectStore,
    garbage: dict[str, int],
    leftovers: list[Leftover],
    deleted: bool,
    as_json: bool,
) -> None:
    if as_json:
        writes = [{**asdict(one), "is_old": one.age_s >= SAFE_AGE_S} for one in leftovers]
        print_json({"deleted": deleted, "objects": garbage, "interrupted_writes": writes})
        return
    old = [one.size_bytes for one in leftovers if one.age_s >= SAFE_AGE_S]
    sizes = {p: [n for key, n in garbage.items() if key.startswith(p)] for p in PREFIXES}
    sizes["interrupted writes"] = old
    rows = [(p, f"{len(n)}", f"{sum(n) / 1e6:.1f} MB") for p, n in sizes.items() if n]
    if rows:
        total = (
            f"{len(garbage) + len(old)} objects, {(sum(garbage.values()) + sum(old)) / 1e6:.1f} MB"
        )
        verb = "deleted" if deleted else "would be deleted; do it with --delete"
        print_table(f"{total} {verb}", ("prefix", "objects", "size"), rows)
    else:
        console().print(f"{store.url}: everything is referred to", soft_wrap=True)
    if young := len(leftovers) - len(old):
        console().print(f"{young} writes of the last day, perhaps not ended, are left alone")
