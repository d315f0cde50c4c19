"""``kill -9`` of the driver before each thing that it does outside its own memory, then ``resume``.

Every driver is a process that dies of SIGKILL: before, during and after each stage's publishing,
also when half of its bytes or of its record is written; the next one is another process. Whatever
the moment, the run is completed: equal artifacts, byte for byte, nothing that had been published
computed again, one set of MLflow runs without a step twice. A new run, one that is forced to
repeat a stage, and one that finds an artifact damaged.
"""

import json
import multiprocessing
import re
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from cluster.local_store import LocalStore
from cluster.tracking import Tracker, TrackingConfig
from pipeline.records import StageRecord, all_records, damage
from pipeline.runs import list_runs
from tests.pipeline.driven import EDGES, PRESET, RUN, drive

FIGURES = ("best_epoch", "train_seconds", "skipped_steps")
SUMMARY = [f"{name}/{figure}" for name in EDGES for figure in FIGURES]
processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload(["tests.pipeline.driven"])


@pytest.fixture(scope="module")
def empty(tmp_path_factory) -> Path:
    """A folder with an MLflow database in which nothing has run: making one takes seconds."""
    folder: Path = tmp_path_factory.mktemp("empty")
    (folder / "small.toml").write_text(PRESET)
    Tracker(TrackingConfig(uri=f"sqlite:///{folder}/mlflow.db"), folder / "mlartifacts")
    return folder


@pytest.fixture(scope="module")
def finished(empty: Path, tmp_path_factory) -> Path:
    """A folder in which the run has ended."""
    folder: Path = tmp_path_factory.mktemp("finished") / "run"
    shutil.copytree(empty, folder)
    assert command(folder, RUN, None, 1) == 0
    return folder


def command(
    folder: Path, words: tuple[str, ...], kill_before: int | None, number: int
) -> int | None:
    """Give a command in a process of its own and return how it ended."""
    (code,) = commands([(folder, words, kill_before, number)])
    return code


def commands(given: list[tuple[Path, tuple[str, ...], int | None, int]]) -> list[int | None]:
    """The same for several at once, each in a folder of its own."""
    drivers = [processes.Process(target=drive, args=one) for one in given]
    for one in drivers:
        one.start()
    for one in drivers:
        one.join()
    return [one.exitcode for one in drivers]


def store_of(folder: Path) -> LocalStore:
    return LocalStore(folder / "store")


def records(folder: Path) -> dict[str, StageRecord]:
    return {record.node: record for record in all_records(store_of(folder))}


def outcome(folder: Path) -> dict[str, Any]:
    """Return every artifact and the bytes of every object that it names."""
    found: dict[str, Any] = {}
    for name, record in records(folder).items():
        objects = {
            ref.key: store_of(folder).get_bytes(ref.key) for ref in record.artifact.objects()
        }
        found[name] = (record.artifact.model_dump(mode="json"), objects)
    (run,) = list_runs(store_of(folder))
    assert run.status == "finished"
    assert {n for n, s in run.stages.items() if s.status in ("done", "cached")} == set(EDGES)
    assert not run.forced
    return found


def tracked(folder: Path) -> dict[str, Any]:
    """Return key of a run -> status, parameters, the steps of each of its metrics."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    runs = client.search_runs([e.experiment_id for e in client.search_experiments()])
    found: dict[str, Any] = {}
    for run in runs:
        key = re.sub("again-.*", "again", run.data.tags["depth.key"])  # a forced one's is random
        assert key not in found, f"two runs for {key}"
        steps = {
            name: [m.step for m in client.get_metric_history(run.info.run_id, name)]
            for name in run.data.metrics
        }
        found[key] = (run.info.status, run.data.params, steps)
    return found


def ran(folder: Path, number: int) -> list[str]:
    path = folder / f"ran-{number}.json"
    return json.loads(path.read_text()) if path.is_file() else []


def deeds_of(folder: Path, number: int) -> list[str]:
    return (folder / f"deeds-{number}").read_text().splitlines()


def test_the_undisturbed_run_is_one_that_a_kill_can_spoil(finished: Path):
    """It publishes by conditional puts, and MLflow has each step once."""
    digests = {name: record.fingerprint.digest() for name, record in records(finished).items()}
    assert set(deeds_of(finished, 1)) >= {
        f"put_if_absent records/{name}/{digest}.json" for name, digest in digests.items()
    }
    runs = tracked(finished)
    (parent,) = (key for key in runs if "/" not in key)
    expected = {f"{parent}/{name}/{digest[:12]}" for name, digest in digests.items()}
    assert set(runs) == {parent, *expected}
    assert runs[f"{parent}/e/{digests['e'][:12]}"] == ("FINISHED", {}, {"length": [0]})
    assert runs[parent][0] == "FINISHED"
    assert runs[parent][1]["shard.x.format"] == "nyu_densedepth"
    assert runs[parent][2] == {figure: [0] for figure in SUMMARY}


@pytest.mark.parametrize("case", ["new", "forced", "damaged"])
def test_a_driver_killed_at_any_moment_loses_nothing(case, tmp_path: Path, empty, finished):
    start = empty if case == "new" else finished
    words = (*RUN, "--force", "c") if case == "forced" else RUN
    works = {"new": set(EDGES), "forced": {"c"}, "damaged": {"a"}}[case]

    def begin(name: str) -> Path:
        folder = tmp_path / name
        shutil.copytree(start, folder)
        if case == "damaged":
            (folder / "store/networks/a-a").write_bytes(b"rubbish")
        return folder

    def is_published(folder: Path, name: str) -> bool:
        record = records(folder).get(name)
        return (
            record is not None
            and (case != "forced" or bool(record.mark))
            and damage(store_of(folder), record) is None
        )

    undisturbed = begin("undisturbed")
    assert command(undisturbed, words, None, 2) == 0
    assert set(ran(undisturbed, 2)) == works
    expected, expected_runs = outcome(undisturbed), tracked(undisturbed)
    deeds = deeds_of(undisturbed, 2)

    def resume(folder: Path) -> tuple[str, ...]:
        attempt = 1 if case == "new" else 2
        known = [run for run in list_runs(store_of(folder)) if run.attempt == attempt]
        # Before its first note of itself the attempt is not known: the same command goes on.
        return ("resume", known[0].run_id, "--store", "store") if known else words

    def check(moment: int, folder: Path, published: set[str]) -> None:
        where = f"killed before {moment}: {deeds[moment]}"
        first, second = ran(folder, 2), ran(folder, 3)
        assert not published & set(second), where
        assert set(first) | set(second) == works, where
        assert len(first) + len(second) == len({*first}) + len({*second}), where
        assert outcome(folder) == expected, where
        assert tracked(folder) == expected_runs, where
        shutil.rmtree(folder)

    moments = moments_of(deeds, case == "new")
    for name in works:
        digest = records(undisturbed)[name].fingerprint.digest()
        network, record = f"networks/{name}-{name}", f"records/{name}/{digest}.json"
        order = [deed for deed in deeds if deed.endswith((network, record))]
        assert [deed.split()[-1] for deed in order] == [network, network, record, record]
        assert [deed.startswith("half of ") for deed in order] == [False, True] * 2
        assert {deeds[moment] for moment in moments} >= {*order}
    for pair in (moments[i : i + 2] for i in range(0, len(moments), 2)):
        folders = [begin(f"killed-{moment}") for moment in pair]
        killed = [(f, words, m, 2) for m, f in zip(pair, folders, strict=True)]
        assert commands(killed) == [-signal.SIGKILL] * len(pair), pair
        published = [{name for name in works if is_published(f, name)} for f in folders]
        assert commands([(f, resume(f), None, 3) for f in folders]) == [0] * len(pair), pair
        for moment, folder, names in zip(pair, folders, published, strict=True):
            check(moment, folder, names)


def moments_of(deeds: list[str], is_new: bool) -> list[int]:
    """Return the moments to die in, those left out that are like another."""
    claimed = next(n for n, deed in enumerate(deeds) if " claims/" in deed)
    first = 0 if is_new else claimed  # until then every run does the same
    # Before a write of the log everything else is as after the deed before it.
    return [
        moment
        for moment in range(first, len(deeds))
        if not (deeds[moment].startswith("put runs/") and claimed < moment < len(deeds) - 5)
    ]
