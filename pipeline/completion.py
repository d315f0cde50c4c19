"""What a shell completes: verbs and options, and the names of runs, stages and presets."""

import argparse
import contextlib
import sys

from pipeline.config import load_config, outputs_root, preset_names
from pipeline.dag import build_graph
from pipeline.errors import PipelineError

COMMAND = "depth"
"""The command that shells complete: the same as ``python -m pipeline``."""


def completion_verb(options: argparse.Namespace) -> int:
    """Print a shell's code; ``eval "$(python -m pipeline completion bash)"`` makes it work."""
    import argcomplete

    sys.stdout.write(argcomplete.shellcode([COMMAND], shell=options.shell) + "\n")
    return 0


def candidates(what: str) -> list[str]:
    """Return what may stand for a preset, a stage or a run; nothing where that cannot be read."""
    if what == "presets":
        return preset_names()
    with contextlib.suppress(PipelineError, OSError):
        if what == "stages":
            graph = build_graph(load_config("demo"))
            return sorted({*graph, *(name.partition(".")[0] for name in graph)})
        if what == "runs":
            # The default store only: a shell that waits for a network is worse than none.
            folder = outputs_root() / "store" / "runs"
            return sorted(path.name for path in folder.iterdir())
    return []
