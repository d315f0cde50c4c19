"""The report's page stands alone: pictures in it, nothing loaded, nothing of a name is markup."""

import base64
import json
from pathlib import Path

import pytest

from stages.report import ReportConfig
from tests.stages.report_artifacts import (
    make_ablation,
    make_checkpoint,
    make_evaluation,
    make_failed_trial,
    make_picture,
    make_services,
    make_shards,
    make_trial,
)
from tests.stages.written_report import Page, everything, tables_of, write


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


def test_the_page_says_where_measured_depth_lies(tmp_path: Path) -> None:
    shards = {"nyu": make_shards(), "old": make_shards(measured_m=None)}
    files, _, _ = write(tmp_path, shards=shards)
    assert "nyu: depths of 0.1 to 10 m; measured mostly 0.71 to 9.2 m, median 2.43 m" in files["md"]
    assert "old: depths of 0.1 to 10 m; dense:" in files["md"]


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
