"""What a shell completes: verbs and options, and the names of runs, stages and presets."""

import argparse
import contextlib
import sys

from pipeline.config import load_config, outputs_root, preset_names, read_preset
from pipeline.dag import build_graph
from pipeline.errors import PipelineError

COMMAND = "depth"
"""The command that shells complete: the same as ``python -m pipeline``."""


def completion_verb(options: argparse.Namespace) -> int:
    """Print a shell's code; ``eval "$(python -m pipeline completion bash)"`` makes it work."""
    import argcomplete

    sys.stdout.write(argcomplete.shellcode([COMMAND], shell=options.shell) + "\n")
    return 0


def candidates(what: str, preset: str | None = None) -> list[str]:
    """Return what may stand for a preset, a stage or a run; nothing where that cannot be read.

    Args:
        what: ``presets``, ``stages`` or ``runs``.
        preset: the one that the line names, whose stages are meant; None = those of all presets.
    """
    if what == "presets":
        return preset_names()
    if what == "stages":
        presets = [preset] if preset else preset_names()
        names = {name for each in presets for name in _stages(each)}
        return sorted(names | {name.partition(".")[0] for name in names})
    with contextlib.suppress(OSError):
        if what == "runs":
            # The default store only: a shell that waits for a network is worse than none.
            folder = outputs_root() / "store" / "runs"
            return sorted(path.name for path in folder.iterdir())
    return []


def _stages(preset: str) -> list[str]:
    """Return a preset's stages, though it lacks what a run needs, such as where the data is."""
    with contextlib.suppress(PipelineError, OSError):
        branches = read_preset(preset).get("shard", {})
        return list(build_graph(load_config(preset, [f"shard.{b}.root=." for b in branches])))
    return []
