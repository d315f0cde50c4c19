"""The verbs that look at runs: status, list, show, diff, verify, on runs of small stages."""

import json
from pathlib import Path

import pytest

from cluster.local_store import LocalStore
from pipeline import source_code
from pipeline.cli import main
from pipeline.lease import Holder, lease_key
from pipeline.runs import load_run
from tests.pipeline.small_graph import Settings, execute, graph


@pytest.fixture
def store(run_one: LocalStore) -> LocalStore:
    """A store with a finished run ``one`` and a run ``two`` that failed in b."""
    execute(graph(b=Settings(text="B", fail="no [luck]")), run_one, run_id="two")
    return run_one


def answer(capsys, *words: str) -> str:
    assert main(words) == 0
    return capsys.readouterr().out


def told(capsys, *words: str):
    return json.loads(answer(capsys, *words, "--json"))


def test_the_newest_run_is_shown_with_each_stages_status_and_why(store, capsys):
    shown = answer(capsys, "status")
    assert "two@1  failed" in shown
    lines = {line.split()[0]: line for line in shown.splitlines() if line.strip()}
    assert "cached" in lines["a"]
    assert "ValueError: no [luck]" in lines["b"]
    assert "python -m pipeline resume two" in shown
    facts = told(capsys, "status", "one")
    assert facts["status"] == "finished"
    assert facts["stages"]["e"]["status"] == "done"
    assert facts["seconds"] >= 0


def test_follow_ends_with_the_run(store, capsys):
    assert "two@1" in answer(capsys, "status", "two", "--follow")


def test_follow_in_json_is_a_line_per_change(store, capsys, monkeypatch):
    ended, states = load_run(store, "two"), []
    for note in ("loss 2", "loss 1"):
        state = ended.model_copy(deep=True)
        state.status, state.stages["b"].note = "running", note
        states.append(state)
    states = [*states, states[-1], ended]
    monkeypatch.setattr("pipeline.history._chosen", lambda store, name: states.pop(0))
    monkeypatch.setattr("pipeline.history.load_run", lambda store, name: states.pop(0))
    monkeypatch.setattr("pipeline.history.standing", lambda store, state, watch: state.status)
    monkeypatch.setattr("pipeline.history.time.sleep", lambda seconds: None)
    lines = answer(capsys, "status", "--follow", "--json").splitlines()
    shown = [(f["status"], f["stages"]["b"]["note"]) for f in map(json.loads, lines)]
    failed = "ValueError: no [luck]"
    assert shown == [("running", "loss 2"), ("running", "loss 1"), ("failed", failed)]


def test_a_driver_that_died_is_told_from_one_that_works(store, capsys, monkeypatch):
    state = load_run(store, "one")
    state.status, state.ended_at, state.stages["e"].status = "running", "", "runs"
    store.put_bytes("runs/one/0001.json", state.model_dump_json().encode())
    assert told(capsys, "status", "one")["status"] == "died"
    shown = answer(capsys, "status", "one")
    assert "one@1  died" in shown
    assert "e      died" in " ".join(shown.split("  ")) or "died" in shown.split("\ne ")[1][:20]
    far = Holder(owner=state.owner, run_id="one", host="far", machine="far/x/y", pid=7)
    store.put_bytes(lease_key("one"), far.data())
    monkeypatch.setattr("pipeline.history.PATIENCE_S", 0.1)
    assert told(capsys, "status", "one")["status"] == "running"
    monkeypatch.setattr("pipeline.lease.DEAD_AFTER_S", 0.5)
    monkeypatch.setattr("pipeline.history.PATIENCE_S", 3.0)
    assert told(capsys, "status", "one")["status"] == "died"


def test_runs_are_listed_the_newest_first(store, capsys):
    rows = told(capsys, "list")
    assert [(row["run"], row["status"]) for row in rows] == [("two", "failed"), ("one", "finished")]
    assert (rows[0]["stages_done"], rows[1]["stages_done"], rows[1]["stages"]) == (3, 5, 5)
    assert "2 runs in file://" in answer(capsys, "list")


def test_a_store_without_runs_is_said_to_be_empty(tmp_path: Path, capsys):
    assert "no runs yet in file://" in answer(capsys, "list", "--store", str(tmp_path / "new"))
    assert main(["status", "--store", str(tmp_path / "new")]) == 2
    assert "no runs yet" in capsys.readouterr().err


@pytest.mark.parametrize("url", ["s3://", "http://x", "s3://key:secret@bucket/x"])
@pytest.mark.parametrize("words", [("list",), ("verify",), ("gc",), ("resume", "x")])
def test_what_can_be_no_store_is_a_mistake(words, url, tmp_path: Path, capsys, monkeypatch):
    monkeypatch.setenv("DEPTH_OUTPUTS", str(tmp_path / "outputs"))
    assert main([*words, "--store", url, "--json"]) == 2
    shown = capsys.readouterr()
    assert json.loads(shown.out)["kind"] == "UsageMistake"
    assert "valid is " in shown.err
    assert "secret" not in shown.err
    assert not (tmp_path / "outputs").exists()  # no traceback was kept


def test_a_store_without_results_is_not_said_to_be_as_it_should(tmp_path: Path, capsys):
    missing = tmp_path / "no-such-folder"
    assert main(["verify", "--store", str(missing)]) == 2
    assert f"no results yet in file://{missing}" in capsys.readouterr().err
    assert not missing.exists()


def test_a_run_is_shown_with_results_events_and_configuration(store, capsys):
    shown = answer(capsys, "show", "one", "--events", "--config")
    assert "best_epoch 0" in shown
    assert "run finished" in shown
    assert '"name": "one"' in shown
    assert f"\nnetwork  {store.url}/networks/b-b  (" in shown
    facts = told(capsys, "show", "one")
    assert facts["store"] == store.url
    assert facts["results"]["b"]["made_by"] == "one"
    assert facts["results"]["b"]["objects"][0]["key"] == "networks/b-b"
    assert facts["events"][0]["event"] == "run started"


def test_a_run_may_be_named_by_its_beginning_and_attempt(store, capsys):
    assert told(capsys, "show", "on@1")["run_id"] == "one"
    for name, message in (
        ("three", "no run 'three' in file://"),
        ("one@9", "one has no attempt '9'; there are: 1"),
        ("", "several runs begin with ''"),
    ):
        assert main(["show", name]) == 2
        assert message in capsys.readouterr().err


def test_a_diff_names_config_data_code_and_figures(store, capsys):
    execute(graph(b=Settings(text="long")), store, run_id="two")
    found = told(capsys, "diff", "one", "two")
    assert [row["name"] for row in found["config"]] == ["name"]
    assert found["data"] == []
    figures = {row["name"]: (row["old"], row["new"], row["note"]) for row in found["metrics"]}
    assert figures["b train_seconds"] == (6.0, 9.0, "+3")
    assert not any(name.startswith("a ") for name in figures)
    shown = answer(capsys, "diff", "one", "two@2")
    assert "config (1)" in shown
    assert "data: no difference" in shown
    assert "b train_seconds" in shown


def test_a_diff_between_attempts_shows_changed_code(store, capsys, monkeypatch):
    before, changed = (
        {"densedepth/losses.py": source_code.SourceFile(digest, (), (0, 0, 0))}
        for digest in ("11", "22")
    )
    monkeypatch.setattr(source_code, "edited", lambda modules: [])
    monkeypatch.setattr(source_code, "reached", lambda module: before)
    execute(graph(), store, run_id="three")
    monkeypatch.setattr(source_code, "reached", lambda module: changed)
    execute(graph(), store, run_id="three")
    code = told(capsys, "diff", "three@1", "three@2")["code"]
    assert {"name": "a densedepth/losses.py", "old": "11", "new": "22", "note": ""} in code
    execute(graph(), store, run_id="three", last=["b"], force=[])
    code = told(capsys, "diff", "three@2", "three@3")["code"]
    assert code == []  # not the code of stages that only one of the two has done


def test_verify_reads_everything_and_names_what_is_damaged(store, capsys):
    assert "all as they should be" in answer(capsys, "verify")
    assert told(capsys, "verify", "one")["damaged"] == []
    path = Path(store.url_of("networks/b-b").removeprefix("file://"))
    path.write_bytes(b"B" + path.read_bytes()[1:])
    Path(store.url_of("networks/e-e").removeprefix("file://")).unlink()
    assert main(["verify", "--json"]) == 1
    damaged = {row["key"]: row for row in json.loads(capsys.readouterr().out)["damaged"]}
    assert set(damaged) == {"networks/b-b", "networks/e-e"}
    assert "its sha256 is" in damaged["networks/b-b"]["problem"]
    assert "there is no such object" in damaged["networks/e-e"]["problem"]
    assert main(["verify"]) == 1
    shown = capsys.readouterr()
    assert "2 objects or records are not what they should be" in shown.out
    assert shown.err == ""  # what goes into a log has no bar
