"""Records of every stage of a graph, as if a run had ended, without running anything."""

from collections.abc import Mapping

from cluster.storage import ObjectStore
from pipeline.dag import Node
from pipeline.plan import make_plan
from pipeline.records import StageRecord, publish_record
from stages.artifacts import ReportFiles


def record_all(graph: Mapping[str, Node], store: ObjectStore) -> None:
    """Publish a record of each node's present fingerprint, all naming one small object."""
    ref = store.put_bytes("reports/x", b"x")
    for _ in graph:  # a stage's fingerprint is known once those before it have records
        for decision in make_plan(graph, store).values():
            if decision.runs and decision.fingerprint is not None:
                record = StageRecord(
                    node=decision.node,
                    fingerprint=decision.fingerprint,
                    artifact=ReportFiles(html=ref, markdown=ref, data=ref),
                    seconds=1.0,
                    finished_at="2026-01-01T00:00:00+00:00",
                    run_id="test",
                    mlflow_run_id="",
                )
                publish_record(store, record)
