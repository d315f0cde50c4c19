"""What ``doctor`` asks of the outside world. Heavy libraries answer in a process of their own.

A driver's crash, or a cluster that does not answer, then costs a line and no more.
"""

import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

from cluster.errors import RayUnavailable, TrackingError
from cluster.session import check_address
from cluster.tracking import TrackingConfig
from cluster.tracking_server import check_server

TIMEOUT_S = 90.0

_TORCH = """
import json, torch
print(json.dumps({
    "version": torch.__version__,
    "cuda": torch.version.cuda,
    "threads": torch.get_num_threads(),
    "gpus": [
        {"name": p.name, "memory_gb": round(p.total_memory / 1e9, 1), "bf16": p.major >= 8}
        for p in map(torch.cuda.get_device_properties, range(torch.cuda.device_count()))
    ],
}))
"""
_RAY = """
import json, sys, ray
ray.init(address=sys.argv[1], log_to_driver=False, logging_level="error")
def table(resources):
    return {k: resources.get(k, 0) for k in ("CPU", "GPU")}
try:  # what an autoscaler may grow to; Ray has no public way to ask
    groups = ray._private.state.state.get_cluster_config().node_group_configs
    grows = [[table(dict(g.resources)), g.max_count] for g in groups]
except Exception:
    grows = []
print(json.dumps({
    "version": ray.__version__,
    "nodes": [table(n["Resources"]) for n in ray.nodes() if n["Alive"]],
    "grows": grows,
}))
"""


class ProbeError(Exception):
    """A probe came to nothing; its text says why."""


def torch_facts() -> dict[str, Any]:
    """Return PyTorch's version and GPUs.

    Raises:
        ProbeError: it cannot be imported.
    """
    return _ask(_TORCH)


def ray_facts(address: str) -> dict[str, Any]:
    """Return a cluster's version, nodes, and what it may grow to.

    Returns:
        ``version``; ``nodes``: CPUs and GPUs of each node that lives; ``grows``: the CPUs and GPUs
        of each kind of node that may join, and how many may, -1 = any number.

    Raises:
        ProbeError: nothing answers at this address.
    """
    try:
        check_address(address)
    except RayUnavailable as error:
        raise ProbeError(error.reason) from None
    return _ask(_RAY, address)


def check_tracking(config: TrackingConfig) -> str:
    """Make sure that MLflow's server answers to this user, or that its file can be written.

    Returns:
        What was found, as a phrase.

    Raises:
        TrackingError: it cannot be used.
    """
    if not config.uri.startswith("sqlite:///"):
        return f"{check_server(config.uri)} answers"
    path = Path(config.uri.removeprefix("sqlite:///"))
    folder = next(p for p in path.absolute().parents if p.exists())
    if not os.access(folder, os.W_OK):
        raise TrackingError(config.uri, f"{folder} cannot be written")
    if not path.exists():
        return "will be made"
    try:
        with sqlite3.connect(path) as database:
            database.execute("BEGIN IMMEDIATE")
            database.rollback()
            count = database.execute("SELECT count(*) FROM runs").fetchone()[0]
    except sqlite3.Error as error:
        raise TrackingError(config.uri, str(error)) from error
    return f"{count} runs"


def _ask(code: str, *arguments: str) -> dict[str, Any]:
    command = [sys.executable, "-c", code, *arguments]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise ProbeError(f"no answer within {TIMEOUT_S:g} s") from None
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise ProbeError(lines[-1][:300])
    facts: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return facts
