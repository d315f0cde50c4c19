"""The graph's drawings: what is in them, and that nothing of a name is markup."""

import json
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree

import pytest

from pipeline.cli import main
from pipeline.config import load_config
from pipeline.dag import Node, build_graph, check_graph
from pipeline.graph import (
    COLOURS,
    Look,
    depths,
    direct_needs,
    draw_mermaid,
    draw_page,
    draw_text,
    rows_of,
)
from pipeline.runs import StageStatus

NODES = check_graph(
    Node(name, ModuleType("stage"), None, inputs)
    for name, inputs in {
        "shard.a": {},
        "train.a": {"x": "shard.a"},
        "evaluate.a": {"x": "shard.a", "y": "train.a"},
        "report": {"x": {"a": "evaluate.a"}},
    }.items()
)
LOOKS = {
    "shard.a": Look("up to date", "3 objects <verified> & fine"),
    "train.a": Look("would run", "lr 1 -> 2"),
    "evaluate.a": Look("failed", "no luck"),
    "report": Look("waits", ""),
}


def test_a_node_stands_right_of_all_that_it_needs():
    assert depths(NODES) == {"shard.a": 0, "train.a": 1, "evaluate.a": 2, "report": 3}


def test_no_arrow_passes_behind_another_node():
    graph = build_graph(load_config("demo"))
    columns, rows, needs = depths(graph), rows_of(graph), direct_needs(graph)
    assert needs["report"] == ("ablate.nyu", "evaluate.nyu", "evaluate.kitti")
    assert needs["register"] == ("report",)
    at = {(columns[name], rows[name]) for name in graph}
    assert len(at) == len(graph)
    for name, inputs in needs.items():
        for needed in inputs:
            way = range(columns[needed] + 1, columns[name])
            assert not at & {(column, rows[needed]) for column in way}, (needed, name)


def test_every_state_of_a_run_has_a_colour():
    assert set(StageStatus.__args__) <= set(COLOURS)


def test_the_text_has_a_line_per_node_with_what_it_needs():
    lines = draw_text("Plan", NODES, LOOKS).splitlines()
    assert lines[0] == "Plan"
    assert lines[3] == "    evaluate.a  failed  no luck  <- shard.a, train.a"


def test_mermaid_has_nodes_states_and_edges():
    text = draw_mermaid("Plan", NODES, LOOKS)
    assert 'n0["shard.a<br/>up to date"]' in text
    assert [line.strip() for line in text.splitlines() if "-->" in line] == [
        "n0 --> n1",
        "n1 --> n2",
        "n2 --> n3",
    ]


def test_the_page_stands_alone_and_shows_notes_as_they_are():
    page = draw_page("Plan <1>", NODES, LOOKS)
    assert "<title>Plan &lt;1&gt;</title>" in page
    assert "3 objects &lt;verified&gt; &amp; fine" in page
    assert "http" not in page.replace("http://www.w3.org", "")
    drawing = page[page.index("<svg") : page.index("</svg>") + 6]
    tree = ElementTree.fromstring(drawing)
    assert len(tree.findall("g")) == 4
    assert len(tree.findall("path")) == 3


@pytest.mark.parametrize("form", ["terminal", "mermaid", "html"])
def test_the_command_draws_a_plan(form, tmp_path: Path, monkeypatch, capsys):
    monkeypatch.setenv("DEPTH_OUTPUTS", str(tmp_path / "outputs"))
    assert main(["graph", "demo", "--format", form]) == 0
    shown = capsys.readouterr().out
    assert "evaluate.kitti" in shown
    assert "would run" in shown
    target = tmp_path / "drawing"
    assert main(["graph", "demo", "--format", form, "--output", str(target)]) == 0
    assert "evaluate.kitti" in target.read_text()


def test_the_graph_as_json_has_edges_and_states(tmp_path: Path, monkeypatch, capsys):
    monkeypatch.setenv("DEPTH_OUTPUTS", str(tmp_path))
    assert main(["graph", "demo", "--json"]) == 0
    stages = {row["stage"]: row for row in json.loads(capsys.readouterr().out)["stages"]}
    assert stages["evaluate.nyu"]["needs"] == ["shard.nyu", "train.nyu"]
    assert stages["shard.nyu"]["state"] == "would run"


def test_a_file_that_cannot_be_written_is_a_mistake(tmp_path: Path, monkeypatch, capsys):
    monkeypatch.setenv("DEPTH_OUTPUTS", str(tmp_path / "outputs"))
    for words in (["--json"], ["--format", "html"]):
        assert main(["graph", "demo", *words, "--output", f"{tmp_path}/no/such/page"]) == 2
        shown = capsys.readouterr().err
        assert shown == (
            f"--output {tmp_path}/no/such/page: cannot be written (No such file or directory); "
            "name a file in a folder that is there\n"
        )


def test_json_goes_into_a_file_and_excludes_another_form(tmp_path: Path, monkeypatch, capsys):
    monkeypatch.setenv("DEPTH_OUTPUTS", str(tmp_path / "outputs"))
    path = tmp_path / "graph.json"
    assert main(["graph", "demo", "--json", "--output", str(path)]) == 0
    assert capsys.readouterr().out.split() == ["written:", str(path)]
    assert main(["graph", "demo", "--json"]) == 0
    assert path.read_text() == capsys.readouterr().out
    assert "train.nyu" in {row["stage"] for row in json.loads(path.read_text())["stages"]}
    assert main(["graph", "demo", "--json", "--format", "html"]) == 2
    assert "not allowed with argument" in capsys.readouterr().err
