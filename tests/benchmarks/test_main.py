"""``python -m benchmarks``: each benchmark as its own command, whatever became of those before."""

import shutil
import subprocess
import sys
from pathlib import Path

MAIN = Path(__file__).resolve().parents[2] / "benchmarks" / "__main__.py"
WITH_A_PROCESS = """
import multiprocessing
from concurrent.futures import ProcessPoolExecutor

def double(number):
    return 2 * number

if __name__ == "__main__":
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        print(pool.submit(double, 21).result())
"""
"""A spawned process finds ``double`` only if the benchmark is the program that was started."""


def test_every_benchmark_is_run_as_its_own_command_and_what_failed_is_named(tmp_path: Path):
    folder = tmp_path / "benchmarks"
    folder.mkdir()
    shutil.copy(MAIN, folder)
    (folder / "bench_a.py").write_text("raise SystemExit('no luck')\n")
    (folder / "bench_b.py").write_text(WITH_A_PROCESS)
    (folder / "pairs.py").write_text("raise SystemExit('this is no benchmark')\n")
    command = [sys.executable, "-m", "benchmarks"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout == "\n== bench_a\n\n== bench_b\n42\n"
    assert done.stderr == "no luck\nfailed: bench_a\n"
    assert done.returncode == 1
