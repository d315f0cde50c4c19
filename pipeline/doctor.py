"""The verb ``doctor``: whether a configuration can run here, before it does."""

import argparse
import contextlib
import importlib.metadata
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rich.console import Console

from cluster.errors import ClusterError
from cluster.probes import ProbeError, check_tracking, ray_facts, torch_facts
from cluster.session import PROJECT_ROOT, cluster_address
from cluster.storage import open_store
from densedepth.errors import BadFrameError, DepthError, EmptySplitError
from pipeline.config import PipelineConfig, load_config, outputs_root
from pipeline.dag import Node, build_graph
from pipeline.errors import FINDINGS
from pipeline.finding import Finding
from pipeline.fingerprint import raw_sources
from pipeline.output import print_json, print_table
from pipeline.pretrained import Encoder, encoders_of, look
from pipeline.ready import protocol_mistake
from pipeline.room import in_words, request_of, room_for, total
from stages.shard import ShardConfig, unit_doubt
from stages.shard_jobs import SPLITS, selected

if TYPE_CHECKING:
    from densedepth.data.measured import MeasuredDepth

LIBRARIES = ("torch", "torchvision", "ray", "webdataset", "mlflow", "boto3", "numpy", "pydantic")
LOW_DISK_GB = 20.0
_SEE_DATASETS = "docs/datasets.md says what must be there"


def doctor_verb(options: argparse.Namespace) -> int:
    """Check everything, and say what to do about what is wrong."""
    config = load_config(options.preset, options.overrides)
    findings: list[Finding] = []
    with Console(stderr=True).status("looking ...") as status:
        for finding in examine(config, status.update):
            findings.append(finding)
    if options.json:
        print_json([asdict(finding) for finding in findings])
    else:
        print_table(
            f"What {config.name} needs, and what is here",
            ("check", "", "found", "what to do"),
            [(f.check, f.status, f.found, f.advice) for f in findings],
            [{"ok": "green", "warn": "yellow", "fail": "red"}[f.status] for f in findings],
        )
    return FINDINGS if any(f.status == "fail" for f in findings) else 0


def examine(config: PipelineConfig, say: Callable[[str], None]) -> Iterator[Finding]:
    """Yield every check's finding."""
    graph = build_graph(config)
    yield _python()
    yield _libraries()
    say("looking at PyTorch ...")
    torch_now = _torch_facts()
    yield _torch(torch_now)
    say("looking at Ray ...")
    yield from _ray(config, graph, len(torch_now.get("gpus", [])))
    say("looking at the store ...")
    yield _outcome("store", lambda: _store(config))
    say("looking at MLflow ...")
    uri = config.tracking.uri
    yield _outcome("MLflow", lambda: f"{uri}: {check_tracking(config.tracking)}")
    yield from _disks()
    for node in graph.values():
        if isinstance(node.config, ShardConfig):
            say(f"looking for the data of {node.name} ...")
            yield _sources(node)
        elif reason := protocol_mistake(graph, node):
            yield Finding(f"protocol of {node.name}", "fail", reason)
    say("looking for the encoders' weights ...")
    yield from _weights(encoders_of(graph.values()))


def _python() -> Finding:
    version = sys.version_info
    found = ".".join(map(str, version[:3]))
    # The lowest version cannot be checked here: this file would not have been imported.
    if version >= (3, 14):
        return Finding("Python", "warn", found, "the lock is made for 3.11 to 3.13")
    return Finding("Python", "ok", found)


def _libraries() -> Finding:
    lock = PROJECT_ROOT / "requirements.lock"
    pinned: dict[str, set[str]] = {}  # several where they depend on Python's version
    for name, version in re.findall(r"^([\w.-]+)==([^\s;\\]+)", lock.read_text(), re.MULTILINE):
        pinned.setdefault(name, set()).add(version)
    there: dict[str, str] = {}
    for name in LIBRARIES:
        try:
            there[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            return Finding("libraries", "fail", f"{name} is not installed", "run `make setup`")
    other = [
        f"{name} {version}, not {' or '.join(sorted(pinned[name]))}"
        for name, version in there.items()
        if name in pinned and version.partition("+")[0] not in pinned[name]
    ]
    if other:
        advice = "figures may differ from those recorded; `make setup` installs the lock"
        return Finding("libraries", "warn", "; ".join(other), advice)
    return Finding("libraries", "ok", "as in requirements.lock")


def _torch_facts() -> dict[str, Any]:
    try:
        return torch_facts()
    except ProbeError as error:
        return {"error": str(error)}


def _torch(facts: Mapping[str, Any]) -> Finding:
    if "error" in facts:
        return Finding("PyTorch", "fail", facts["error"], "run `make setup`")
    if not facts["gpus"]:
        found = f"{facts['version']}, no GPU, {facts['threads']} threads"
        return Finding("PyTorch", "warn", found, "training will be on the CPU of this machine")
    gpus = ", ".join(f"{gpu['name']} {gpu['memory_gb']:g} GB" for gpu in facts["gpus"])
    return Finding("PyTorch", "ok", f"{facts['version']}, CUDA {facts['cuda']}: {gpus}")


def _ray(config: PipelineConfig, graph: Mapping[str, Node], num_gpus: int) -> Iterator[Finding]:
    """Yield whether Ray answers, and for each stage that it cannot hold, why."""
    address = cluster_address(config.session)
    if address is None:
        cpus = float(config.session.num_cpus or os.cpu_count() or 1)
        nodes, grows = [{"CPU": cpus, "GPU": float(num_gpus)}], []
        yield Finding("Ray", "ok", f"one is started here: {cpus:g} CPUs, {num_gpus} GPUs")
    else:
        try:
            facts = ray_facts(address)
        except ProbeError as error:
            advice = "check session.address, RAY_ADDRESS and RAY_AUTH_MODE (docs/operations.md)"
            yield Finding("Ray", "fail", f"{address}: {error}", advice)
            return
        nodes, grows = facts["nodes"], facts["grows"]
        found = f"{address}: Ray {facts['version']}, {len(nodes)} nodes, {total(nodes)}"
        kinds = ", ".join(f"{'any' if n < 0 else n} of {in_words(kind)}" for kind, n in grows)
        yield Finding("Ray", "ok", found + (f"; grows to {kinds}" if kinds else ""))
    fits = True
    for name, node in graph.items():
        finding = room_for(request_of(node), nodes, grows)
        if finding is not None:
            fits = fits and finding.status != "fail"
            yield replace(finding, check=f"room for {name}")
    if fits:
        yield Finding("room", "ok", "every stage fits")


def _store(config: PipelineConfig) -> str:
    store = open_store(config.store)
    store.check_writable()
    return f"{store.url}: reads, writes, puts on condition"


def _outcome(check: str, look: Callable[[], str]) -> Finding:
    try:
        return Finding(check, "ok", look())
    except ClusterError as error:
        return Finding(check, "fail", f"{error.url}: {error.reason}", error.advice)


def _disks() -> Iterator[Finding]:
    for check, place, least_gb in (
        ("disk for outputs", outputs_root(), LOW_DISK_GB),
        ("disk for temporary files", Path(os.environ.get("TMPDIR", "/tmp")), 5.0),
        ("shared memory", Path("/dev/shm"), 1.0),
    ):
        there = next((p for p in (place, *place.parents) if p.exists()), Path("/"))
        free_gb = shutil.disk_usage(there).free / 1e9
        advice = "" if free_gb >= least_gb else f"less than {least_gb:g} GB: free some space"
        status: Literal["ok", "warn"] = "warn" if advice else "ok"
        yield Finding(check, status, f"{free_gb:.1f} GB free in {there}", advice)


def _sources(node: Node) -> Finding:
    """Return whether the raw files of a data set are there."""
    check, config = f"files of {node.name}", node.config
    try:
        marks = raw_sources(node)
    except DepthError as error:
        return Finding(check, "fail", str(error), _SEE_DATASETS)
    if config.synthetic:
        return Finding(check, "ok", "rendered scenes, made by the stage")
    skipped = _skipped(config)
    if missing := [path for path, mark in marks.items() if mark == "missing"]:
        found = f"{len(missing)} of {len(marks)} files are missing, first {missing[0]}"
        return Finding(check, "warn", found, "the stage stops above max_bad_share")
    found = f"{len(marks)} file{'s' if len(marks) != 1 else ''}"
    try:
        measured = _measured(config)
    except BadFrameError as error:
        return Finding(
            check, "fail", f"no training frame can be used, first {error}", _SEE_DATASETS
        )
    except DepthError as error:
        return Finding(check, "fail", str(error), _SEE_DATASETS)
    if measured.within < config.min_within_share:
        return Finding(check, "fail", unit_doubt(config, measured), _SEE_DATASETS)
    found += f"; {measured}"
    if refused := measured.refused:
        looked_at = measured.num_frames + len(refused)
        found += f"; {len(refused)} of {looked_at} cannot be used, the first {refused[0]}"
    if skipped:
        first = f"{skipped[0].line!r}: {skipped[0].reason}"
        what = "1 listed frame is" if len(skipped) == 1 else f"{len(skipped)} listed frames are"
        found += f"; {what} left out, the first {first}"
    if refused or skipped:
        return Finding(check, "warn", found, _SEE_DATASETS)
    return Finding(check, "ok", found)


def _weights(wanted: Mapping[Encoder, Sequence[str]]) -> Iterator[Finding]:
    """Yield for each encoder whether training will find its weights, and where."""
    for (encoder, names), found in zip(wanted.items(), look(list(wanted)), strict=True):
        check = f"weights of {encoder.encoder}"
        whose = f"for {', '.join(names)}"
        if found.problem:
            yield Finding(check, "fail", f"{whose}: {found.problem}")
        elif found.url:
            text = f"{whose}: {found.url} is downloaded when a run begins"
            advice = f"where there is no network, put it at {found.place}, or give its path"
            yield Finding(check, "warn", text, advice)
        else:
            yield Finding(check, "ok", f"{whose}: {found.place or 'random, none are loaded'}")


def _measured(config: ShardConfig) -> "MeasuredDepth":
    """Look at the depth of the frames that the stage looks at."""
    from densedepth.data.formats import make_reader
    from densedepth.data.measured import NUM_FRAMES, measure_depth

    reader = make_reader(config.format, config.root, **config.options)
    frames = selected(reader.list_frames("train").frames, "train", NUM_FRAMES)
    return measure_depth(reader, frames, config.min_depth_m, config.max_depth_m)


def _skipped(config: ShardConfig) -> list[Any]:
    """Return the lines of a raw data set's lists that give no frame, each with why."""
    from densedepth.data.formats import make_reader

    reader = make_reader(config.format, config.root, **config.options)
    found: list[Any] = []
    for split in SPLITS:
        with contextlib.suppress(EmptySplitError):  # none asked for: else its marks had failed
            found += reader.list_frames(split).skipped
    return found
