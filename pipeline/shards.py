"""Look after stored data sets: ``python -m pipeline shards info|verify|repair|preview|export``.

Without a preset, the data sets are the latest of each name that the store holds; ``--run`` chooses
those of a run, ``--all`` older ones too. Exit codes: 0 all is well, 1 something is damaged, 2 a
mistake in the command line, 5 the store fails.
"""

import argparse
import functools
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from cluster.storage import ObjectStore
from pipeline.arguments import Parser
from pipeline.config import outputs_root, preset_names
from pipeline.console import local_time
from pipeline.data_sets import chosen_data_sets
from pipeline.errors import PipelineError, UsageMistake
from pipeline.output import console
from pipeline.records import StageRecord
from stages.artifacts import ShardSet
from stages.shard import ShardConfig, raw_data
from stages.shard_check import Damage, check, num_bytes
from stages.shard_repair import repair
from stages.shard_view import contact_sheet, describe, export

_MB = 1_000_000


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says; return the exit code."""
    options = _parser().parse_intermixed_args(arguments)
    store, records = chosen_data_sets(options)
    action: Callable[[argparse.Namespace, ObjectStore, Mapping[str, StageRecord]], int] = {
        "info": _info,
        "verify": _verify,
        "repair": _repair,
        "preview": _preview,
        "export": _export,
    }[options.action]
    return action(options, store, records)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m pipeline shards",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "action",
        choices=["info", "verify", "repair", "preview", "export"],
        help="say what is there; read and compare every byte; make damaged objects anew; draw "
        "samples; write plain PNG depth",
    )
    parser.add_argument(
        "preset",
        nargs="?",
        help=f"{', '.join(preset_names())} or a .toml file: what was made last by its settings; "
        "left out: the latest of each name",
    )
    parser.add_argument(
        "overrides", nargs="*", default=[], metavar="KEY=VALUE",
        help="such as store=s3://bucket/prefix",
    )  # fmt: skip
    parser.add_argument("--store", help="this store, whatever a preset says: a folder or s3://")
    parser.add_argument(
        "--run", default="", metavar="RUN", help="what this run used: RUN, RUN@ATTEMPT"
    )
    parser.add_argument("--all", action="store_true", help="all that the store holds, older too")
    parser.add_argument("--dataset", help="data sets of this name alone, such as nyu")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--split", default="train", help="preview: the split (train)")
    parser.add_argument("--samples", type=_count, default=12, help="preview: how many (12)")
    parser.add_argument("--output", type=Path, help="preview: the PNG; export: the folder")
    parser.add_argument(
        "--form", choices=["files", "tars"], default="files", help="export: files, or tars"
    )
    return parser


def _count(text: str) -> int:
    count = int(text)
    if count < 1:
        raise argparse.ArgumentTypeError(f"{count} is not above 0")
    return count


def _shards(record: StageRecord) -> ShardSet:
    assert isinstance(record.artifact, ShardSet), "the record of a shard stage"
    return record.artifact


def _info(options: argparse.Namespace, store: ObjectStore, records: Mapping[str, Any]) -> int:
    facts = [
        {"name": name, "made_by": record.run_id, "finished_at": record.finished_at}
        | describe(store, _shards(record), _scratch())
        for name, record in records.items()
    ]
    if options.json:
        _print_json(facts)
        return 0
    out = console()
    for fact in facts:
        low_m, high_m = fact["depth_range_m"]
        out.print(
            f"[bold]{fact['name']}[/]: depth {low_m:g} to {high_m:g} m, "
            f"{'dense' if fact['dense'] else 'with holes'}, ground truth {fact['ground_truth']}, "
            f"{fact['num_skipped']} frames left out"
            + (", rendered scenes" if fact["rendered"] else "")
        )
        if fact["measured_m"]:
            near_m, median_m, far_m = fact["measured_m"]
            text = f"measured mostly {near_m:.3g} to {far_m:.3g} m, median {median_m:.3g} m"
            out.print(text)
        table = Table(box=None, pad_edge=False)
        for heading in ("split", "samples", "shards", "MB", "size", "colour", "depth", "version"):
            right = heading in ("samples", "shards", "MB")
            table.add_column(heading, justify="right" if right else "left")
        for name, split in fact["splits"].items():
            table.add_row(
                name,
                str(split["num_samples"]),
                str(split["num_shards"]),
                f"{split['size_bytes'] / _MB:.1f}",
                "x".join(str(n) for n in reversed(split["size_px"])),
                ", ".join(split["colour"]),
                split["depth"],
                split["version"][:16],
            )
        out.print(table)
        first = next(iter(fact["splits"].values()))
        source = f"source   {first['dataset']}, {first['first_source']} first"
        out.print(source, markup=False, soft_wrap=True)
        made = f"made     by {fact['made_by']}, {local_time(fact['finished_at'])}"
        out.print(made, markup=False, soft_wrap=True)
    return 0


def _verify(options: argparse.Namespace, store: ObjectStore, records: Mapping[str, Any]) -> int:
    found = {name: _check(name, store, _shards(r)) for name, r in records.items()}
    _tell_damage(options, records, found)
    return 1 if any(found.values()) else 0


def _repair(options: argparse.Namespace, store: ObjectStore, records: Mapping[str, Any]) -> int:
    done = []
    for name, record in records.items():
        shards, damages = _shards(record), _check(name, store, _shards(record))
        try:
            config = ShardConfig.model_validate(record.fingerprint.config)
        except ValidationError as error:
            raise PipelineError(
                f"{name}: its record is of another version of the project ({error.error_count()} "
                "settings differ): run the pipeline, which shards it anew"
            ) from error
        with _bar(f"{name}: make anew", len(damages)) as progress:
            done += repair(
                store, shards, damages, functools.partial(raw_data, config, store), progress
            )
    left = [one for one in done if one.problem]
    if options.json:
        _print_json([{**_as_json(one.damage), "mended": not one.problem, "problem": one.problem}
                     for one in done])  # fmt: skip
    else:
        sys.stdout.writelines(f"{one}\n" for one in done)
        sys.stdout.write(f"{len(done)} damaged, {len(done) - len(left)} mended\n")
    return 1 if left else 0


def _preview(options: argparse.Namespace, store: ObjectStore, records: Mapping[str, Any]) -> int:
    written = []
    for name, record in records.items():
        shards = _shards(record)
        if options.split not in shards.splits:
            raise UsageMistake(
                f"{name} has no split {options.split!r}; it has {', '.join(shards.splits)}"
            )
        path = options.output or Path(f"{name}-{options.split}.png")
        if len(records) > 1 and options.output:
            path = path.with_name(f"{path.stem}-{name}{path.suffix}")
        picture = contact_sheet(store, shards, options.split, options.samples, _scratch())
        _write(path, picture)
        written.append(str(path))
    _tell_written(options, written)
    return 0


def _export(options: argparse.Namespace, store: ObjectStore, records: Mapping[str, Any]) -> int:
    if options.output is None:
        raise UsageMistake("--output FOLDER is missing: where to write to")
    for name, record in records.items():
        shards = _shards(record)
        total = sum(split.num_samples for split in shards.splits.values())
        with _bar(f"{name}: export", total) as progress:
            export(store, shards, options.output / name, options.form, _scratch(), progress)
    _tell_written(options, [str(options.output / name) for name in records])
    return 0


def _check(name: str, store: ObjectStore, shards: ShardSet) -> list[Damage]:
    with _bar(f"{name}: MB read", num_bytes(shards) / _MB) as progress:
        return check(store, shards, lambda count: progress(count / _MB))


def _tell_damage(
    options: argparse.Namespace,
    records: Mapping[str, StageRecord],
    found: Mapping[str, Sequence[Damage]],
) -> None:
    if options.json:
        _print_json({name: [_as_json(d) for d in damages] for name, damages in found.items()})
        return
    for name, damages in found.items():
        shards = _shards(records[name])
        if not damages:
            samples = sum(split.num_samples for split in shards.splits.values())
            sys.stdout.write(f"{name}: all {samples} samples are as they were written\n")
        sys.stdout.writelines(f"{name}: {damage}\n" for damage in damages)


def _as_json(damage: Damage) -> dict[str, Any]:
    return {
        "split": damage.split,
        "object": damage.what,
        "problem": damage.problem,
        "key": damage.ref.key,
        "detail": damage.detail,
        "samples": list(damage.samples),
    }


def _tell_written(options: argparse.Namespace, written: Sequence[str]) -> None:
    if options.json:
        _print_json({"written": list(written)})
    else:
        sys.stdout.writelines(f"{path}\n" for path in written)


def _write(path: Path, data: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    except OSError as error:
        raise UsageMistake(f"{path} cannot be written: {error.strerror}; set --output") from error


@contextmanager
def _bar(what: str, total: float) -> Iterator[Callable[[float], None]]:
    """Show how far something is, on the terminal's error side; not in a log."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    console = Console(stderr=True)
    with Progress(
        *columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal
    ) as bars:
        task = bars.add_task(what, total=total)
        yield lambda count: bars.advance(task, count)


def _print_json(value: Any) -> None:
    sys.stdout.write(json.dumps(value, indent=1) + "\n")


def _scratch() -> Path:
    return outputs_root() / "scratch"
