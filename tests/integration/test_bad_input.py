"""Bad input by the user's own command: a clear message, an exit code, nothing lost."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.storage import open_store
from pipeline.records import latest_record
from tests.integration.test_pipeline import pipeline
from tests.stages.raw_frames import write_data_set, write_pair

TRAIN = """
[train.nyu]
max_failures = 0

[train.nyu.recipe]
epochs = 1
global_batch_size = 4
input_size_px = [64, 64]

[train.nyu.recipe.network]
encoder = "mobilenet_v2"
decoder_width = 0.0625
weights = "none"
"""


def preset(folder: Path, root: Path, stages: str = "") -> str:
    """Write a preset that shards, and runs other stages, and return its path."""
    path = folder / "small.toml"
    path.write_text(
        f'[shard.nyu]\nformat = "nyu_densedepth"\nroot = "{root}"\nsamples_per_shard = 4\n'
        f"max_bad_share = 0.2\n{stages}"
    )
    return str(path)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("nyu_smal",), 2, "no such preset (did you mean nyu_small?)"),
        (("demo", "train.nyu.recipe.epocs=1"), 2, "no such key (did you mean epochs?)"),
        (("demo", "shard.nyu.min_depth_m=50"), 2, "the depth range is upside down"),
        (("nyu", "shard.nyu.root=/no/such/folder"), 3, "/no/such/folder"),
    ],
)
def test_mistakes_that_show_before_anything_runs(tmp_path: Path, arguments, code, message):
    run = pipeline(tmp_path, *arguments)
    assert (run.returncode, message in run.stderr) == (code, True), run.stderr
    assert "Traceback" not in run.stderr
    assert not (tmp_path / "mlflow.db").exists()


def test_all_that_is_not_there_is_told_at_once(tmp_path: Path):
    weights = "train.nyu.recipe.network.weights=/no/weights.pth"
    run = pipeline(tmp_path, "nyu_small", "shard.nyu.root=/no/such/folder", weights)
    assert run.returncode == 3
    told = run.stderr.splitlines()
    assert [line.partition(":")[0] for line in told] == ["shard.nyu", "train.nyu"]
    assert "/no/such/folder does not exist" in told[0]
    assert "'/no/weights.pth': no such file" in told[1]


def test_a_misspelt_option_of_rendered_data_is_found_before_anything_is_rendered(tmp_path: Path):
    run = pipeline(tmp_path, "demo", "shard.nyu.options.val_fracton=0.1")
    assert run.returncode == 3
    assert "did you mean 'val_fraction'?" in run.stderr
    assert not (tmp_path / "raw").exists()


def test_outputs_on_a_full_or_unwritable_disk_are_named(tmp_path: Path, small_disk: Path):
    command = preset(tmp_path, write_data_set(tmp_path / "raw", 16, 4))
    resize(small_disk, "400k")  # enough to begin, not for MLflow's database
    full = pipeline(small_disk / "outputs", command)
    nowhere = pipeline(Path("/proc/nope"), command)
    for run, place, reason in (
        (full, small_disk, "disk is full"),
        (nowhere, "/proc/nope", "No such file or directory"),
    ):
        assert run.returncode == 5
        assert str(place) in run.stderr
        assert reason in run.stderr
        assert "Traceback" not in run.stderr + run.stdout


def test_an_empty_split_is_named(tmp_path: Path):
    root = write_data_set(tmp_path / "raw", 16, 4)
    (root / "data/nyu2_test.csv").write_text("")
    run = pipeline(tmp_path, preset(tmp_path, root))
    assert run.returncode == 3
    assert "nyu2_test.csv" in run.stderr
    assert "Traceback" not in run.stderr


def test_a_store_that_cannot_be_written_is_named(tmp_path: Path):
    root = write_data_set(tmp_path / "raw", 16, 4)
    (tmp_path / "file").write_text("not a folder")
    run = pipeline(tmp_path, preset(tmp_path, root), f"store={tmp_path}/file/store")
    assert run.returncode == 5
    assert f"{tmp_path}/file/store" in run.stderr
    assert "Traceback" not in run.stderr


def test_bad_frames_are_told_and_the_rest_goes_on_until_there_are_too_many(tmp_path: Path):
    root = write_data_set(tmp_path / "raw", 16, 4)
    place = root / "data/nyu2_train/room_0001_out"
    good = (place / "3.jpg").read_bytes()
    (place / "3.jpg").write_bytes(good[:200])
    write_pair(root, "nyu2_train", 7, depth_size=(12, 32))
    some = pipeline(tmp_path, preset(tmp_path, root))
    assert some.returncode == 0, some.stdout + some.stderr
    skipped = list(tmp_path.rglob("skipped.json"))
    assert len(skipped) == 1
    text = skipped[0].read_text()
    assert "3.jpg" in text
    assert "32x12" in text

    many = pipeline(tmp_path, preset(tmp_path, root), "shard.nyu.max_bad_share=0.05")
    assert many.returncode == 3
    assert "more than max_bad_share = 0.05" in many.stderr
    assert "3.jpg" in many.stderr

    (place / "3.jpg").write_bytes(good)
    write_pair(root, "nyu2_train", 7)
    mended = pipeline(tmp_path, preset(tmp_path, root), "shard.nyu.max_bad_share=0.05")
    assert mended.returncode == 0, mended.stdout + mended.stderr


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 16 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    size = ["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(folder)]
    if subprocess.run(size, capture_output=True, check=False).returncode:
        pytest.skip("only root can mount a small file system")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def resize(disk: Path, size: str) -> None:
    subprocess.run(["mount", "-o", f"remount,size={size}", str(disk)], check=True)


def test_a_full_disk_is_named_and_with_more_space_the_same_command_goes_on(
    tmp_path: Path, small_disk: Path
):
    command = (
        preset(tmp_path, write_data_set(tmp_path / "raw", 16, 4), TRAIN),
        f"store={small_disk}/store",
    )
    in_sharding = pipeline(tmp_path, *command)
    assert in_sharding.returncode == 5
    resize(small_disk, "2m")  # enough for the shards, not for a checkpoint
    in_training = pipeline(tmp_path, *command)
    assert in_training.returncode == 5
    for run in (in_sharding, in_training):
        assert "No space left on device" in run.stderr, run.stderr
        assert str(small_disk) in run.stderr
        assert "Free some space" in run.stderr
        assert "Traceback" not in run.stderr
    store = open_store(f"{small_disk}/store")
    shards = latest_record(store, "shard.nyu")
    assert shards is not None
    resize(small_disk, "200m")
    at_last = pipeline(tmp_path, *command)
    assert at_last.returncode == 0, at_last.stdout + at_last.stderr
    assert latest_record(store, "shard.nyu") == shards
    assert latest_record(store, "train.nyu") is not None
