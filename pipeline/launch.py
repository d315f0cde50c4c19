"""The verbs that drive a run: ``run``, ``plan``, ``resume``."""

import argparse
import os
import shutil
import subprocess
import uuid
from collections.abc import Mapping, Sequence

from rich.console import Console

from cluster.session import PROJECT_ROOT, open_session
from cluster.storage import ObjectStore, open_store
from pipeline.config import PipelineConfig, load_config, outputs_root, parse_config
from pipeline.console import RunDisplay
from pipeline.dag import Node, build_graph
from pipeline.driver import Driver
from pipeline.errors import UsageMistake
from pipeline.executor import Execution, run_stage
from pipeline.output import print_json
from pipeline.plan import make_plan
from pipeline.ready import check_ready
from pipeline.results import plan_table, print_plan, print_results, results_table
from pipeline.runs import RunState, load_attempts, load_run
from pipeline.selection import Selection, select


def run_verb(options: argparse.Namespace) -> int:
    """Run what is not up to date."""
    config = load_config(options.preset, options.overrides)
    graph = build_graph(config)
    selection = selection_of(graph, options)
    check_ready(graph, selection.chosen)
    forced = dict.fromkeys(sorted(selection.forced), f"again-{uuid.uuid4().hex[:8]}")
    return _drive(config, graph, selection.chosen, forced, options)


def plan_verb(options: argparse.Namespace) -> int:
    """Say what would run and why."""
    config = load_config(options.preset, options.overrides)
    graph = build_graph(config)
    selection = selection_of(graph, options)
    check_ready(graph, selection.chosen)
    plan = make_plan(graph, open_store(config.store), selection, config.run_id())
    if options.json:
        print_json({"run": config.run_id(), "stages": plan_table(plan)})
    else:
        print_plan(config.run_id(), plan)
    return 0


def resume_verb(options: argparse.Namespace) -> int:
    """Go on with a run as its last attempt was asked for."""
    store = store_of(options)
    state = unfinished_attempt(store, options.run)
    wrong = [s for s in options.set if not s.startswith(("session.", "execution."))]
    if wrong:
        raise UsageMistake(
            f"--set {' '.join(wrong)} would make another run: give it to `python -m pipeline run`; "
            "resume takes session.KEY and execution.KEY"
        )
    config = parse_config(state.config, options.set)
    if config.run_id() != state.run_id:
        raise UsageMistake(
            f"{state.run_id} was made by another version of the project: today its settings make "
            f"{config.run_id()}. Start it anew with `python -m pipeline run`"
        )
    if open_store(config.store).url != store.url:
        raise UsageMistake(
            f"{state.run_id} in {store.url} works with the store {config.store}: give --store "
            f"{config.store}, or run it anew"
        )
    graph = build_graph(config)
    chosen = frozenset(state.chosen) & graph.keys()
    check_ready(graph, chosen)
    options.keep_going |= state.keep_going
    return _drive(config, graph, chosen, dict(state.forced), options)


def unfinished_attempt(store: ObjectStore, name: str) -> RunState:
    """Return the attempt to go on with: the named one, else the last that did not end well."""
    state = load_run(store, name)
    if "@" in name:
        return state
    unfinished = [a for a in load_attempts(store, state.run_id) if a.status != "finished"]
    return unfinished[-1] if unfinished else state


def selection_of(graph: Mapping[str, Node], options: argparse.Namespace) -> Selection:
    """Return what a command's options choose."""
    return select(
        graph,
        first=_split(options.first),
        last=_split(options.last),
        only=_split(options.only),
        force=None if options.force is None else _split(options.force),
        downstream=options.downstream,
    )


def store_of(options: argparse.Namespace) -> ObjectStore:
    """Open the store that a command names, or the default one.

    Raises:
        UsageMistake: what it names can be no store.
    """
    try:
        return open_store(options.store or str(outputs_root() / "store"))
    except ValueError as error:
        raise UsageMistake(f"--store: {error}") from error


def run_tags(config: PipelineConfig) -> dict[str, str]:
    """Return what identifies a run's origin: project version of the code, preset."""
    commit = os.environ.get("DEPTH_COMMIT", "")
    if not commit and shutil.which("git"):
        command = ["git", "-C", str(PROJECT_ROOT), "rev-parse", "HEAD"]
        commit = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    return {"mlflow.source.git.commit": commit or "unknown", "depth.preset": config.name}


def _drive(
    config: PipelineConfig,
    graph: Mapping[str, Node],
    chosen: frozenset[str],
    forced: dict[str, str],
    options: argparse.Namespace,
) -> int:
    store = open_store(config.store)
    display = RunDisplay(list(graph), Console(stderr=True) if options.json else None)
    driver = Driver(
        store=store,
        run_id=config.run_id(),
        open_session=lambda: open_session(
            config.session, config.tracking, outputs_root() / "mlartifacts", run_stage.__module__
        ),
        scratch=outputs_root() / "scratch",
        config=config.model_dump(mode="json", by_alias=True),
        tags=run_tags(config),
        wait=options.wait,
        say=display.say,
        plan={
            "chosen": tuple(sorted(chosen)),
            "forced": forced,
            "keep_going": options.keep_going,
        },
    )
    execution = Execution(
        graph=graph,
        driver=driver,
        display=display,
        chosen=chosen,
        forced=dict(forced),
        settings=config.execution,
        keep_going=options.keep_going,
    )
    records = execution.run()
    if options.json:
        stages = results_table(records)
        print_json({"run": config.run_id(), "store": store.url, "stages": stages})
    else:
        print_results(config, store, records)
    return 0


def _split(values: Sequence[str]) -> list[str]:
    return [name for value in values for name in value.split(",") if name]
