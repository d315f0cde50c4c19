"""The command line: what it answers at once, its exit codes, its errors."""

import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.errors import (
    ConfigMistakes,
    GraphError,
    Mistake,
    NotReady,
    RunHeld,
    StageFailed,
    StageTimeout,
    UsageMistake,
)
from pipeline.launch import run_tags
from pipeline.run import main

PROJECT = Path(__file__).resolve().parents[2]
WATCH = (
    "import sys\n"
    "from pipeline.run import main\n"
    "try:\n"
    "    code = main(sys.argv[1:])\n"
    "except SystemExit as exit:\n"
    "    code = exit.code\n"
    "heavy = {'torch', 'ray', 'mlflow', 'boto3', 'webdataset', 'torchvision'} & set(sys.modules)\n"
    "print('HEAVY', sorted(heavy), code)\n"
)


@pytest.mark.parametrize("arguments", [["--help"], ["demo", "--plan"], ["demo", "x.y=1"]])
def test_help_plan_and_mistakes_import_nothing_heavy(arguments, tmp_path: Path):
    run = subprocess.run(
        [sys.executable, "-c", WATCH, *arguments],
        cwd=PROJECT,
        env={"DEPTH_OUTPUTS": str(tmp_path / "outputs"), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    expected = 2 if arguments[-1] == "x.y=1" else 0
    assert f"HEAVY [] {expected}" in run.stdout
    assert not any(tmp_path.iterdir())


def test_the_plan_of_a_fresh_store_runs_everything(capsys, monkeypatch, tmp_path: Path):
    monkeypatch.setenv("DEPTH_OUTPUTS", str(tmp_path))
    assert main(["demo", "--plan"]) == 0
    shown = capsys.readouterr().out
    assert shown.count("run  ") >= 9
    assert "never run" in shown
    assert "after shard.nyu" in shown


def test_an_override_alone_changes_the_demo(capsys, monkeypatch, tmp_path: Path):
    monkeypatch.setenv("DEPTH_OUTPUTS", str(tmp_path))
    assert main(["train.nyu.recipe.epochs=0", "--plan"]) == 2
    assert "train.nyu.recipe.epochs = 0" in capsys.readouterr().err


def test_the_commit_may_be_given_where_there_is_no_git(monkeypatch):
    from pipeline.config import load_config

    monkeypatch.setenv("DEPTH_COMMIT", "abc123")
    assert run_tags(load_config("demo"))["mlflow.source.git.commit"] == "abc123"
    monkeypatch.delenv("DEPTH_COMMIT")
    monkeypatch.setenv("PATH", "/nonexistent")
    assert run_tags(load_config("demo"))["mlflow.source.git.commit"] == "unknown"


@pytest.mark.parametrize(
    "error",
    [
        ConfigMistakes((Mistake("a.b", "1", "wrong", "did you mean a.c?"),)),
        GraphError("cycle"),
        StageFailed("train.nyu", "no luck"),
        StageTimeout("train.nyu", "too long"),
        UsageMistake("no run x"),
        RunHeld("by another"),
        NotReady(("no data",)),
    ],
)
def test_the_pipelines_errors_survive_pickling(error):
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again)) == (type(error), str(error))
    assert again.exit_code == error.exit_code


def test_overrides_may_follow_options(capsys, monkeypatch, tmp_path: Path):
    monkeypatch.setenv("DEPTH_OUTPUTS", str(tmp_path))
    assert main(["demo", "--plan", "train.nyu.recipe.epochs=5"]) == 0
    assert "train.nyu" in capsys.readouterr().out


def test_missing_weights_show_before_anything_runs(capsys, monkeypatch, tmp_path: Path):
    monkeypatch.setenv("DEPTH_OUTPUTS", str(tmp_path))
    code = main(
        [
            "demo",
            "train.nyu.recipe.network.weights=/no/such.pth",
            "ablate.nyu.recipe.network.weights=none",
        ]
    )
    assert code == 3
    assert "'/no/such.pth': no such file" in capsys.readouterr().err
    assert not any(tmp_path.iterdir())
