"""Stages that do nothing but store a few bytes, and graphs of them."""

from types import ModuleType
from typing import Any

from pipeline.dag import Node, check_graph
from stages.artifacts import Checkpoint, EpochRecord
from stages.settings import Settings as StageSettings


class Settings(StageSettings):
    """What tells one run's stages from another's."""

    text: str


def run(config: Settings, services: Any, **inputs: Checkpoint) -> Checkpoint:
    """Store the settings' text."""
    return artifact(services.store, services.stage, config)


def artifact(store: Any, name: str, config: Settings) -> Checkpoint:
    """Store a stage's few bytes; return what names them."""
    epoch = EpochRecord(epoch=0, step=1, train_loss=0.0, metrics={}, seconds=0.0)
    return Checkpoint(
        dataset=name,
        network=store.put_bytes(f"networks/{name}-{config.text}", f"{name} {config.text}".encode()),
        recipe={},
        best_epoch=0,
        epochs=(epoch,),
        num_parameters=0,
        train_seconds=0.0,
        num_workers=1,
    )


def chain(num_stages: int, text: str) -> dict[str, Node]:
    """Return stages of which each needs the one before."""
    return _graph(text, {n: [n - 1] if n else [] for n in range(num_stages)})


def layers(num_stages: int, text: str, width: int = 100, num_inputs: int = 3) -> dict[str, Node]:
    """Return stages in layers of ``width``, each needing some stages of the layer before."""
    needs = {
        n: [n - n % width - width + (n + i) % width for i in range(num_inputs)]
        if n >= width
        else []
        for n in range(num_stages)
    }
    return _graph(text, needs)


SHAPES = {"chain": chain, "layers": layers}


def _graph(text: str, needs: dict[int, list[int]]) -> dict[str, Node]:
    stage, settings = ModuleType(__name__), Settings(text=text)
    return check_graph(
        Node(f"noop.s{n}", stage, settings, {f"x{i}": f"noop.s{m}" for i, m in enumerate(before)})
        for n, before in needs.items()
    )
