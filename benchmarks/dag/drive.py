"""Run a chain of no-op stages as ``python -m pipeline run`` runs its graph, on a Ray that runs.

    python -m benchmarks.dag.drive --address 127.0.0.1:6379 --folder DIR --stages 6 --text run1

The execution, its driver, the session, the store and MLflow are the project's own.
"""

import argparse
from pathlib import Path

from benchmarks.dag.noop import chain
from cluster.session import SessionConfig, open_session
from cluster.storage import open_store
from cluster.tracking import TrackingConfig
from pipeline.console import RunDisplay
from pipeline.driver import Driver
from pipeline.executor import Execution, run_stage


def main() -> None:
    """Run the chain; the last line says how many stages there are records of."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--address", required=True)
    parser.add_argument("--folder", required=True, type=Path)
    parser.add_argument("--stages", required=True, type=int)
    parser.add_argument("--text", required=True, help="the same again: everything is up to date")
    options = parser.parse_args()
    graph = chain(options.stages, options.text)
    folder: Path = options.folder
    session = SessionConfig(address=options.address)
    tracking = TrackingConfig(uri=f"sqlite:///{folder}/mlflow.db")
    display = RunDisplay(list(graph))
    run_id = f"noop-{options.text}"
    driver = Driver(
        store=open_store(str(folder / "store")),
        run_id=run_id,
        open_session=lambda: open_session(
            session, tracking, folder / "mlartifacts", run_stage.__module__
        ),
        scratch=folder / "scratch",
        config={"name": run_id},
        tags={"depth.preset": "noop"},
        say=display.say,
        plan={"chosen": tuple(sorted(graph))},
    )
    records = Execution(graph, driver, display, chosen=frozenset(graph)).run()
    print(f"{len(records)} records")


if __name__ == "__main__":
    main()
