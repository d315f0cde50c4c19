"""Run every benchmark, one after the other, each as its own command: ``python -m benchmarks``."""

import subprocess
import sys
from pathlib import Path

failed = []
for path in sorted(Path(__file__).parent.glob("bench_*.py")):
    print(f"\n== {path.stem}", flush=True)
    if subprocess.run([sys.executable, "-m", f"benchmarks.{path.stem}"], check=False).returncode:
        failed.append(path.stem)
if failed:
    sys.exit(f"failed: {', '.join(failed)}")
