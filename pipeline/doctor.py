"""The verb ``doctor``: whether a configuration can run here, before it does."""

import argparse
import importlib.metadata
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from rich.console import Console

from cluster.errors import ClusterError
from cluster.probes import ProbeError, check_tracking, ray_facts, torch_facts
from cluster.session import PROJECT_ROOT, cluster_address
from cluster.storage import open_store
from densedepth.errors import DepthError
from pipeline.config import PipelineConfig, load_config, outputs_root
from pipeline.dag import Node, build_graph
from pipeline.errors import FINDINGS
from pipeline.fingerprint import raw_sources
from pipeline.output import print_json, print_table

LIBRARIES = ("torch", "torchvision", "ray", "webdataset", "mlflow", "boto3", "numpy", "pydantic")
LOW_DISK_GB = 20.0


@dataclass(frozen=True)
class Finding:
    """What one check came to: ``ok``, ``warn`` (may be meant so) or ``fail`` (cannot work)."""

    check: str
    status: Literal["ok", "warn", "fail"]
    found: str
    advice: str = ""


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
        if hasattr(node.stage, "sources"):
            say(f"looking for the data of {node.name} ...")
            yield _sources(node)


def needs_of(node: Node) -> tuple[float, int | None]:
    """Return the CPUs that a stage asks for at once, and the GPUs; None = those that there are."""
    config: Any = node.config
    stage = node.name.partition(".")[0]
    if stage in ("train", "ablate"):
        workers = max(1, config.num_workers)
        gpus = {True: workers, False: 0}.get(config.use_gpu)
        return workers * config.cpus_per_worker, gpus
    if stage == "evaluate":
        return float(config.num_cpus), {True: 1, False: 0}.get(config.use_gpu)
    return 1.0, 0


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
        now = most = {"CPU": cpus, "GPU": float(num_gpus)}
        yield Finding("Ray", "ok", f"one is started here: {cpus:g} CPUs, {num_gpus} GPUs")
    else:
        try:
            facts = ray_facts(address)
        except ProbeError as error:
            advice = "check session.address, RAY_ADDRESS and RAY_AUTH_MODE (docs/operations.md)"
            yield Finding("Ray", "fail", f"{address}: {error}", advice)
            return
        now = facts["now"]
        most = {k: max(now[k], (facts["most"] or {}).get(k, 0)) for k in now}
        found = f"{address}: Ray {facts['version']}, {facts['num_nodes']} nodes, {_sum(now)}"
        yield Finding("Ray", "ok", found + (f", grows to {_sum(most)}" if most != now else ""))
    fits = True
    for name, node in graph.items():
        cpus, gpus = needs_of(node)
        wanted = {"CPU": cpus, "GPU": float(gpus or 0)}
        if any(wanted[k] > most[k] for k in wanted):
            fits = False
            advice = "lower num_workers, cpus_per_worker or num_cpus, or take a larger cluster"
            found = f"asks for {_sum(wanted)}; there are at most {_sum(most)}"
            yield Finding(f"room for {name}", "fail", found, advice)
        elif any(wanted[k] > now[k] for k in wanted):
            found = f"asks for {_sum(wanted)}; the cluster must grow first, now {_sum(now)}"
            yield Finding(f"room for {name}", "warn", found)
    if fits:
        yield Finding("room", "ok", "every stage fits")


def _sum(resources: Mapping[str, float]) -> str:
    return f"{resources['CPU']:g} CPUs, {resources['GPU']:g} GPUs"


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
    """Return whether the raw files or weights of a stage are there."""
    check = f"files of {node.name}"
    try:
        marks = raw_sources(node)
    except DepthError as error:
        return Finding(check, "fail", str(error), "docs/datasets.md says what must be there")
    if getattr(node.config, "synthetic", None):
        return Finding(check, "ok", "rendered scenes, made by the stage")
    if missing := [path for path, mark in marks.items() if mark == "missing"]:
        found = f"{len(missing)} of {len(marks)} files are missing, first {missing[0]}"
        return Finding(check, "warn", found, "the stage stops above max_bad_share")
    found = f"{len(marks)} files" if marks else "none but what is downloaded"
    return Finding(check, "ok", found)
