"""DVC, Dagster and Metaflow, each in an environment of its own, with a chain of no-op stages.

Each stage writes the time of day, so that none is a repetition, and needs the stage before.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

VERSIONS = {"dvc": "3.67.1", "dagster": "1.13.29", "metaflow": "2.19.39"}


@dataclass(frozen=True)
class Command:
    """One process to time, and how its output proves that it did what it was asked.

    Attributes:
        name: whose it is, as a table shows it.
        arguments: the command line.
        folder: where it runs.
        environment: what it adds to the environment.
        proof: a text of its output.
        num_proofs: how often that text stands there.
    """

    name: str
    arguments: list[str]
    folder: Path
    environment: dict[str, str] = field(default_factory=dict)
    proof: str = ""
    num_proofs: int = 0


@dataclass(frozen=True)
class Peer:
    """What a peer is asked.

    Attributes:
        name: with its version.
        execute: number of stages -> the command that executes them all.
        again: what comes nearest to a run with nothing to do, and what it does.
        is_slow: whether a stage takes it a tenth of a second or more.
    """

    name: str
    execute: Callable[[int], Command]
    again: dict[str, Command]
    is_slow: bool = False


def install(name: str, cache: Path) -> Path | None:
    """Make a peer's environment; return its folder of programs, or None with a word why."""
    folder = cache / f"{name}-{VERSIONS[name]}"
    if (folder / "ready").is_file():
        return folder / "bin"
    print(f"installing {name} {VERSIONS[name]} ...", flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    for command in (
        [sys.executable, "-m", "venv", str(folder)],
        [str(folder / "bin" / "pip"), "install", "--quiet", f"{name}=={VERSIONS[name]}"],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            print(f"NOT MEASURED: {name} {VERSIONS[name]} could not be installed: {last}")
            return None
    (folder / "ready").touch()
    return folder / "bin"


def find_peers(names: list[str], cache: Path, folder: Path, sizes: list[int]) -> list[Peer]:
    """Install the peers and write their chains of these sizes below a folder."""
    makers = {"dvc": _dvc, "dagster": _dagster, "metaflow": _metaflow}
    found = []
    for name in names:
        programs = install(name, cache)
        if programs is not None:
            (folder / name).mkdir(parents=True)
            found += makers[name](programs, folder / name, sizes)
    return found


def plain_environment(folder: Path) -> dict[str, str]:
    """Return an environment in which a peer reads and writes no settings of the user."""
    ours = ("RAY_", "DEPTH_", "DVC_", "DAGSTER_", "METAFLOW", "PYTHON", "VIRTUAL_ENV")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(ours)}
    return kept | {"HOME": str(folder), "DO_NOT_TRACK": "1", "USER": "benchmark"}


def _dvc(programs: Path, folder: Path, sizes: list[int]) -> list[Peer]:
    dvc = str(programs / "dvc")
    environment = plain_environment(folder) | {"DVC_NO_ANALYTICS": "1"}
    for size in sizes:
        stages = {
            f"s{n}": {"cmd": f"date +%s%N > s{n}.txt", "outs": [f"s{n}.txt"]}
            | ({"deps": [f"s{n - 1}.txt"]} if n else {})
            for n in range(size)
        }
        project = folder / str(size)
        project.mkdir()
        (project / "dvc.yaml").write_text(json.dumps({"stages": stages}))  # JSON is YAML
        for words in (["init", "--quiet", "--no-scm"], ["config", "core.analytics", "false"]):
            subprocess.run([dvc, *words], cwd=project, env=environment, check=True)

    def execute(size: int) -> Command:
        words = [dvc, "repro", "--force"]
        return Command("DVC", words, folder / str(size), environment, "Running stage", size)

    small = folder / str(sizes[0])
    again = {
        "dvc repro, nothing to do": Command(
            "DVC", [dvc, "repro"], small, environment, "didn't change, skipping", sizes[0]
        ),
        "dvc status, up to date": Command(
            "DVC", [dvc, "status"], small, environment, "are up to date", 1
        ),
    }
    return [Peer(f"DVC {VERSIONS['dvc']}", execute, again, is_slow=True)]


_DAGSTER = """
import os, time
from dagster import in_process_executor, job, op

def make(number):
    if number == 0:
        @op(name="s0")
        def stage() -> str:
            return str(time.time_ns())
    else:
        @op(name=f"s{number}")
        def stage(before: str) -> str:
            return str(time.time_ns())
    return stage

stages = [make(number) for number in range(int(os.environ["NUM_STAGES"]))]

@job(**({"executor_def": in_process_executor} if os.environ["EXECUTOR"] == "in_process" else {}))
def chain():
    value = stages[0]()
    for stage in stages[1:]:
        value = stage(value)
"""


def _dagster(programs: Path, folder: Path, sizes: list[int]) -> list[Peer]:
    (folder / "chain.py").write_text(_DAGSTER)
    (folder / "home").mkdir()
    (folder / "home" / "dagster.yaml").write_text("telemetry:\n  enabled: false\n")
    environment = plain_environment(folder) | {"DAGSTER_HOME": str(folder / "home")}
    words = [str(programs / "dagster"), "job", "execute", "-f", "chain.py"]

    def command(executor: str, size: int) -> Command:
        own = environment | {"NUM_STAGES": str(size), "EXECUTOR": executor}
        return Command("Dagster", words, folder, own, "RUN_SUCCESS", 1)  # which means: of all

    version = f"Dagster {VERSIONS['dagster']}"
    listed = Command(
        "Dagster", [str(programs / "dagster"), "job", "list", "-f", "chain.py"], folder,
        environment | {"NUM_STAGES": str(sizes[0]), "EXECUTOR": "default"}, "Job: chain", 1,
    )  # fmt: skip
    again = {
        "dagster job execute in one process: runs all again": command("in_process", sizes[0]),
        "dagster job list: only loads the graph": listed,
    }
    return [
        Peer(version, lambda size: command("default", size), again, is_slow=True),
        Peer(f"{version}, in process", lambda size: command("in_process", size), {}),
    ]


def _metaflow(programs: Path, folder: Path, sizes: list[int]) -> list[Peer]:
    for size in sizes:
        names = ["start", *(f"s{n}" for n in range(1, size - 1)), "end"]
        lines = [
            "import time",
            "from metaflow import FlowSpec, step",
            f"class Chain{size}(FlowSpec):",
        ]
        for name, after in zip(names, [*names[1:], ""], strict=True):
            lines += [
                "    @step",
                f"    def {name}(self):",
                "        self.text = str(time.time_ns())",
            ]
            lines += [f"        self.next(self.{after})"] if after else []
        lines += ["if __name__ == '__main__':", f"    Chain{size}()"]
        (folder / f"chain{size}.py").write_text("\n".join(lines) + "\n")
    environment = plain_environment(folder) | {
        "METAFLOW_USER": "benchmark",
        "METAFLOW_DATASTORE_SYSROOT_LOCAL": str(folder),
        "METAFLOW_DEFAULT_DATASTORE": "local",
        "METAFLOW_DEFAULT_METADATA": "local",
    }
    python = str(programs / "python")

    def command(size: int, *words: str, proof: str, num_proofs: int) -> Command:
        arguments = [python, f"chain{size}.py", *words]
        return Command("Metaflow", arguments, folder, environment, proof, num_proofs)

    again = {
        "metaflow resume --clone-only: copies the last run unseen": command(
            sizes[0], "resume", "--clone-only", proof=" cloned!", num_proofs=1
        )
    }
    return [
        Peer(
            f"Metaflow {VERSIONS['metaflow']}",
            lambda size: command(size, "run", proof="Task finished successfully", num_proofs=size),
            again,
            is_slow=True,
        )
    ]
