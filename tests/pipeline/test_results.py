"""The tables that a run begins and ends with."""

import io
from pathlib import Path

from rich.console import Console

from cluster.storage import open_store
from pipeline.config import load_config
from pipeline.fingerprint import Fingerprint
from pipeline.plan import Decision
from pipeline.records import StageRecord
from pipeline.results import places, print_plan, print_results
from stages.artifacts import RegisteredModel, Registration, ReportFiles
from tests.stages.report_artifacts import (
    make_ablation,
    make_checkpoint,
    make_evaluation,
    make_failed_trial,
    make_ref,
    make_trial,
)


def record(node: str, artifact) -> StageRecord:
    return StageRecord(
        node=node,
        fingerprint=Fingerprint(code={}, config={}, inputs={}, sources={}, libraries={}),
        artifact=artifact,
        seconds=1.0,
        finished_at="2026-11-22T00:00:00+00:00",
        run_id="x",
        mlflow_run_id="y",
    )


def rows(text: str) -> dict[str, list[str]]:
    """Return the words of each line behind its first one."""
    return {words[0]: words[1:] for line in text.splitlines() if (words := line.split())}


def test_a_plan_says_what_why_and_how_long_it_took():
    text = io.StringIO()
    plan = {
        "shard.nyu": Decision("shard.nyu", False, ("up to date, 7 objects verified",)),
        "train.nyu": Decision("train.nyu", True, ("epochs 5 -> 6",), last_seconds=200.0),
    }
    print_plan("demo-1", plan, Console(file=text, width=120))
    told = rows(text.getvalue())
    assert told["shard.nyu"] == ["skip", "up", "to", "date,", "7", "objects", "verified"]
    assert told["train.nyu"] == ["run", "epochs", "5", "->", "6", "3", "min", "20", "s"]


def test_the_network_stands_beside_the_best_constant_and_the_studies_beside_the_baseline(
    tmp_path: Path,
):
    text = io.StringIO()
    ablation = make_ablation(
        make_trial("baseline", 0, 0.5),
        make_trial("baseline", 1, 0.6),
        make_failed_trial("deeper", 0, "out of memory"),
    )
    records = {
        "evaluate.nyu": record("evaluate.nyu", make_evaluation()),
        "ablate.nyu": record("ablate.nyu", ablation),
    }
    store = open_store(str(tmp_path / "store"))
    print_results(load_config("demo"), store, records, Console(file=text, width=120))
    told = rows(text.getvalue())
    assert "95 test frames, nyu_densedepth" in text.getvalue()
    assert told["network"][0] == "0.813"
    assert told["best"][:2] == ["constant", "0.423"]
    assert "δ1 is 1.92 times the best constant's" in text.getvalue()
    assert told["baseline"][1] == "0.550"
    assert told["deeper"][:3] == ["failed"] * 3


def test_a_run_ends_with_where_its_network_report_and_models_are(tmp_path: Path):
    text, store = io.StringIO(), open_store(str(tmp_path / "a [long] folder" / "store"))
    models = (
        RegisteredModel(
            dataset="nyu", name="d", version=3, alias="champion", uri="models:/d/3", reason=""
        ),
        RegisteredModel(dataset="kitti", name="d", version=0, alias="", uri="", reason="no better"),
    )
    files = ReportFiles(
        html=make_ref("r/a.html"), markdown=make_ref("r/a.md"), data=make_ref("r/a")
    )
    artifacts = {
        "train.nyu": make_checkpoint(network=make_ref("networks/one.safetensors")),
        "report": files,
        "register": Registration(models=models),
    }
    records = {name: record(name, artifact) for name, artifact in artifacts.items()}
    config = load_config("demo")
    print_results(config, store, records, Console(file=text, width=30))
    folder = f"file://{tmp_path}/a%20%5Blong%5D%20folder/store"
    assert text.getvalue().splitlines()[1:] == [
        f"run      {config.run_id()}",
        f"report   {folder}/r/a.html",
        f"network  {folder}/networks/one.safetensors",
        "model    models:/d/3",
        "model    kitti: no better",
        f"MLflow   make ui  (or: mlflow ui --backend-store-uri {config.tracking.uri})",
    ]
    artifacts["train.kitti"] = make_checkpoint(dataset="kitti")
    assert [where[-7:] for what, where in places(store, artifacts) if what == "network"] == [
        "  (nyu)",
        "(kitti)",
    ]
