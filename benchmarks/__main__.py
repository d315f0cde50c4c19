"""Run every benchmark, one after the other: ``python -m benchmarks``."""

import runpy
import sys
from pathlib import Path

for path in sorted(Path(__file__).parent.glob("bench_*.py")):
    print(f"\n== {path.stem}", flush=True)
    sys.argv = [str(path)]
    runpy.run_module(f"benchmarks.{path.stem}", run_name="__main__")
