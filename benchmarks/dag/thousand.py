"""Plan a graph of no-op stages in a fresh process: ``make_plan``'s time, as JSON.

    python -m benchmarks.dag.thousand --store DIR --shape chain --stages 1000 [--prepare]

``--prepare`` writes a record and an object for every stage first, so that all are up to date.
"""

import argparse
import json
import sys
import time

from benchmarks.dag.noop import SHAPES, artifact
from cluster.storage import open_store
from pipeline.fingerprint import fingerprint
from pipeline.plan import make_plan
from pipeline.records import StageRecord, artifact_digest, publish_record


def main() -> None:
    """Prepare or plan."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--store", required=True)
    parser.add_argument("--shape", required=True, choices=list(SHAPES))
    parser.add_argument("--stages", required=True, type=int)
    parser.add_argument("--prepare", action="store_true")
    options = parser.parse_args()
    store = open_store(options.store)
    graph = SHAPES[options.shape](options.stages, "x")
    if options.prepare:
        digests: dict[str, str] = {}
        for name, node in graph.items():
            made = artifact(store, name, node.config)
            digests[name] = artifact_digest(made)
            publish_record(
                store,
                StageRecord(
                    node=name,
                    fingerprint=fingerprint(node, {n: digests[n] for n in node.needs()}),
                    artifact=made,
                    seconds=1.0,
                    finished_at="2026-11-22T00:00:00+00:00",
                    run_id="noop",
                    mlflow_run_id="none",
                ),
            )
        return
    start = time.perf_counter()
    plan = make_plan(graph, store)
    seconds = time.perf_counter() - start
    heavy = sorted({"torch", "ray", "mlflow", "boto3"} & sys.modules.keys())
    num_stale = sum(decision.runs for decision in plan.values())
    print(json.dumps({"seconds": seconds, "num_stale": num_stale, "heavy": heavy}))


if __name__ == "__main__":
    main()
