"""Bad input by the user's own command: a clear message, an exit code, nothing lost."""

import subprocess
from pathlib import Path

import pytest

from tests.integration.test_pipeline import pipeline
from tests.stages.test_shard import write_pair


def preset(folder: Path, root: Path) -> str:
    """Write a preset that only shards, and return its path."""
    path = folder / "small.toml"
    path.write_text(
        f'[shard.nyu]\nformat = "nyu_densedepth"\nroot = "{root}"\nsamples_per_shard = 4\n'
        "max_bad_share = 0.2\n"
    )
    return str(path)


def data_set(root: Path) -> Path:
    """Write a small raw data set in DenseDepth's layout."""
    train = "".join(write_pair(root, "nyu2_train", n) for n in range(1, 17))
    test = "".join(write_pair(root, "nyu2_test", n) for n in range(1, 5))
    (root / "data/nyu2_train.csv").write_text(train)
    (root / "data/nyu2_test.csv").write_text(test)
    return root


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("nyu_smal",), 2, "no such preset (did you mean nyu_small?)"),
        (("demo", "train.nyu.recipe.epocs=1"), 2, "no such key (did you mean epochs?)"),
        (("demo", "shard.nyu.min_depth_m=50"), 2, "the depth range is upside down"),
        (("nyu", "shard.nyu.root=/no/such/folder"), 1, "/no/such/folder"),
    ],
)
def test_mistakes_that_show_before_anything_runs(tmp_path: Path, arguments, code, message):
    run = pipeline(tmp_path, *arguments)
    assert (run.returncode, message in run.stderr) == (code, True), run.stderr
    assert "Traceback" not in run.stderr
    assert not (tmp_path / "mlflow.db").exists()


def test_an_empty_split_is_named(tmp_path: Path):
    root = data_set(tmp_path / "raw")
    (root / "data/nyu2_test.csv").write_text("")
    run = pipeline(tmp_path, preset(tmp_path, root))
    assert run.returncode == 1
    assert "nyu2_test.csv" in run.stderr
    assert "Traceback" not in run.stderr


def test_a_store_that_cannot_be_written_is_named(tmp_path: Path):
    root = data_set(tmp_path / "raw")
    (tmp_path / "file").write_text("not a folder")
    run = pipeline(tmp_path, preset(tmp_path, root), f"store={tmp_path}/file/store")
    assert run.returncode == 1
    assert f"{tmp_path}/file/store" in run.stderr
    assert "Traceback" not in run.stderr


def test_bad_frames_are_told_and_the_rest_goes_on_until_there_are_too_many(tmp_path: Path):
    root = data_set(tmp_path / "raw")
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
    assert many.returncode == 1
    assert "more than max_bad_share = 0.05" in many.stderr
    assert "3.jpg" in many.stderr

    (place / "3.jpg").write_bytes(good)
    write_pair(root, "nyu2_train", 7)
    mended = pipeline(tmp_path, preset(tmp_path, root), "shard.nyu.max_bad_share=0.05")
    assert mended.returncode == 0, mended.stdout + mended.stderr


def test_a_full_disk_is_named_and_what_is_done_stays(tmp_path: Path):
    root = data_set(tmp_path / "raw")
    full = tmp_path / "full"
    full.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(full)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip("a small file system cannot be mounted here")
    try:
        run = pipeline(tmp_path, preset(tmp_path, root), f"store={full}/store")
    finally:
        subprocess.run(["umount", str(full)], check=True)
    assert run.returncode == 1
    assert "space" in run.stderr.lower()
    assert str(full) in run.stderr
    assert "Traceback" not in run.stderr
