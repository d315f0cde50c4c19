"""Sharding: what the planner watches; whole runs on a small Ray."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import ray
from PIL import Image

from cluster.local_store import LocalStore
from cluster.monitor import MonitorHandle
from cluster.services import Services
from densedepth.data.formats import make_reader
from densedepth.data.measured import MeasuredDepth
from densedepth.errors import DataError, EmptySplitError, MissingDataError
from stages import shard_jobs
from stages.shard import ShardConfig, run, sources, unit_doubt
from stages.shard_jobs import write_jobs
from tests.stages.raw_frames import write_data_set
from tests.stages.report_artifacts import Recorder

PROJECT = Path(__file__).resolve().parents[2]


def config(root: Path, **changes) -> ShardConfig:
    return ShardConfig(
        format="nyu_densedepth", root=str(root), **{"samples_per_shard": 4, **changes}
    )


def test_the_planner_sees_a_changed_and_a_missing_file(root: Path):
    before = sources(config(root))
    assert len(before) == 2 * (8 + 2)
    (root / "data/nyu2_train/room_0001_out/3.png").write_bytes(b"other")
    (root / "data/nyu2_train/room_0001_out/4.jpg").unlink()
    after = sources(config(root))
    changed = [Path(name).name for name in before if before[name] != after.get(name)]
    assert sorted(changed) == ["3.png", "4.jpg", "4.png"]


def test_the_planner_watches_just_the_frames_that_are_sharded(root: Path):
    settings = config(root, max_frames=2)
    reader = make_reader("nyu_densedepth", str(root))
    jobs = write_jobs(reader, root / "jobs", 4, settings.max_frames)
    used = {str(f.image_path) for job in jobs.jobs for f in jobs.frames(job)}
    watched = {name for name in sources(settings) if name.endswith(".jpg")}
    assert watched == used


def test_of_many_files_the_planner_sees_the_folder_that_changed(
    root: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(shard_jobs, "MANY_FILES", 10)
    folder = root / "data/nyu2_train/room_0001_out"
    settings = config(root, options={"val_fraction": 0.0})
    before = sources(settings)
    assert before[f"{folder} (train)"].startswith("16 files, ")
    assert len(before) == 1 + 2 * 2, "the test split is small"
    (folder / "3.png").write_bytes(b"other")
    after = sources(settings)
    assert [name for name in before if before[name] != after[name]] == [f"{folder} (train)"]
    (folder / "4.jpg").unlink()
    assert sources(settings)[f"{folder} (train)"].startswith("14 files, ")


def test_a_missing_root_is_named_with_the_setting(tmp_path: Path):
    with pytest.raises(MissingDataError, match="nowhere"):
        sources(config(tmp_path / "nowhere"))


def test_an_empty_list_is_an_empty_split(root: Path):
    (root / "data/nyu2_test.csv").write_text("")
    with pytest.raises(EmptySplitError, match="test"):
        sources(config(root))


def start_ray() -> None:
    """Start a Ray of two CPUs."""
    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        object_store_memory=80 * 2**20,
        runtime_env={"env_vars": {"PYTHONPATH": str(PROJECT), "PYTHONWARNINGS": "ignore"}},
        log_to_driver=False,
        logging_level="error",
    )


@pytest.mark.parametrize(
    ("format_", "says", "leaves_out"),
    [
        (
            "image_pairs",
            r"correct options\.depth_unit_m; .*name it in options\.invalid_values",
            "xx",
        ),
        (
            "kitti_eigen",
            r"correct format; .*lower min_within_share$",
            "invalid",
        ),
    ],
)
def test_a_doubt_of_the_unit_names_the_settings_that_the_format_has(format_, says, leaves_out):
    settings = ShardConfig(format=format_, root="/x")
    told = unit_doubt(settings, MeasuredDepth(12, 20.0, 40.0, 65.5, 0.1))
    assert re.search(says, told)
    assert "less than min_within_share = 0.5" in told
    assert "lower min_within_share" in told
    assert leaves_out not in told


@pytest.fixture(scope="module")
def small_ray() -> Iterator[None]:
    start_ray()
    yield
    ray.shutdown()


def services(folder: Path) -> tuple[Services, "Progress"]:
    progress = Progress()
    store = LocalStore(folder / "store")
    handle = MonitorHandle(progress, remote=False)
    return Services(store, handle, "shard.rooms", "run/shard.rooms/0", "m", folder), progress


class Progress(Recorder):
    """Notes progress and accepts everything for MLflow."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    def progress(self, stage, done, total, unit, text) -> None:
        super().progress(stage, done, total, unit, text)
        self.texts.append(text)

    def track(self, method, *args) -> None:
        if method == "log_bytes":
            super().track(method, *args)


@pytest.mark.cluster
def test_a_run_shards_every_split_with_few_tasks_at_once(
    small_ray, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    at_once: list[int] = []
    wait = ray.wait

    def noted(handles, **options):
        at_once.append(len(handles))
        return wait(handles, **options)

    monkeypatch.setattr(ray, "wait", noted)
    given, progress = services(tmp_path)
    shards = run(config(root, samples_per_shard=1, options={"val_fraction": 0.0}), given)
    assert {name: len(split.shards) for name, split in shards.splits.items()} == {
        "train": 8,
        "test": 2,
    }
    assert max(at_once) == 4, "twice the CPUs are submitted, not all"
    assert progress.progress_calls[0] == (0, 10)
    assert progress.progress_calls[-1] == (10, 10)
    for ref in shards.objects():
        given.store.verify(ref)
    assert shards.dense
    again, _ = services(tmp_path)
    assert run(config(root, samples_per_shard=1, options={"val_fraction": 0.0}), again) == shards


@pytest.mark.cluster
def test_bad_frames_are_counted_against_all_frames_and_told(small_ray, root: Path, tmp_path: Path):
    settings = {"samples_per_shard": 1, "options": {"val_fraction": 0.0}}
    jobs = write_jobs(
        make_reader("nyu_densedepth", str(root), val_fraction=0.0), root / "j", 1, None
    )
    first = [jobs.frames(job)[0] for job in jobs.jobs[:2]]
    for frame in first:
        frame.image_path.write_bytes(frame.image_path.read_bytes()[:200])
    given, progress = services(tmp_path)
    shards = run(config(root, max_bad_share=0.2, **settings), given)
    assert {s.frame for s in shards.skipped} == {frame.key for frame in first}
    assert shards.splits["train"].num_samples == 6
    assert progress.texts[-1] == "2 bad"
    listed = json.loads(progress.files["skipped.json"])
    assert all("JPEG" in entry["reason"] for entry in listed)
    with pytest.raises(DataError, match=r"2 of the first \d+ frames \(10 in all\) cannot be used"):
        run(config(root, max_bad_share=0.19, **settings), given)


@pytest.mark.cluster
def test_listed_frames_that_are_not_there_count_too(small_ray, root: Path, tmp_path: Path):
    settings = {"options": {"val_fraction": 0.0}}
    (root / "data/nyu2_train/room_0001_out/3.jpg").unlink()
    given, progress = services(tmp_path)
    with pytest.raises(DataError, match=r"1 of 10 listed frames are not there, .*3\.jpg"):
        run(config(root, **settings), given)
    assert not progress.progress_calls, "nothing was read"
    shards = run(config(root, max_bad_share=0.1, **settings), given)
    assert shards.splits["train"].num_samples == 7
    assert [s.reason.rpartition("/")[2] for s in shards.skipped] == ["3.jpg"]


@pytest.mark.cluster
def test_depth_in_a_wrong_unit_stops_the_stage_before_a_frame_is_sharded(
    small_ray, root: Path, tmp_path: Path
):
    given, progress = services(tmp_path)
    far = {"options": {"val_fraction": 0.0}, "min_depth_m": 20.0, "max_depth_m": 80.0}
    with pytest.raises(DataError, match=r"0% of it is from min_depth_m = 20 .*unit .* is wrong"):
        run(config(root, **far), given)
    assert not progress.progress_calls, "nothing was read"
    shards = run(config(root, min_within_share=0.0, **far), given)
    steps = np.concatenate(
        [np.asarray(Image.open(p)).ravel() for p in (root / "data/nyu2_train").glob("*/*.png")]
    )
    assert shards.measured_m == pytest.approx(np.percentile(steps / 25.5, [1, 50, 99]))
    assert shards.summary()["median_depth_m"] == shards.measured_m[1]


NUM_FRAMES = 120
RUN = """
import sys
from pathlib import Path
from tests.stages import test_shard as here
import ray
here.start_ray()
config = here.config(Path(sys.argv[1]), samples_per_shard=1, options={"val_fraction": 0.0})
here.run(config, here.services(Path(sys.argv[2]))[0])
"""


@pytest.mark.cluster
def test_a_run_that_was_killed_does_not_do_finished_shards_again(small_ray, tmp_path: Path):
    root = write_data_set(tmp_path / "raw", NUM_FRAMES, 1)
    store = LocalStore(tmp_path / "store")

    def notes() -> dict[str, int]:
        return {
            key: (store.root / key).stat().st_mtime_ns for key in store.list_keys("shard_results/")
        }

    command = [sys.executable, "-c", RUN, str(root), str(tmp_path)]
    with subprocess.Popen(command, cwd=PROJECT, stderr=subprocess.PIPE) as process:
        while len(notes()) < 5:
            assert process.poll() is None, process.stderr.read().decode()
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
    before = notes()
    assert 5 <= len(before) < NUM_FRAMES
    assert not list(store.list_keys("manifests/"))
    settings = config(root, samples_per_shard=1, options={"val_fraction": 0.0})
    shards = run(settings, services(tmp_path)[0])  # by another Ray, as after a restart
    after = notes()
    assert len(after) == NUM_FRAMES + 1
    assert {key: after[key] for key in before} == before
    assert shards.splits["train"].num_samples == NUM_FRAMES
    assert len(list(store.list_keys("manifests/"))) == 2
