"""The tables that a run begins and ends with."""

import shlex
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from cluster.storage import ObjectStore
from pipeline.config import PipelineConfig
from pipeline.console import duration_text
from pipeline.output import console as plain_console
from pipeline.plan import Decision
from pipeline.records import StageRecord

METRICS = {
    "delta1": "δ1 ↑",
    "delta2": "δ2 ↑",
    "delta3": "δ3 ↑",
    "abs_rel": "rel ↓",
    "rmse": "rms m ↓",
    "log10": "log10 ↓",
}


def print_plan(run_id: str, plan: Mapping[str, Decision], console: Console | None = None) -> None:
    """Say what would run, why, and how long it took last time."""
    console = console or plain_console()
    table = Table(title=f"Plan of {run_id}", box=None, title_justify="left", pad_edge=False)
    for heading in ("stage", "would", "why", "took last time"):
        table.add_column(heading)
    for name, decision in plan.items():
        took = "" if decision.last_seconds is None else duration_text(decision.last_seconds)
        does = "[cyan]run[/]" if decision.runs else "[green]skip[/]"
        table.add_row(name, does, escape(decision.reason), took)
    console.print(table)


def plan_table(plan: Mapping[str, Decision]) -> list[dict[str, Any]]:
    """Return a plan as rows for JSON."""
    return [
        {
            "stage": name,
            "runs": decision.runs,
            "reason": decision.reason,
            "causes": list(decision.causes),
            "compared_with": decision.compared_with or None,
            "fingerprint": decision.fingerprint.digest() if decision.fingerprint else None,
            "last_seconds": decision.last_seconds,
        }
        for name, decision in plan.items()
    ]


def results_table(records: Mapping[str, StageRecord]) -> list[dict[str, Any]]:
    """Return the results of a run as rows for JSON."""
    return [
        {
            "stage": name,
            "fingerprint": record.fingerprint.digest(),
            "run": record.run_id,
            "finished_at": record.finished_at,
            "seconds": record.seconds,
            "summary": record.artifact.summary(),
            "objects": [ref.model_dump() for ref in record.artifact.objects()],
        }
        for name, record in records.items()
    ]


def print_results(
    config: PipelineConfig,
    store: ObjectStore,
    records: Mapping[str, StageRecord],
    console: Console | None = None,
) -> None:
    """Print the figures of every evaluation and where report and runs can be looked at."""
    console = console or plain_console()
    artifacts: dict[str, Any] = {name: record.artifact for name, record in records.items()}
    for name, artifact in artifacts.items():
        if artifact.kind == "eval_report":
            console.print()
            console.print(_evaluation_table(name, artifact))
        elif artifact.kind == "ablation_table":
            console.print()
            console.print(_ablation_table(name, artifact))
    console.print()
    uri = config.tracking.uri
    ui = f"make ui  (or: mlflow ui --backend-store-uri {shlex.quote(uri)})"
    lines = [("run", config.run_id()), *places(store, artifacts)]
    for what, where in [*lines, ("MLflow", ui if uri.startswith("sqlite") else uri)]:
        console.print(f"{what:<9}{where}", markup=False, soft_wrap=True)


def places(store: ObjectStore, artifacts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return what a person opens next, and where it is: report, networks, registered models."""
    found: list[tuple[str, str]] = []
    if "report" in artifacts:
        found.append(("report", store.url_of(artifacts["report"].html.key)))
    networks = [a for a in artifacts.values() if a.kind == "checkpoint"]
    for artifact in networks:
        whose = f"  ({artifact.dataset})" if len(networks) > 1 else ""
        found.append(("network", store.url_of(artifact.network.key) + whose))
    if "register" in artifacts:
        for model in artifacts["register"].models:
            found.append(("model", model.uri or f"{model.dataset}: {model.reason}"))
    return found


def _evaluation_table(name: str, report: Any) -> Table:
    """Put a network's per-image means beside the best constant's."""
    title = f"{name}: {report.num_images} {report.split} frames, {report.protocol['name']}"
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    table.add_column("per-image mean")
    for heading in METRICS.values():
        table.add_column(heading, justify="right")
    rows = {"network": report.per_image_mean, "best constant": report.constant_baseline}
    for label, values in rows.items():
        table.add_row(label, *(f"{values[metric]:.3f}" for metric in METRICS))
    ratio = report.per_image_mean["delta1"] / max(report.constant_baseline["delta1"], 1e-9)
    style = "green" if ratio >= 1.1 else "red"
    table.caption = f"[{style}]δ1 is {ratio:.2f} times the best constant's[/]"
    table.caption_justify = "left"
    return table


def _ablation_table(name: str, ablation: Any) -> Table:
    """Put the studies' validation figures beside the baseline's."""
    table = Table(
        title=f"{name}: validation, per-image means", title_justify="left", box=None, pad_edge=False
    )
    table.add_column("study")
    for heading in ("loss ↓", "δ1 ↑", "rel ↓", "parameters"):
        table.add_column(heading, justify="right")
    for study, trials in ablation.studies().items():
        means = [ablation.mean_metric(study, metric) for metric in ("loss", "delta1", "abs_rel")]
        shown = ["failed" if mean is None else f"{mean:.3f}" for mean in means]
        table.add_row(study, *shown, f"{max(t.num_parameters for t in trials):,}")
    return table
