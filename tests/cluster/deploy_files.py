"""The files that start clusters, and the versions that they must agree with."""

import re
import shlex
from typing import Any

import yaml

from cluster.session import PROJECT_ROOT

CLUSTER_FILE = PROJECT_ROOT / "ray_cluster.yaml"
DOCKERFILE = PROJECT_ROOT / "cluster/deploy/Dockerfile"
RAYJOB_FILE = PROJECT_ROOT / "cluster/deploy/rayjob.yaml"
OPERATIONS = PROJECT_ROOT / "docs/operations.md"
MAX_GPUS = 64


def read_cluster() -> dict[str, Any]:
    """Return what `ray up` reads."""
    return dict(yaml.safe_load(CLUSTER_FILE.read_text()))


def read_rayjob() -> dict[str, Any]:
    """Return what `kubectl create` reads."""
    return dict(yaml.safe_load(RAYJOB_FILE.read_text()))


def pod_groups(rayjob: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the head's group and the workers' groups."""
    spec = rayjob["spec"]["rayClusterSpec"]
    return [spec["headGroupSpec"], *spec["workerGroupSpecs"]]


def locked_version(package: str) -> str:
    """Return the version of a package in requirements.lock."""
    lock = (PROJECT_ROOT / "requirements.lock").read_text()
    match = re.search(rf"^{package}==([\w.]+)", lock, re.MULTILINE)
    assert match, f"{package} is not in requirements.lock"
    return match.group(1)


def locked_python() -> str:
    """Return the Python that requirements.lock is made for."""
    match = re.search(r"--python-version (3\.\d+)", (PROJECT_ROOT / "Makefile").read_text())
    assert match
    return match.group(1)


def image_steps() -> list[tuple[str, str]]:
    """Return the Dockerfile's instructions and their arguments, without comments."""
    lines = [line for line in DOCKERFILE.read_text().splitlines() if not line.startswith("#")]
    text = re.sub(r"\\\n", " ", "\n".join(lines))
    pairs = [line.split(maxsplit=1) for line in text.splitlines() if line.strip()]
    return [(word, rest) for word, rest in pairs]


def image_env() -> dict[str, str]:
    """Return the image's environment."""
    pairs = [shlex.split(rest) for word, rest in image_steps() if word == "ENV"]
    return dict(pair.split("=", 1) for group in pairs for pair in group)
