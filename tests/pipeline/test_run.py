"""The command line: what it answers at once, its exit codes, its errors."""

import json
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from cluster.errors import NoSpaceLeft, ObjectCorrupt, TrackingError
from cluster.storage import open_store
from densedepth.errors import (
    BadFrameError,
    CorruptShardError,
    NonFiniteError,
    OutOfMemoryError,
    WeightsError,
)
from pipeline import cli
from pipeline.config import load_config
from pipeline.dag import build_graph
from pipeline.doctor import examine
from pipeline.errors import (
    CodeEdited,
    ConfigMistakes,
    GraphError,
    Mistake,
    NotReady,
    RunHeld,
    StageFailed,
    StageTimeout,
    UsageMistake,
    exit_code_of,
)
from pipeline.launch import run_tags
from pipeline.run import main
from pipeline.runs import list_runs
from tests.pipeline.recorded import record_all
from tests.stages.raw_frames import write_data_set

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


EARLY = """
import importlib.abc, os, runpy, signal, sys

class CtrlC(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "pipeline.config":
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, CtrlC())
sys.argv = sys.argv[1:]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""
"""Presses Ctrl-C while a command's code is being imported."""


def python(code: str, words: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run code with these arguments, with outputs of its own."""
    return subprocess.run(
        [sys.executable, "-c", code, *words],
        cwd=PROJECT,
        env={"DEPTH_OUTPUTS": str(folder / "outputs"), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("words", [["pipeline.run", "demo", "--json"], ["pipeline", "list"]])
def test_ctrl_c_before_a_command_has_begun_ends_it_quietly(words, tmp_path: Path):
    run = python(EARLY, words, tmp_path)
    assert run.returncode == 130
    assert run.stderr == "stopped before anything was begun\n"
    if "--json" in words:
        assert json.loads(run.stdout)["exit_code"] == 130
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("arguments", [["--help"], ["demo", "--plan"], ["demo", "x.y=1"]])
def test_help_plan_and_mistakes_import_nothing_heavy(arguments, tmp_path: Path):
    run = python(WATCH, arguments, tmp_path)
    assert run.returncode == 0, run.stderr
    expected = 2 if arguments[-1] == "x.y=1" else 0
    assert f"HEAVY [] {expected}" in run.stdout
    assert not any(tmp_path.iterdir())


def test_a_run_with_nothing_to_do_imports_nothing_heavy_and_is_known(tmp_path: Path, monkeypatch):
    write_data_set(tmp_path / "raw", 16, 4)
    outputs = tmp_path / "outputs"
    monkeypatch.setenv("DEPTH_OUTPUTS", str(outputs))
    # These weights cannot be had: a training that is there needs them no more.
    weights = "train.nyu.recipe.network.weights=http://127.0.0.1:9/w.pth"
    words = ["nyu_small", f"shard.nyu.root={tmp_path}/raw", weights]
    graph = build_graph(load_config(words[0], words[1:]))
    store = open_store(str(outputs / "store"))
    record_all({name: node for name, node in graph.items() if name != "register"}, store)
    for arguments in ([*words, "--plan", "--to", "report"], [*words, "--to", "report"]):
        assert not list_runs(store)
        run = subprocess.run(
            [sys.executable, "-c", WATCH, *arguments],
            cwd=PROJECT,
            env={"DEPTH_OUTPUTS": str(outputs), "PATH": "/usr/bin:/bin"},
            capture_output=True,
            text=True,
            check=True,
        )
        assert "HEAVY [] 0" in run.stdout, run.stdout + run.stderr
        assert run.stdout.count("up to date, ") == 5
    (state,) = list_runs(store)
    statuses = {name: stage.status for name, stage in state.stages.items()}
    assert statuses.pop("register") == "left out"
    assert set(statuses.values()) == {"cached"}


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
    monkeypatch.setenv("DEPTH_COMMIT", "abc123")
    assert run_tags(load_config("demo"))["mlflow.source.git.commit"] == "abc123"
    monkeypatch.delenv("DEPTH_COMMIT")
    monkeypatch.setenv("PATH", "/nonexistent")
    assert run_tags(load_config("demo"))["mlflow.source.git.commit"] == "unknown"


@pytest.mark.parametrize(
    ("words", "code", "kind", "text"),
    [
        (["run", "demo", "x.y=1"], 2, "ConfigMistakes", "no such key"),
        (["run", "--no-such"], 2, "UsageMistake", "run does not know --no-such"),
        (["graph", "--format", "png"], 2, "UsageMistake", "invalid choice: 'png'"),
        (["plan", "--downstream"], 2, "UsageMistake", "give one of them"),
        (["run", "nyu", "shard.nyu.root=/no"], 3, "NotReady", "/no"),
        (["status", "no-such-run"], 2, "UsageMistake", "no run 'no-such-run'"),
    ],
)
def test_what_is_refused_is_said_as_json_too_where_that_is_asked_for(
    words, code, kind, text, capsys, monkeypatch, tmp_path: Path
):
    monkeypatch.setenv("DEPTH_OUTPUTS", str(tmp_path))
    assert cli.main([*words, "--json"]) == code
    shown = capsys.readouterr()
    told = json.loads(shown.out)
    assert (told["kind"], told["exit_code"]) == (kind, code)
    assert text in told["error"]
    assert told["error"] in shown.err
    assert cli.main(words) == code
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    "error",
    [
        ConfigMistakes((Mistake("a.b", "1", "wrong", "did you mean a.c?"),)),
        GraphError("cycle"),
        StageFailed("train.nyu", "no luck"),
        StageFailed("train.nyu", "the store is away", 5),
        StageTimeout("train.nyu", "too long"),
        CodeEdited("train.nyu", ("stages/train.py", "stages/worker.py")),
        UsageMistake("no run x"),
        RunHeld("by another"),
        NotReady(("no data",)),
    ],
)
def test_the_pipelines_errors_survive_pickling(error):
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again)) == (type(error), str(error))
    assert again.exit_code == error.exit_code


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ValueError("no luck"), 1),
        (NonFiniteError("no number"), 1),
        (OutOfMemoryError("7 images would fit"), 1),
        (BadFrameError("a.png", "truncated"), 3),
        (WeightsError("no such file"), 3),
        (RunHeld("by another"), 4),
        (NoSpaceLeft("file:///s", "full"), 5),
        (ObjectCorrupt("file:///s", "other bytes"), 5),
        (CorruptShardError("other bytes"), 5),
        (TrackingError("http://m", "away"), 5),
        (StageFailed("a", "no luck"), 1),
        (StageFailed("a", "the store is away", 5), 5),
        (StageTimeout("a", "too long"), 6),
    ],
)
def test_every_class_of_error_has_its_exit_code_also_when_ray_carried_it(error, code):
    from ray.exceptions import RayTaskError

    assert exit_code_of(error) == code
    assert exit_code_of(RayTaskError("run_stage", "traceback", error)) == code
    assert exit_code_of(RayTaskError("run_stage", "traceback", error).as_instanceof_cause()) == code


def test_a_ray_that_cannot_be_reached_is_the_outside_worlds(capsys, monkeypatch, tmp_path: Path):
    monkeypatch.setenv("DEPTH_OUTPUTS", str(tmp_path))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    root = write_data_set(tmp_path / "raw", 16, 4)
    words = ["nyu_small", f"shard.nyu.root={root}", "--to", "shard"]
    assert main([*words, "session.address=127.0.0.1:1"]) == 5
    assert "127.0.0.1:1: no Ray answers" in capsys.readouterr().err
    (state,) = list_runs(open_store(str(tmp_path / "store")))
    assert state.status == "failed"
    assert main([*words, "session.address=head"]) == 2
    assert "session.address = 'head': give auto, or HOST:PORT" in capsys.readouterr().err
    # Something listens, and is no Ray.
    monkeypatch.setattr("ray.init", _refuse)
    monkeypatch.setattr("cluster.session.check_address", lambda address: None)
    assert main([*words, "session.address=127.0.0.1:1"]) == 5
    assert "127.0.0.1:1: RuntimeError: Version mismatch. Check" in capsys.readouterr().err


def _refuse(**arguments: object) -> None:
    raise RuntimeError("Version mismatch")


def test_overrides_may_follow_options(capsys, monkeypatch, tmp_path: Path):
    monkeypatch.setenv("DEPTH_OUTPUTS", str(tmp_path))
    assert main(["demo", "--plan", "train.nyu.recipe.epochs=5"]) == 0
    assert "train.nyu" in capsys.readouterr().out


def test_a_protocol_for_another_kind_of_depth_shows_before_anything_runs(
    capsys, monkeypatch, tmp_path: Path
):
    monkeypatch.setenv("DEPTH_OUTPUTS", str(tmp_path / "outputs"))
    root = f"shard.nyu.root={write_data_set(tmp_path / 'raw', 16, 4)}"
    words = ["nyu_small", root, "evaluate.nyu.protocol=nyu_eigen", "--to", "evaluate"]
    reason = "protocol nyu_eigen is scored against nyu_raw_depths"
    assert main(words) == 3
    shown = capsys.readouterr().err
    assert f"evaluate.nyu: {reason}" in shown
    assert "but this data set's depth is nyu_depths: choose" in shown
    assert not (tmp_path / "outputs").exists()
    assert main([*words[:-1], "train", "--plan"]) == 0
    findings = examine(load_config(words[0], words[1:3]), lambda text: None)
    told = {f.check: f.found for f in findings if f.check.startswith("protocol")}
    assert list(told) == ["protocol of evaluate.nyu"]
    assert told["protocol of evaluate.nyu"].startswith(reason)


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
