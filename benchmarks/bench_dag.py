"""What the pipeline's own work costs, against DVC, Dagster and Metaflow, as whole processes.

Run:
    python -m benchmarks.bench_dag                             # about five minutes
    python -m benchmarks.bench_dag --only execute --peers dagster --repeats 5
    python -m benchmarks.bench_dag --only cached thousand --peers

1. cached: ``plan``, and ``run`` with nothing to do. Ours on six real stages, run once before, and
   on six no-op stages; the peers on six no-op stages, asked what comes nearest.
2. thousand: a plan of 1,000 no-op stages, in a fresh process each time.
3. execute: no-op stages that all run. A chain, since there each stage's overhead is waited for:
   a chain of 6, a longer one, and the difference per stage. Ours runs on a Ray that is up, with
   MLflow in sqlite; the peers in their local ways: no server, telemetry off, DVC without git.
   Sides whose stages take a tenth of a second and more have a chain of 30 and one turn, the others
   one of ``--long`` and ``--repeats`` turns: their difference would drown in a run's start.

The peers are installed into ``.cache/bench_dag`` at their first use (pip), and six small real
stages are run once there. Commands take turns, so that a busy machine slows all; figures are
medians. Every command's output is checked for having run, or skipped, as many stages as it was
asked to. Every demand has a line ``target met`` or ``target MISSED`` at the end of its part.
"""

import argparse
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from benchmarks.dag.noop import SHAPES
from benchmarks.dag.peers import VERSIONS, Command, Peer, find_peers
from benchmarks.dag.ray_head import Head, ray_head
from benchmarks.target import print_target
from cluster.session import PROJECT_ROOT

CACHE = PROJECT_ROOT / ".cache" / "bench_dag"
SIX = PROJECT_ROOT / "benchmarks" / "dag" / "six.toml"
HEAVY = ("torch", "torchvision", "ray", "mlflow", "boto3", "webdataset")
NUM_FEW, NUM_SLOW, NUM_MANY = 6, 30, 1000
OURS = "ours, on a running Ray"
MAX_CACHED_S, MAX_PLAN_S = 1.5, 1.0
PARTS = ("cached", "thousand", "execute")


def output_of(command: Command) -> tuple[float, str]:
    """Run a command; return its wall time in seconds and its output.

    Raises:
        SystemExit: it failed, or did not do what it was asked, so that its time means nothing.
    """
    environment = command.environment or dict(os.environ)
    start_s = time.perf_counter()
    done = subprocess.run(
        command.arguments, cwd=command.folder, env=environment, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip
    seconds = time.perf_counter() - start_s
    count = done.stdout.count(command.proof) if command.proof else 0
    if done.returncode or count != command.num_proofs:
        raise SystemExit(
            f"{' '.join(command.arguments)}: exit code {done.returncode}, {command.proof!r} "
            f"{count} times instead of {command.num_proofs}:\n{done.stdout[-3000:]}"
        )
    return seconds, done.stdout


def measure(makers: Mapping[str, Callable[[], Command]], repeats: int) -> dict[str, list[float]]:
    """Time commands in turns, after one round that does not count; name -> seconds."""
    times_s: dict[str, list[float]] = {name: [] for name in makers}
    for repeat in range(repeats + 1):
        for name, make in makers.items():
            seconds, _ = output_of(make())
            if repeat:
                times_s[name].append(seconds)
    return times_s


def show(times_s: Mapping[str, list[float]]) -> None:
    """Print a table of medians."""
    for name, samples_s in times_s.items():
        print(f"  {name:<62} {spread(samples_s)}")


def spread(samples_s: list[float]) -> str:
    """Median, least and most of some times."""
    median_s, low_s, high_s = statistics.median(samples_s), min(samples_s), max(samples_s)
    return f"{median_s:7.2f} s  ({low_s:.2f} to {high_s:.2f})"


def ours(*words: str, proof: str = "", num_proofs: int = 0) -> Command:
    """A command of the project, with the benchmark's own outputs."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "DEPTH_"))}
    environment["DEPTH_OUTPUTS"] = str(CACHE / "outputs")
    return Command("ours", [sys.executable, *words], PROJECT_ROOT, environment, proof, num_proofs)


def chain_of_ours(address: str, folder: Path, num_stages: int, text: str, proof: str) -> Command:
    """Our chain of no-op stages; on Ray only where something must run."""
    words = ["-m", "benchmarks.dag.drive", "--address", address, "--folder", str(folder)]
    made = ours(*words, "--stages", str(num_stages), "--text", text)
    return Command("ours", made.arguments, made.folder, made.environment, proof, num_stages)


def assert_light(words: list[str]) -> None:
    """Make sure that a command of ours imports nothing heavy.

    Raises:
        SystemExit: it does.
    """
    _, text = output_of(ours("-X", "importtime", *words))
    imported = set(re.findall(r"^import time:.*\|\s+(\w+)\s*$", text, re.MULTILINE))
    if "pipeline" not in imported or (found := sorted(imported & set(HEAVY))):
        raise SystemExit(f"{' '.join(words)} imports {', '.join(found)}")


def cached(repeats: int, peers: list[Peer], folder: Path, head: Head) -> None:
    """Part 1."""
    print(f"\n1. A plan, and a run with nothing to do, of {NUM_FEW} stages", flush=True)
    run, plan = (["-m", "pipeline", verb, str(SIX)] for verb in ("run", "plan"))
    output_of(ours(*run))  # what is not up to date is run once, minutes at the first time
    _, text = output_of(ours(*plan, "--json"))
    stages = json.loads(text)["stages"]
    if len(stages) != NUM_FEW or any(stage["runs"] for stage in stages):
        raise SystemExit(f"after a run the plan says:\n{text}")
    for words in (run, plan):
        assert_light(words)
    done = partial(chain_of_ours, head.address, folder, NUM_FEW, "once")
    output_of(with_environment(done("done"), head))
    print(f"  no {', '.join(HEAVY)} imported by ours; {describe(stages)}")
    makers: dict[str, Callable[[], Command]] = {
        "ours: plan, six real stages": partial(ours, *plan, proof="up to date", num_proofs=NUM_FEW),
        "ours: run, six real stages": partial(ours, *run, proof="up to date", num_proofs=NUM_FEW),
        "ours: run, six no-op stages": partial(done, "up to date"),
    }
    for peer in peers:
        for what, command in peer.again.items():
            output_of(peer.execute(NUM_FEW))
            makers[what] = partial(lambda made: made, command)
    times_s = measure(makers, repeats)
    show(times_s)
    for what in list(makers)[:2]:
        print_target(f"{what}, s", statistics.median(times_s[what]), MAX_CACHED_S)


def describe(stages: list[dict[str, object]]) -> str:
    """Say what a cached plan verified."""
    counts = [int(found[1]) for s in stages if (found := re.search(r"(\d+) obj", str(s["reason"])))]
    return f"{sum(counts)} objects verified by each plan and run of the real stages"


def thousand(repeats: int, folder: Path) -> None:
    """Part 2."""
    print(f"\n2. make_plan of {NUM_MANY:,} no-op stages, first call in a fresh process", flush=True)
    makers: dict[str, Callable[[], Command]] = {}
    for shape in SHAPES:
        words = ["-m", "benchmarks.dag.thousand", "--shape", shape, "--stages", str(NUM_MANY)]
        store = folder / f"store-{shape}"
        output_of(ours(*words, "--store", str(store), "--prepare"))
        makers[f"{shape}, all up to date"] = partial(ours, *words, "--store", str(store))
        empty = folder / f"empty-{shape}"
        makers[f"{shape}, never run"] = partial(ours, *words, "--store", str(empty))
    plans_s: dict[str, list[float]] = {name: [] for name in makers}
    wholes_s: dict[str, list[float]] = {name: [] for name in makers}
    for repeat in range(repeats + 1):
        for name, make in makers.items():
            whole_s, text = output_of(make())
            result = json.loads(text)
            if result["heavy"] or result["num_stale"] != (NUM_MANY if "never" in name else 0):
                raise SystemExit(f"{name}: {text}")
            if repeat:
                plans_s[name].append(result["seconds"])
                wholes_s[name].append(whole_s)
    for name, samples_s in plans_s.items():
        whole_s = statistics.median(wholes_s[name])
        print(f"  {name:<62} {spread(samples_s)}, whole process {whole_s:.2f} s")
    for name, samples_s in plans_s.items():
        print_target(f"plan of {NUM_MANY}, {name}, s", statistics.median(samples_s), MAX_PLAN_S)


def with_environment(command: Command, head: Head) -> Command:
    """The same command as a client of a Ray."""
    both = {**command.environment, **head.environment}
    return Command(
        command.name, command.arguments, command.folder, both, command.proof, command.num_proofs
    )


def execute(repeats: int, num_long: int, peers: list[Peer], folder: Path, head: Head) -> None:
    """Part 3."""
    print("\n3. Chains of no-op stages that all run", flush=True)

    def run_ours(num_stages: int) -> Command:
        text = f"{num_stages}-{time.time_ns()}"
        return with_environment(
            chain_of_ours(head.address, folder, num_stages, text, "done "), head
        )

    sides: dict[str, Callable[[int], Command]] = {OURS: run_ours}
    sides |= {peer.name: peer.execute for peer in peers}
    slow = {peer.name for peer in peers if peer.is_slow}
    long = {name: NUM_SLOW if name in slow else num_long for name in sides}
    makers = {
        (name, size): partial(run, size)
        for name, run in sides.items()
        for size in (NUM_FEW, long[name])
    }
    times_s: dict[tuple[str, int], list[float]] = {key: [] for key in makers}
    for turn in range(repeats + 1):  # the first one does not count, and slow ones have one
        for (name, size), make in makers.items():
            if name not in slow or turn == 1:
                seconds, _ = output_of(make())
                times_s[name, size] += [seconds] if turn else []
    print("  whole processes, and one more stage: (longer - shorter) / difference in stages")
    wholes_s, each_ms = {}, {}
    for name in sides:
        few_s, many_s = times_s[name, NUM_FEW], times_s[name, long[name]]
        pairs = zip(few_s, many_s, strict=True)
        more_ms = [1e3 * (many - few) / (long[name] - NUM_FEW) for few, many in pairs]
        wholes_s[name], each_ms[name] = statistics.median(few_s), statistics.median(more_ms)
        print(f"  {name}")
        print(
            f"    {NUM_FEW:4} stages {spread(few_s)}  {wholes_s[name] / wholes_s[OURS]:5.2f} x ours"
        )
        print(f"    {long[name]:4} stages {spread(many_s)}")
        print(
            f"    one more    {each_ms[name]:6.1f} ms ({min(more_ms):.1f} to {max(more_ms):.1f})  "
            f"{each_ms[name] / each_ms[OURS]:5.2f} x ours"
        )
    for peer in peers:
        print_target(f"one more stage, ms, beside {peer.name}", each_ms[OURS], each_ms[peer.name])


def main() -> None:
    """Measure what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--long", type=int, default=126, help="stages of the longer chain")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--peers", nargs="*", choices=list(VERSIONS), default=list(VERSIONS))
    options = parser.parse_args()
    if options.repeats < 1 or options.long <= NUM_FEW:
        parser.error(f"give at least one repeat, and more than {NUM_FEW} stages")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # Ray is stopped then, too
    with tempfile.TemporaryDirectory(prefix="bench-dag-") as scratch:
        folder = Path(scratch)
        sizes = sorted({NUM_FEW, NUM_SLOW, options.long})
        peers = find_peers(options.peers, CACHE, folder / "peers", sizes)
        versions = ", ".join(peer.name for peer in peers) or "no peers"
        print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores; {versions}")
        if "thousand" in options.only:
            thousand(options.repeats, folder)
        if {"cached", "execute"} & set(options.only):
            with ray_head() as head:
                if "cached" in options.only:
                    cached(options.repeats, peers, folder, head)
                if "execute" in options.only:
                    execute(options.repeats, options.long, peers, folder, head)
        print(f"load {os.getloadavg()[0]:.1f} at the end")


if __name__ == "__main__":
    main()
