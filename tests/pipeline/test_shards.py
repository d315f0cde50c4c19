"""Tests of pipeline/shards.py: the command, its output and its exit codes."""

import io
import json
import subprocess
import sys
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cluster.local_store import LocalStore
from densedepth.data import encode
from pipeline import cli
from pipeline.fingerprint import Fingerprint
from pipeline.records import StageRecord, node_records, publish_record
from pipeline.runs import RunState, StageState, leave_state
from stages.artifacts import ShardSet
from stages.shard import ShardConfig
from stages.shard_view import contact_sheet
from tests.stages.raw_frames import write_data_set
from tests.stages.test_shard_check import shard_all

PROJECT = Path(__file__).resolve().parents[2]


def record_of(config: ShardConfig, artifact: ShardSet, run_id: str, day: int) -> StageRecord:
    return StageRecord(
        node="shard.rooms",
        fingerprint=Fingerprint(
            code={}, config=config.deciding(), inputs={}, sources={}, libraries={}
        ),
        artifact=artifact,
        seconds=1.0,
        finished_at=f"2026-11-{day}T00:00:00+00:00",
        run_id=run_id,
        mlflow_run_id="y",
    )


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LocalStore:
    """A store with one data set, in the place where runs put it."""
    monkeypatch.setenv("DEPTH_OUTPUTS", str(tmp_path / "outputs"))
    store = LocalStore(tmp_path / "outputs/store")
    root = write_data_set(tmp_path / "raw")
    options = {"val_fraction": 0.0}
    config = ShardConfig(
        format="nyu_densedepth", root=str(root), samples_per_shard=4, options=options
    )
    publish_record(store, record_of(config, shard_all(config, store, tmp_path), "x-1", 22))
    (tmp_path / "rooms.toml").write_text(
        f'[shard.rooms]\nformat = "nyu_densedepth"\nroot = "{root}"\n'
        "samples_per_shard = 4\noptions = {val_fraction = 0.0}\n"
    )
    return store


@pytest.fixture
def shards(store: LocalStore) -> ShardSet:
    data = json.loads(store.get_bytes("records/shard.rooms/latest.json"))
    return ShardSet.model_validate(data["artifact"])


def main(arguments: list[str]) -> int:
    return cli.main(["shards", *arguments])


def run(store: LocalStore, *arguments: str) -> int:
    return main([*arguments, "--store", str(store.root)])


def printed(capsys: pytest.CaptureFixture[str]):
    return json.loads(capsys.readouterr().out)


def test_info_says_what_is_there(store, shards, capsys):
    assert run(store, "info") == 0
    shown = capsys.readouterr().out
    assert "rooms: depth 0.1 to 10 m, dense" in shown
    assert "measured mostly 0.9 to 9.6 m, median 5 m" in shown
    train = shards.splits["train"]
    line = next(line for line in shown.splitlines() if line.startswith("train"))
    assert line.split()[:3] == ["train", "8", "2"]
    assert "32x24" in line
    assert "8 bits" in line
    assert train.manifest.sha256[:16] in line
    assert run(store, "info", "--json") == 0
    (fact,) = printed(capsys)
    assert fact["splits"]["train"]["version"] == train.manifest.sha256
    assert fact["splits"]["test"]["num_samples"] == 2
    assert fact["splits"]["train"]["colour"] == ["jpg"]
    assert fact["splits"]["train"]["dataset"] == "nyu_densedepth"


def test_verify_and_repair_tell_by_their_exit_codes(store, shards, capsys):
    assert run(store, "verify") == 0
    assert "rooms: all 10 samples are as they were written" in capsys.readouterr().out
    tar = shards.splits["train"].shards[0]
    before = store.get_bytes(tar.key)
    store.put_bytes(tar.key, before[:-600])
    assert run(store, "verify") == 1
    assert f"rooms: train: truncated shard {tar.key}" in capsys.readouterr().out
    assert run(store, "verify", "--json") == 1
    (damage,) = printed(capsys)["rooms"]
    assert (damage["object"], damage["problem"], damage["key"]) == ("shard", "truncated", tar.key)
    assert run(store, "repair") == 0
    assert "1 damaged, 1 mended" in capsys.readouterr().out
    assert store.get_bytes(tar.key) == before
    assert run(store, "repair", "--json") == 0
    assert printed(capsys) == []


def test_repair_fails_where_something_is_left(store, shards, capsys, tmp_path: Path):
    store.delete(shards.splits["test"].shards[0].key)
    for picture in (tmp_path / "raw").rglob("nyu2_test/**/*.jpg"):
        picture.unlink()
    assert run(store, "repair") == 1
    shown = capsys.readouterr().out
    assert "cannot be made anew: " in shown
    assert "1 damaged, 0 mended" in shown


def test_repair_without_the_raw_data_says_so(store, shards, capsys, tmp_path: Path):
    store.delete(shards.splits["test"].shards[0].key)
    (tmp_path / "raw").rename(tmp_path / "elsewhere")
    assert run(store, "repair") == 1
    assert "does not exist; set `root`" in capsys.readouterr().out


def test_preview_draws_colour_beside_depth(store, tmp_path: Path, capsys):
    sheet = tmp_path / "new/sheet.png"
    assert run(store, "preview", "--samples", "3", "--output", str(sheet)) == 0
    assert capsys.readouterr().out.strip() == str(sheet)
    picture = np.asarray(Image.open(sheet).convert("RGB"))
    # Two columns of colour and depth, each 240 pixels wide; two rows for three samples.
    assert picture.shape[1] == 2 * (2 * 240 + 3 * 6)
    assert picture.shape[0] == 18 + 6 + 2 * (180 + 18 + 6)
    # The last place is empty, the others are not.
    assert (picture[-150:-50, 600:900] == 255).all()
    assert (picture[-150:-50, 20:220] != 255).any()
    assert run(store, "preview", "--split", "val") == 2
    assert "has no split 'val'; it has train, test" in capsys.readouterr().err


def test_wide_pictures_have_a_column_of_their_own(store, shards, tmp_path: Path, monkeypatch):
    def wide(sample):
        image, depth_m = np.full((10, 40, 3), 9, np.uint8), np.full((10, 40), 2, np.float32)
        return replace(decode(sample), image=image, depth_m=depth_m)

    decode = encode.decode
    monkeypatch.setattr(encode, "decode", wide)
    sheet = contact_sheet(store, shards, "train", 2, tmp_path)
    picture = np.asarray(Image.open(io.BytesIO(sheet)))
    tile_px, height_px = (996 - 3 * 6) // 2, round((996 - 3 * 6) / 2 / 4)
    assert picture.shape == (18 + 6 + 2 * (height_px + 18 + 6), 996, 3)
    for first in (18 + 6 + 18, 18 + 6 + 18 + height_px + 6 + 18):
        rows = picture[first : first + height_px]
        assert (rows[:, 6 : 6 + tile_px] == 9).all()
        assert (rows[:, 6 + tile_px + 6 : 996 - 6] != 255).any(axis=2).all()


@pytest.mark.parametrize("form", ["files", "tars"])
def test_export_writes_the_same_pixels_as_plain_png(store, tmp_path: Path, form: str):
    target = tmp_path / "plain"
    assert run(store, "export", "--output", str(target), "--form", form) == 0
    sources = sorted((tmp_path / "raw").rglob("nyu2_train/**/*.png"))
    found: dict[str, bytes] = {}
    if form == "files":
        found = {p.name: p.read_bytes() for p in (target / "rooms/train").iterdir()}
    else:
        assert sorted(p.name for p in (target / "rooms").iterdir()) == [
            "test-000000.tar",
            "train-000000.tar",
            "train-000001.tar",
        ]
        for path in (target / "rooms").glob("train-*.tar"):
            with tarfile.open(path) as tar:
                found |= {m.name: tar.extractfile(m).read() for m in tar}
    assert len(found) == 3 * len(sources) == 24
    for source in sources:
        (name,) = (n for n in found if n.endswith(f"-{source.stem}.depth.png"))
        ours = np.asarray(Image.open(io.BytesIO(found[name])))
        np.testing.assert_array_equal(ours, np.asarray(Image.open(source)))
        assert ours.dtype == np.uint8
        key = name.removesuffix(".depth.png")
        assert found[f"{key}.jpg"] == source.with_suffix(".jpg").read_bytes()
        assert json.loads(found[f"{key}.json"])["depth_unit_m"] == pytest.approx(10 / 255)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["verify", "--dataset", "romms"], "has no data set 'romms'; it has rooms"),
        (["export"], "--output FOLDER is missing"),
        ([], "error: the following arguments are required: action\n"),
    ],
)
def test_mistakes_are_told_and_nothing_is_done(store, capsys, arguments, message):
    assert run(store, *arguments) == 2
    assert message in capsys.readouterr().err


def test_a_store_without_data_sets_is_a_mistake(tmp_path: Path, capsys):
    assert main(["info", "--store", str(tmp_path)]) == 2
    assert "has no sharded data set: run the pipeline first" in capsys.readouterr().err
    assert main(["info", "--store", "gs://x", "--json"]) == 2
    assert "is no store URL" in json.loads(capsys.readouterr().out)["error"]
    assert main(["info", "no_such_preset"]) == 2
    assert "no such preset" in capsys.readouterr().err


def test_a_preset_names_the_store_and_the_data_sets(store, tmp_path: Path):
    command = [sys.executable, "-m", "pipeline", "shards", "verify", str(tmp_path / "rooms.toml")]
    shown = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    assert shown.returncode == 0, shown.stderr
    assert "rooms: all 10 samples" in shown.stdout


def test_without_a_preset_all_data_sets_of_the_store_are_looked_after(store, tmp_path, capsys):
    assert main(["verify"]) == 0
    assert "rooms: all 10 samples" in capsys.readouterr().out
    assert main(["verify", f"store={tmp_path / 'elsewhere'}"]) == 2
    assert "elsewhere has no sharded data set" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["0", "-1", "x"])
def test_a_wrong_number_of_samples_is_refused(text: str, capsys):
    assert main(["preview", "--samples", text]) == 2
    assert "--samples" in capsys.readouterr().err


def test_older_data_sets_are_chosen_by_their_run_their_settings_or_all_at_once(
    store, tmp_path: Path, capsys
):
    few = ShardConfig(
        format="nyu_densedepth",
        root=str(tmp_path / "raw"),
        samples_per_shard=4,
        options={"val_fraction": 0.0},
        max_frames=3,
    )
    (older,) = node_records(store, "shard.rooms")
    newer = record_of(few, shard_all(few, store, tmp_path), "y-2", 23)
    publish_record(store, newer)
    for record in (older, newer):
        stage = StageState(status="done", fingerprint=record.fingerprint.digest())
        state = RunState(
            run_id=record.run_id, attempt=1, started_at=record.finished_at, owner="x", host="h",
            pid=1, config={}, tags={}, chosen=(), stages={"shard.rooms": stage},
        )  # fmt: skip
        leave_state(store, state)

    def samples(*words: str) -> dict[str, int]:
        assert main(["info", "--json", *words]) == 0
        return {f["made_by"]: f["splits"]["train"]["num_samples"] for f in printed(capsys)}

    toml = str(tmp_path / "rooms.toml")
    assert samples() == {"y-2": 3}
    assert samples("--run", "x") == {"x-1": 8}
    assert samples("--run", "y-2@1") == {"y-2": 3}
    assert samples(toml) == {"x-1": 8}
    assert samples(toml, "shard.rooms.max_frames=3") == {"y-2": 3}
    assert samples("--all") == {"x-1": 8, "y-2": 3}
    assert main(["verify", "--all"]) == 0
    names = [f"rooms-{record.fingerprint.digest()[:8]}" for record in (older, newer)]
    shown = capsys.readouterr()
    assert [line.split(":")[0] for line in shown.out.splitlines()] == names
    assert shown.err == ""
    assert main(["verify"]) == 0
    assert capsys.readouterr().err == "1 older data set left out: see --all, --run\n"
    assert main(["info", toml, "shard.rooms.max_frames=2"]) == 2
    told = capsys.readouterr().err
    assert f"by the settings of {toml}, has no sharded data set; the store has 2 of rooms" in told
    assert main(["info", toml, "--all"]) == 2
    assert "give one of them" in capsys.readouterr().err
