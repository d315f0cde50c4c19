"""The report's three files: whole, self-contained, the same every time."""

import base64
import json
import math
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from stages import report
from stages.artifacts import AblationTable, Checkpoint, EvalReport, ReportFiles, ShardSet
from stages.report import ReportConfig
from tests.stages.report_artifacts import (
    CONSTANT,
    PER_IMAGE,
    Recorder,
    make_ablation,
    make_checkpoint,
    make_evaluation,
    make_failed_trial,
    make_picture,
    make_services,
    make_shards,
    make_trial,
)

VOID = {"meta", "img", "br", "link", "input", "hr"}


class Page(HTMLParser):
    """Reads a page strictly: every tag that is opened is closed, in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self._open:
            self.text += f" {' '.join(data.split())}"

    def values(self, tag: str, name: str) -> list[str]:
        return [value for t, n, value in self.attributes if (t, n) == (tag, name)]


def write(
    folder: Path, config: ReportConfig | None = None, **inputs: Any
) -> tuple[dict[str, str], ReportFiles, Recorder]:
    """Run the stage; give the files by extension."""
    services, recorder = make_services(folder)
    empty: dict[str, Any] = {"shards": {}, "checkpoints": {}, "ablations": {}, "evaluations": {}}
    refs = report.run(config or ReportConfig(), services, **{**empty, **inputs})
    for ref in refs.objects():
        services.store.verify(ref)
    files = {
        ref.key.rpartition(".")[2]: services.store.get_bytes(ref.key).decode()
        for ref in refs.objects()
    }
    return files, refs, recorder


def everything(folder: Path) -> dict[str, Any]:
    services, _ = make_services(folder)
    pictures = tuple(make_picture(services.store, f"{i}.png", f"frame {i}") for i in range(3))
    return {
        "shards": {"nyu": make_shards()},
        "checkpoints": {"nyu": make_checkpoint()},
        "ablations": {"nyu": make_ablation()},
        "evaluations": {"nyu": make_evaluation(pictures=pictures)},
    }


def tables_of(markdown: str) -> list[list[list[str]]]:
    """Parse a document's tables to rows of cells."""
    tables: list[list[list[str]]] = []
    is_inside = False
    for line in markdown.splitlines():
        if line.startswith("| "):
            hidden = line.replace("\\|", "\0")
            cells = [cell.strip().replace("\0", "|") for cell in hidden.split("|")[1:-1]]
            if not is_inside:
                tables.append([])
            tables[-1].append(cells)
        is_inside = line.startswith("| ")
    return tables


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


def test_the_page_loads_nothing_and_runs_no_script(tmp_path: Path) -> None:
    files, _, _ = write(tmp_path, **everything(tmp_path))
    page = Page(files["html"])
    for _, name, value in page.attributes:
        if name in ("src", "href", "xlink:href", "action", "data", "poster", "srcset"):
            assert value.startswith(("data:image/", "#"))
        assert not name.startswith("on")
    assert not {"script", "link", "iframe", "object", "embed", "base"} & set(page.tags)
    assert "http:" not in files["html"]
    assert "https:" not in files["html"]
    assert "url(" not in files["html"]
    assert "@import" not in files["html"]
    ids = [value for _, name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    assert {h.removeprefix("#") for h in page.values("a", "href")} <= set(ids)


def test_pictures_are_in_the_page_byte_for_byte(tmp_path: Path) -> None:
    inputs = everything(tmp_path)
    services, _ = make_services(tmp_path)
    jpeg = make_picture(services.store, "3.jpg", "a JPEG", "JPEG")
    inputs["evaluations"]["nyu"] = make_evaluation(
        pictures=(*inputs["evaluations"]["nyu"].pictures, jpeg)
    )
    files, _, _ = write(tmp_path, ReportConfig(num_pictures=4), **inputs)
    page = Page(files["html"])
    sources = page.values("img", "src")
    kinds = [source.partition(";")[0] for source in sources]
    assert kinds == ["data:image/png"] * 3 + ["data:image/jpeg"]
    for source, picture in zip(sources, inputs["evaluations"]["nyu"].pictures, strict=True):
        stored = services.store.get_bytes(picture.image.key)
        assert base64.b64decode(source.partition(",")[2]) == stored
        assert picture.caption in page.text
    assert page.values("img", "width") == ["8", "8", "8"]
    assert page.values("img", "height") == ["3", "3", "3"]


def test_no_more_pictures_than_asked_for(tmp_path: Path) -> None:
    files, _, recorder = write(tmp_path, ReportConfig(num_pictures=1), **everything(tmp_path))
    assert len(Page(files["html"]).values("img", "src")) == 1
    assert recorder.progress_calls[-1] == (4, 4)


def test_a_picture_of_an_unknown_kind_is_an_error(tmp_path: Path) -> None:
    services, _ = make_services(tmp_path)
    picture = make_picture(services.store, "0.bmp", "bitmap", "BMP")
    with pytest.raises(ValueError, match=r"pictures/0\.bmp begins with b'BM.*run evaluate again"):
        write(tmp_path, evaluations={"nyu": make_evaluation(pictures=(picture,))})


def test_names_from_outside_are_escaped(tmp_path: Path) -> None:
    evil = '<script>alert("1")</script>'
    services, _ = make_services(tmp_path)
    skipped = ({"split": "train", "frame": evil, "reason": f"a | b\n{evil}"},)
    trials = (
        make_trial("baseline", 0, 0.6),
        make_trial(evil, 0, 0.5, changes={evil: evil}),
        make_failed_trial(evil, 1, evil),
    )
    files, _, _ = write(
        tmp_path,
        ReportConfig(title=evil),
        shards={evil: make_shards(skipped=skipped)},
        checkpoints={evil: make_checkpoint()},
        ablations={evil: make_ablation(*trials)},
        evaluations={
            evil: make_evaluation(
                protocol_text=evil, pictures=(make_picture(services.store, "0.png", evil),)
            )
        },
    )
    page = Page(files["html"])
    assert "script" not in page.tags
    assert page.text.count(evil) >= 9
    assert "<script" not in files["md"]
    for table in tables_of(files["md"]):
        assert {len(row) for row in table} == {len(table[0])}
    assert json.loads(files["json"])["title"] == evil


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
