"""Whether a cluster that does nothing else has room for what stages ask for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.dag import Node
from pipeline.finding import Finding


@dataclass(frozen=True)
class Request:
    """What a stage asks for at once: equal bundles, each of them of one node.

    Attributes:
        num_bundles: the workers of a training; else 1.
        bundle: CPUs and GPUs of each; a GPU that is only taken where there is one does not count.
    """

    num_bundles: int
    bundle: Mapping[str, float]

    def room_on(self, node: Mapping[str, float]) -> int:
        """Return how many bundles a node can hold that does nothing else."""
        return min(int(node[k] / wanted + 1e-9) for k, wanted in self.bundle.items() if wanted)

    def __str__(self) -> str:
        times = f"{self.num_bundles} times " if self.num_bundles > 1 else ""
        return times + in_words(self.bundle)


def request_of(node: Node) -> Request:
    """Return what a stage asks for."""
    config: Any = node.config
    stage = node.name.partition(".")[0]
    if stage in ("train", "ablate"):
        bundle = {"CPU": config.cpus_per_worker, "GPU": float(config.use_gpu is True)}
        return Request(max(1, config.num_workers), bundle)
    if stage == "evaluate":
        return Request(1, {"CPU": float(config.num_cpus), "GPU": float(config.use_gpu is True)})
    return Request(1, {"CPU": 1.0, "GPU": 0.0})


def room_for(
    request: Request,
    nodes: Sequence[Mapping[str, float]],
    grows: Sequence[tuple[Mapping[str, float], int]],
) -> Finding | None:
    """Say what keeps a cluster that does nothing else from holding a request; None if it has room.

    Args:
        request: what a stage asks for.
        nodes: CPUs and GPUs of each node that there is.
        grows: kinds of nodes that it may grow to, and how many of each; -1 = any number.
    """
    now = sum(request.room_on(node) for node in nodes)
    grown = sum(
        request.room_on(kind) * (request.num_bundles if most < 0 else most) for kind, most in grows
    )
    if now >= request.num_bundles:
        return None
    if grown >= request.num_bundles:
        found = f"asks for {request}; the cluster must grow first, now {total(nodes)}"
        return Finding("room", "warn", found)
    advice = "lower num_workers, cpus_per_worker or num_cpus, or take a larger cluster"
    kinds_of_node = [*nodes, *(kind for kind, _ in grows)]
    if request.bundle["GPU"] and not any(node["GPU"] for node in kinds_of_node):
        advice = f"there is no GPU: set use_gpu = false or 'auto'; {advice}"
    if max(now, grown) == 0:
        kinds = dict.fromkeys(in_words(kind) for kind in kinds_of_node)
        found = f"asks for {request}; no node has as much, only {' / '.join(kinds)}"
    else:
        found = f"asks for {request}; there is room for {max(now, grown)} of them at most"
    return Finding("room", "fail", found, advice)


def total(nodes: Sequence[Mapping[str, float]]) -> str:
    """Say what nodes have together."""
    return in_words({k: sum(node[k] for node in nodes) for k in ("CPU", "GPU")})


def in_words(resources: Mapping[str, float]) -> str:
    """Say how many CPUs and GPUs these are."""
    return f"{resources['CPU']:g} CPUs, {resources['GPU']:g} GPUs"
