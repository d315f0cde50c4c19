"""The report's three files: whole, and the same every time."""

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

from stages import report
from stages.artifacts import AblationTable, Checkpoint, EvalReport, ShardSet
from tests.stages.report_artifacts import (
    CONSTANT,
    PER_IMAGE,
    make_ablation,
    make_checkpoint,
    make_evaluation,
    make_failed_trial,
    make_shards,
    make_trial,
)
from tests.stages.written_report import Page, everything, tables_of, write


def test_all_three_files_are_in_the_store_and_in_mlflow(tmp_path: Path) -> None:
    files, refs, recorder = write(tmp_path, **everything(tmp_path))
    assert refs.html.key == "reports/demo-1a2b3c4d/report/0123456789ab/report.html"
    assert set(files) == {"html", "md", "json"}
    assert recorder.files == {f"report.{form}": text.encode() for form, text in files.items()}
    assert recorder.progress_calls[0] == (0, 6)
    assert recorder.progress_calls[-1] == (6, 6)


def test_every_number_of_an_evaluation_is_in_html_and_markdown(tmp_path: Path) -> None:
    files, _, _ = write(tmp_path, **everything(tmp_path))
    evaluation = make_evaluation()
    text = Page(files["html"]).text
    numbers = [*PER_IMAGE.values(), *CONSTANT.values(), *evaluation.pooled.values()]
    numbers += [limit for interval in evaluation.intervals.values() for limit in interval]
    for value in numbers:
        assert f"{value:.3f}" in text
        assert f"{value:.3f}" in files["md"]
    for word in ("75.0 %", "3.46 M", "4 min 14 s", "epoch 3 of 4", "0.084 s an image", "487"):
        assert word in text
    for word in ("1" * 64, "2" * 64, "3" * 64, "the JPEG is cut off", evaluation.protocol_text):
        assert word in text
        assert word in files["md"]


def test_the_verdict_stands_on_top_with_both_figures(tmp_path: Path) -> None:
    files, _, _ = write(tmp_path, **everything(tmp_path))
    sentence = "beats the best constant prediction by 1.9 times: delta1 0.813 against 0.423"
    assert sentence in Page(files["html"]).text
    assert sentence in files["md"].split("## ")[0]
    assert "Warning" not in files["html"]


def test_a_network_no_better_than_a_constant_gets_a_warning(tmp_path: Path) -> None:
    weak = make_evaluation(per_image_mean={**PER_IMAGE, "delta1": CONSTANT["delta1"] * 1.05})
    files, _, _ = write(tmp_path, evaluations={"nyu": weak})
    page = Page(files["html"])
    assert "verdict warning" in page.values("article", "class")
    assert "Warning:" in page.text
    assert "hardly beats the best constant prediction (1.05 times)" in page.text
    assert "(warning)" in files["md"]


def test_equal_artifacts_give_equal_bytes(tmp_path: Path) -> None:
    first, first_refs, _ = write(tmp_path / "a", **everything(tmp_path / "a"))
    second, second_refs, _ = write(tmp_path / "b", **everything(tmp_path / "b"))
    assert first == second
    assert first_refs == second_refs


def test_markdown_tables_hold_the_metrics_under_their_heads(tmp_path: Path) -> None:
    files, _, _ = write(tmp_path, **everything(tmp_path))
    found = tables_of(files["md"])
    for table in found:
        assert {len(row) for row in table} == {len(table[0])}
        assert all(set(cell) <= set(":-") for cell in table[1])
    metrics = next(table for table in found if table[0][0] == "metric")
    rows = {row[0]: row for row in metrics[2:]}
    assert len(rows) == 9
    row = rows["δ1 ↑ (delta1)"]
    assert row[metrics[0].index("per-image mean")] == "0.813"
    assert row[metrics[0].index("95 % interval")] == "0.780 to 0.829"
    assert row[metrics[0].index("against constant")] == "+0.390 better"
    assert rows["rms ↓ (rmse, m)"][-1] == "−1.076 better"


def test_json_loads_back_to_the_artifacts(tmp_path: Path) -> None:
    inputs = everything(tmp_path)
    files, _, _ = write(tmp_path, **inputs)
    data = json.loads(files["json"])
    kinds = {
        "shards": ShardSet,
        "checkpoints": Checkpoint,
        "ablations": AblationTable,
        "evaluations": EvalReport,
    }
    for kind, model in kinds.items():
        assert model.model_validate(data[kind]["nyu"]) == inputs[kind]["nyu"]
    assert data["run_id"] == "demo-1a2b3c4d"
    assert data["verdicts"]["nyu"]["ratio"] == PER_IMAGE["delta1"] / CONSTANT["delta1"]
    assert data["verdicts"]["nyu"]["is_warning"] is False
    difference = data["studies"]["nyu"]["half_decoder"]["delta1"]["difference"]
    assert difference == pytest.approx(-0.06)


def test_values_that_are_not_finite_are_shown_and_kept(tmp_path: Path) -> None:
    inputs = everything(tmp_path)
    first, *rest = make_checkpoint().epochs
    broken = first.model_copy(update={"train_loss": math.nan})
    inputs["checkpoints"] = {"nyu": make_checkpoint(epochs=(broken, *rest))}
    inputs["evaluations"] = {
        "nyu": make_evaluation(
            per_image_mean={**PER_IMAGE, "delta1": math.nan, "rmse": math.inf},
            intervals={"delta1": (math.nan, math.nan)},
        )
    }
    diverged = make_trial("hot", 0, 0.5, curve=(0.5, math.inf, math.nan))
    nan = diverged.model_copy(update={"metrics": {"loss": math.nan, "delta1": math.nan}})
    inputs["ablations"] = {"nyu": make_ablation(make_trial("baseline", 0, 0.6), nan)}
    files, _, _ = write(tmp_path, **inputs)
    page = Page(files["html"])
    assert "cannot be compared with the best constant prediction: delta1 NaN" in page.text
    assert "∞" in page.text
    assert "The training loss was not finite in 1 epoch." in page.text
    assert page.values("path", "class").count("cross") == 3

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    data = json.loads(files["json"], parse_constant=refuse)
    loaded = EvalReport.model_validate(data["evaluations"]["nyu"])
    assert math.isnan(loaded.per_image_mean["delta1"])
    assert loaded.per_image_mean["rmse"] == math.inf


def test_a_data_set_may_lack_every_part(tmp_path: Path) -> None:
    files, _, _ = write(
        tmp_path,
        shards={"shards only": make_shards(skipped=())},
        checkpoints={"network only": make_checkpoint()},
        ablations={"ablation only": make_ablation()},
        evaluations={"figures only": make_evaluation(by_depth=())},
    )
    page = Page(files["html"])
    for name in ("shards only", "network only", "ablation only", "figures only"):
        assert f"\n## {name}\n" in files["md"]
        assert name in page.text
    assert page.text.count("This run has no evaluation of this data set.") == 3
    assert page.text.count("This run trained no network on this data set.") == 3
    assert "By depth" not in page.text


def test_a_run_without_anything_still_gives_a_report(tmp_path: Path) -> None:
    files, _, _ = write(tmp_path)
    page = Page(files["html"])
    assert "0 data sets" in page.text
    assert "table" not in page.tags
    assert tables_of(files["md"]) == []


def test_failed_trials_are_shown_with_their_reason(tmp_path: Path) -> None:
    trials = (
        make_trial("baseline", 0, 0.6),
        make_failed_trial("deeper", 0, "OutOfMemoryError: 2.10 GiB"),
        make_failed_trial("deeper", 1, ""),
    )
    files, _, _ = write(tmp_path, ablations={"nyu": make_ablation(*trials)})
    text = Page(files["html"]).text
    assert "3 ablation trials (2 failed)" in text
    assert "failed: OutOfMemoryError: 2.10 GiB" in text
    assert "failed: no reason was recorded" in text
    assert "0 of 2" in text


def test_importing_the_stage_loads_nothing_heavy() -> None:
    code = (
        "import sys; before = set(sys.modules); import stages.report; "
        "print([m for m in ('torch', 'ray', 'mlflow', 'jinja2', 'numpy') "
        "if m in set(sys.modules) - before])"
    )
    root = Path(report.__file__).parent.parent
    shown = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root
    )
    assert shown.stdout.strip() == "[]"
