"""The pipeline as a Ray job: `ray start --head` here, `ray job submit --working-dir .` to it."""

import contextlib
import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pytest

from benchmarks.dag.ray_head import end, free_ports
from cluster.session import PROJECT_ROOT

pytestmark = pytest.mark.cluster

BIN = Path(sys.executable).parent
MAX_PACKAGE_MB = 5.0
NUM_START_ATTEMPTS = 3
START_TIMEOUT_S = 120
PACKAGES = ("pipeline", "stages", "cluster", "densedepth")

ONE_STAGE = """
[shard.nyu]
format = "nyu_densedepth"
root = "outputs:raw/rooms"

[shard.nyu.synthetic]
num_train_scenes = 2
frames_per_scene = 1
num_test = 1
size_px = [48, 64]
"""

PROBE = (
    "import ray; ray.init(log_to_driver=False); "
    "probe = ray.remote(num_cpus=1)(lambda: (__import__('time').sleep(2), "
    f"[(__import__('os').getpid(), __import__(name).__file__) for name in {PACKAGES}])[1]); "
    "found = sum(ray.get([probe.remote(), probe.remote()]), []); "
    "[print('FOUND', *pair) for pair in found]"
)
"""Imports the packages in two workers at once; single quotes only, a shell reads it."""


@dataclass(frozen=True)
class Head:
    """A Ray of this test's own: its pages, its files, and the environment of its clients."""

    url: str
    folder: Path
    env: dict[str, str]

    def ray(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run Ray's command-line tool against this head."""
        return subprocess.run(
            [str(BIN / "ray"), *arguments],
            cwd=PROJECT_ROOT,
            env=self.env,
            capture_output=True,
            text=True,
            timeout=240,
        )

    def submit(self, *entrypoint: str) -> subprocess.CompletedProcess[str]:
        """Submit the working tree as a job and wait for its end."""
        return self.ray(
            "job", "submit", "--address", self.url, "--working-dir", ".", "--", *entrypoint
        )


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    """Start a head with a token of its own; end the processes that this test started, no others."""
    folder = Path(tempfile.mkdtemp(prefix="rj-"))  # short: Ray's sockets lie below it
    env = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    env |= {
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_USAGE_STATS_ENABLED": "0",
        "DEPTH_OUTPUTS": str(folder / "outputs"),
        "OMP_NUM_THREADS": "1",
    }
    left: list[int] = []
    try:
        for attempt in range(NUM_START_ATTEMPTS):
            started = _start(folder / str(attempt), env)
            try:
                if _takes_jobs(started):
                    yield Head(started.url, folder, env)
                    return
            finally:
                left += end(started.process)
        pytest.fail(f"Ray did not start:\n{started.log.read_text()[-3000:]}")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        assert not left, f"processes of the test's Ray outlived it: {left}"


def test_a_plan_runs_in_a_job_and_its_output_is_in_the_job_log(head: Head) -> None:
    done = head.submit("python", "-m", "pipeline.run", "demo", "--plan")
    assert done.returncode == 0, done.stdout + done.stderr
    logs = head.ray("job", "logs", "--address", head.url, _job_id(done))
    for text in (done.stdout, logs.stdout):
        assert "Plan of demo-" in text
        for stage in ("shard.nyu", "train.kitti", "evaluate.nyu", "report", "register"):
            assert re.search(rf"^{re.escape(stage)} +run ", text, re.MULTILINE), stage


def test_jobs_that_fail_and_jobs_that_work_say_so_by_exit_code_and_log(head: Head) -> None:
    table = head.folder / "one_stage.toml"
    table.write_text(ONE_STAGE)
    with ThreadPoolExecutor(2) as pool:
        works = pool.submit(head.submit, "python", "-m", "pipeline.run", str(table))
        fails = pool.submit(head.submit, "python", "-m", "pipeline.run", "demmo", "lr=1")
    worked, failed = works.result(), fails.result()
    assert worked.returncode == 0, worked.stdout + worked.stderr
    assert re.search(r"^[\d:-]+ [\d:]+  shard\.nyu +runs +never run", worked.stdout, re.MULTILINE)
    assert re.search(r"^[\d:-]+ [\d:]+  shard\.nyu +done +in \d+ s", worked.stdout, re.MULTILINE)
    assert list((head.folder / "outputs" / "store").rglob("*.tar"))
    assert failed.returncode == 1
    assert "no such preset (did you mean demo?)" in failed.stdout
    assert "failed with exit code 2" in failed.stdout


def test_doctor_asks_the_cluster_whether_it_can_hold_the_request(head: Head) -> None:
    words = ["demo", "train.nyu.num_workers=512", "train.nyu.recipe.global_batch_size=512"]
    done = head.submit("python", "-m", "pipeline", "doctor", *words, "--json")
    assert done.returncode == 1, done.stdout + done.stderr
    report = done.stdout[done.stdout.index("[\n {") :]
    findings = {f["check"]: f for f in json.JSONDecoder().raw_decode(report)[0]}
    assert findings["Ray"]["status"] == "ok"
    assert re.search(r"auto: Ray [\d.]+, 1 nodes, \d+ CPUs, 0 GPUs", findings["Ray"]["found"])
    assert findings["room for train.nyu"]["status"] == "fail"
    found = findings["room for train.nyu"]["found"]
    assert "asks for 512 times 1 CPUs, 0 GPUs; there is room for 2 of them at most" in found
    assert findings["store"]["status"] == findings["MLflow"]["status"] == "ok"


def test_every_worker_imports_the_upload_which_is_the_code_and_small(head: Head) -> None:
    done = head.submit("python", "-c", PROBE)
    assert done.returncode == 0, done.stdout + done.stderr
    found = [line.split()[1:] for line in done.stdout.splitlines() if line.startswith("FOUND ")]
    assert len(found) == 2 * len(PACKAGES)
    assert len({pid for pid, _ in found}) == 2, "the two tasks shared a worker"
    folders = {Path(path).parent.parent for _, path in found}
    assert len(folders) == 1
    folder = folders.pop()
    assert folder.parent.name == "working_dir_files", f"imported from {folder}: not the upload"
    size_mb = sum(f.stat().st_size for f in folder.rglob("*") if f.is_file()) / 2**20
    assert 0.05 < size_mb < MAX_PACKAGE_MB, f"{size_mb:.1f} MB"
    names = {path.name for path in folder.iterdir()}
    assert set(PACKAGES) <= names
    assert (folder / "pipeline" / "presets" / "nyu.toml").is_file()
    assert not names & {".git", ".venv", ".cache", "outputs", "tests", "docs", "benchmarks"}


def test_a_client_without_the_token_is_turned_away(head: Head) -> None:
    with pytest.raises(urllib.error.HTTPError) as refusal:
        urllib.request.urlopen(f"{head.url}/api/jobs/", timeout=10)
    assert refusal.value.code == 401


def _job_id(done: subprocess.CompletedProcess[str]) -> str:
    match = re.search(r"raysubmit_\w+", done.stdout)
    assert match, done.stdout
    return match.group()


class Started(NamedTuple):
    """A head that may not be up yet: where it takes jobs, its node's agent, what it says."""

    process: subprocess.Popen[bytes]
    url: str
    agent_url: str
    log: Path


def _start(folder: Path, env: Mapping[str, str]) -> Started:
    """Start Ray in a session of its own, all its files below ``folder``."""
    folder.mkdir()
    gcs, dashboard, agent, client, metrics = free_ports(5)
    command = [
        *[str(BIN / "ray"), "start", "--head", "--block", "--num-cpus=2", "--num-gpus=0"],
        *["--node-ip-address=127.0.0.1", "--dashboard-host=127.0.0.1", f"--port={gcs}"],
        *[f"--dashboard-port={dashboard}", f"--dashboard-agent-listen-port={agent}"],
        *[f"--ray-client-server-port={client}", f"--metrics-export-port={metrics}"],
        *["--object-store-memory=100000000", f"--temp-dir={folder}", "--disable-usage-stats"],
    ]
    log = folder / "start.log"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            command, env=env, stdout=stream, stderr=subprocess.STDOUT, start_new_session=True
        )
    return Started(process, f"http://127.0.0.1:{dashboard}", f"http://127.0.0.1:{agent}", log)


def _takes_jobs(started: Started) -> bool:
    """Wait until the head and its agent, which runs entry points, are up; False if Ray gave up.

    Ray gives up after 30 s without its own node, which happens on a busy machine.
    """
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline and started.process.poll() is None:
        if "Ray runtime started" in started.log.read_text():
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"{started.agent_url}/api/healthz", timeout=5).close()
                return True
        time.sleep(0.5)
    return False
