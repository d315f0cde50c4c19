"""Completion, asked as a shell asks: through argcomplete's protocol, and in a real bash."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
DEPTH = Path(sys.executable).parent / "depth"


def completed(line: str, outputs: Path) -> list[str]:
    """Return what stands for the last word of a line."""
    run = subprocess.run(
        ["bash", "-c", f'"{DEPTH}" 8>&1 9>/dev/null 1>/dev/null'],
        cwd=PROJECT,
        env={
            **os.environ,
            "DEPTH_OUTPUTS": str(outputs),
            "_ARGCOMPLETE": "1",
            "_ARGCOMPLETE_IFS": "\n",
            "COMP_LINE": line,
            "COMP_POINT": str(len(line)),
        },
        capture_output=True,
        text=True,
        check=True,
    )
    return [word.strip() for word in run.stdout.splitlines()]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("depth st", ["status"]),
        ("depth run nyu", ["nyu", "nyu_small"]),
        ("depth run demo --on", ["--only"]),
        ("depth run demo --only evaluate.k", ["evaluate.kitti"]),
        ("depth run nyu --only ev", ["evaluate", "evaluate.nyu"]),  # though it has no data root
        ("depth plan --from ev", ["evaluate", "evaluate.kitti", "evaluate.nyu"]),
        ("depth run OWN.toml --force s", ["shard", "shard.office"]),
        ("depth show demo-1", ["demo-12345678"]),
    ],
)
def test_verbs_presets_options_stages_and_runs_are_completed(line, words, tmp_path: Path):
    (tmp_path / "store/runs/demo-12345678").mkdir(parents=True)
    own = tmp_path / "own.toml"
    own.write_text('[shard.office]\nformat = "image_pairs"\n')
    assert completed(line.replace("OWN.toml", str(own)), tmp_path) == words


def test_argcompletes_global_completion_knows_the_module(tmp_path: Path):
    """``python -m pipeline``, where the environment's python comes first in the path."""
    asked = (
        'eval "$(activate-global-python-argcomplete --dest=-)"; '
        "COMP_WORDS=(python -m pipeline gra); COMP_CWORD=3; COMP_TYPE=9; "
        'COMP_LINE="python -m pipeline gra"; COMP_POINT=22; '
        '_python_argcomplete_global python gra pipeline; echo "${COMPREPLY[@]}"'
    )
    run = subprocess.run(
        ["bash", "-c", asked],
        cwd=PROJECT,
        env={**os.environ, "PATH": f"{DEPTH.parent}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.split() == ["graph"]


def test_the_code_for_bash_makes_bash_complete(tmp_path: Path):
    code = subprocess.run(
        [sys.executable, "-m", "pipeline", "completion", "bash"],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    asked = (
        'COMP_WORDS=(depth doc); COMP_CWORD=1; COMP_LINE="depth doc"; COMP_POINT=9; COMP_TYPE=9; '
        '_python_argcomplete depth doc depth; echo "${COMPREPLY[@]}"'
    )
    run = subprocess.run(
        ["bash", "-c", f"{code}\ncomplete -p depth\n{asked}"],
        env={**os.environ, "PATH": f"{DEPTH.parent}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "_python_argcomplete" in run.stdout
    assert run.stdout.split()[-1] == "doctor"
