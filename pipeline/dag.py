"""The graph: which stages a configuration asks for, and what flows between them. No I/O."""

import difflib
import graphlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

from pipeline.config import PipelineConfig
from pipeline.errors import GraphError
from stages import ablate, evaluate, register, report, shard, train


@dataclass(frozen=True)
class Node:
    """One execution of a stage.

    Attributes:
        name: ``train.nyu``, or ``report`` for a stage that runs once.
        stage: the module with ``run(config, services, **inputs)``.
        config: the stage's settings.
        inputs: argument of ``run`` -> the node, or the nodes by data set, whose artifact it is.
    """

    name: str
    stage: ModuleType
    config: Any
    inputs: Mapping[str, str | Mapping[str, str]] = field(default_factory=dict)

    def needs(self) -> tuple[str, ...]:
        """Return the nodes that must be done before."""
        names: list[str] = []
        for source in self.inputs.values():
            names += [source] if isinstance(source, str) else list(source.values())
        return tuple(dict.fromkeys(names))

    def arguments(self, artifacts: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments of ``run``, given the artifact of each node that must be done."""
        return {
            argument: artifacts[source]
            if isinstance(source, str)
            else {branch: artifacts[name] for branch, name in source.items()}
            for argument, source in self.inputs.items()
        }


def build_graph(config: PipelineConfig) -> dict[str, Node]:
    """Return the nodes by name, in an order in which they can run."""
    nodes: list[Node] = []
    for d in config.shard:
        nodes.append(Node(f"shard.{d}", shard, config.shard[d]))
    for d in config.train:
        nodes.append(Node(f"train.{d}", train, config.train[d], {"shards": f"shard.{d}"}))
    for d in config.ablate:
        nodes.append(Node(f"ablate.{d}", ablate, config.ablate[d], {"shards": f"shard.{d}"}))
    for d in config.evaluate:
        inputs = {"shards": f"shard.{d}", "checkpoint": f"train.{d}"}
        nodes.append(Node(f"evaluate.{d}", evaluate, config.evaluate[d], inputs))
    shards = {d: f"shard.{d}" for d in config.shard}
    checkpoints = {d: f"train.{d}" for d in config.train}
    ablations = {d: f"ablate.{d}" for d in config.ablate}
    evaluations = {d: f"evaluate.{d}" for d in config.evaluate}
    if evaluations or ablations:
        nodes.append(
            Node("report", report, config.report, {"shards": shards, "checkpoints": checkpoints,
                 "ablations": ablations, "evaluations": evaluations})
        )  # fmt: skip
    if evaluations:
        nodes.append(
            Node("register", register, config.register_, {"checkpoints": checkpoints,
                 "evaluations": evaluations, "report": "report"})
        )  # fmt: skip
    return check_graph(nodes)


def check_graph(nodes: Iterable[Node]) -> dict[str, Node]:
    """Check that the nodes make a graph, and sort them so that each follows its inputs.

    Raises:
        GraphError: two nodes of one name, an input that no node makes, or a cycle.
    """
    by_name: dict[str, Node] = {}
    for node in nodes:
        if node.name in by_name:
            raise GraphError(f"two stages are called {node.name!r}; rename one")
        by_name[node.name] = node
    for node in by_name.values():
        for needed in node.needs():
            if needed not in by_name:
                close = difflib.get_close_matches(needed, by_name, n=1)
                hint = f"; did you mean {close[0]!r}?" if close else ""
                raise GraphError(f"{node.name} needs {needed!r}, which no stage makes{hint}")
    try:
        order = graphlib.TopologicalSorter(
            {name: node.needs() for name, node in by_name.items()}
        ).static_order()
        return {name: by_name[name] for name in order}
    except graphlib.CycleError as error:
        cycle = " -> ".join(error.args[1])
        raise GraphError(f"the stages wait for each other in a circle: {cycle}") from error
