"""What the Ray that a stage runs on has to give: the one place that asks its cluster API."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Resources:
    """What a cluster has now.

    Attributes:
        num_cpus: logical CPUs.
        num_gpus: GPUs.
        cpus_of_smallest: CPUs of the smallest node that has any: what fits it, fits every node.
        is_one_machine: whether nothing can join: one node, and it has CPUs. The head of a cluster
            that grows has none of its own to give (``ray_cluster.yaml``).
    """

    num_cpus: float
    num_gpus: int
    is_one_machine: bool
    cpus_of_smallest: float = 0.0


def cluster_resources() -> Resources:
    """Ask what the cluster has now."""
    import ray

    table = ray.cluster_resources()
    num_cpus = float(table.get("CPU", 0))
    nodes = ray.nodes()
    is_one_machine = len(nodes) == 1 and num_cpus > 0
    per_node = [float(n["Resources"].get("CPU", 0)) for n in nodes if n.get("Resources")]
    smallest = min((cpus for cpus in per_node if cpus > 0), default=0.0)
    return Resources(num_cpus, int(table.get("GPU", 0)), is_one_machine, smallest)


def this_node() -> tuple[Any, float]:
    """Return the strategy that keeps a task on this node, and the node's own CPUs."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    mine = next(node for node in ray.nodes() if node["NodeID"] == here.node_id)
    return here, float(mine["Resources"].get("CPU", 0))
