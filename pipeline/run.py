"""Run the pipeline: ``python -m pipeline.run [PRESET] [KEY=VALUE ...]``.

Stages whose results are in the store, verified, are skipped; the rest runs. ``--plan`` says
beforehand what would run and why.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import traceback
from collections.abc import Mapping, Sequence

from cluster.errors import ClusterError
from cluster.session import PROJECT_ROOT, open_session
from cluster.storage import open_store
from densedepth.errors import DepthError
from pipeline.config import PipelineConfig, load_config, outputs_root, preset_names
from pipeline.console import RunDisplay
from pipeline.dag import Node, build_graph
from pipeline.errors import NotReady, PipelineError
from pipeline.executor import Execution
from pipeline.fingerprint import raw_sources
from pipeline.plan import make_plan
from pipeline.results import print_plan, print_results


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse, build, execute; return the exit code (0 done, 1 failed, 2 mistake, 130 stopped)."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.run", description=__doc__)
    parser.add_argument(
        "preset", nargs="?", default="demo", help=f"{', '.join(preset_names())}, or a .toml file"
    )
    parser.add_argument(
        "overrides", nargs="*", metavar="KEY=VALUE", help="such as train.nyu.recipe.epochs=5"
    )
    parser.add_argument(
        "--plan", action="store_true", help="say what would run and why, run nothing"
    )
    options = parser.parse_intermixed_args(arguments)
    if "=" in options.preset:
        options.preset, options.overrides = "demo", [options.preset, *options.overrides]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        config = load_config(options.preset, options.overrides)
        graph = build_graph(config)
        store = open_store(config.store)
        check_sources(graph)
        if options.plan:
            print_plan(config.run_id(), make_plan(graph, store))
            return 0
        execution = Execution(
            graph=graph,
            store=store,
            run_id=config.run_id(),
            open_session=lambda: open_session(
                config.session, config.tracking, outputs_root() / "mlartifacts"
            ),
            scratch=outputs_root() / "scratch",
            config=config.model_dump(mode="json", by_alias=True),
            tags=run_tags(config),
            display=RunDisplay(list(graph)),
        )
        print_results(config, store, execution.run())
        return 0
    except (PipelineError, ClusterError, DepthError) as error:
        sys.stderr.write(f"{error}\n")
        return getattr(error, "exit_code", 1)
    except Exception as error:  # the last line of defence: no traceback in a user's face
        trace = outputs_root() / "error.txt"
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        try:
            trace.parent.mkdir(parents=True, exist_ok=True)
            trace.write_text(traceback.format_exc())
            sys.stderr.write(f"The traceback is in {trace}\n")
        except OSError as other:
            sys.stderr.write(f"{trace} for the traceback cannot be written: {other.strerror}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("stopped; the same command goes on from here\n")
        return 130


def check_sources(graph: Mapping[str, Node]) -> None:
    """Look for what every stage reads outside the store, before anything runs.

    Raises:
        NotReady: with all that is not there.
    """
    reasons: dict[str, str] = {}
    for node in graph.values():
        try:
            raw_sources(node)
        except DepthError as error:
            reasons.setdefault(str(error), node.name)
    if reasons:
        raise NotReady(tuple(f"{node}: {reason}" for reason, node in reasons.items()))


def run_tags(config: PipelineConfig) -> dict[str, str]:
    """Return what identifies a run's origin: project version of the code, preset."""
    commit = os.environ.get("DEPTH_COMMIT", "")
    if not commit and shutil.which("git"):
        command = ["git", "-C", str(PROJECT_ROOT), "rev-parse", "HEAD"]
        commit = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    return {"mlflow.source.git.commit": commit or "unknown", "depth.preset": config.name}


if __name__ == "__main__":
    sys.exit(main())
