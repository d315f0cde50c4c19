"""The whole DAG in miniature, by the user's own command, read back from the store and MLflow."""

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cluster.storage import open_store
from pipeline.records import latest_record
from stages.artifacts import AblationTable, Checkpoint, EvalReport, ReportFiles, ShardSet

PROJECT = Path(__file__).resolve().parents[2]

MINI = """
[session]
num_cpus = 4

[shard.nyu]
format = "nyu_densedepth"
root = "outputs:raw/rooms"
options = { val_fraction = 0.25 }
min_depth_m = 0.3
samples_per_shard = 4

[shard.nyu.synthetic]
num_train_scenes = 16
frames_per_scene = 1
num_test = 4
size_px = [64, 64]

[train.nyu]
num_workers = 2
protocol = "nyu_densedepth"
profile_steps = 2

[train.nyu.recipe]
epochs = 2
global_batch_size = 4
input_size_px = [64, 64]

[train.nyu.recipe.network]
encoder = "mobilenet_v2"
decoder_width = 0.0625
weights = "none"

[ablate.nyu]
num_workers = 1
max_concurrent_trials = 2

[ablate.nyu.recipe]
epochs = 1

[ablate.nyu.studies]
no_colour_swap = { set = { "augment.channel_swap_probability" = 0.0 } }
broken = { set = { "network.decoder_width" = 0.001 } }

[evaluate.nyu]
num_pictures = 2

[register]
min_ratio_to_constant = 0.0
"""


def pipeline(
    outputs: Path, *arguments: str, module: str = "pipeline.run"
) -> subprocess.CompletedProcess[str]:
    """Run the pipeline as a user does."""
    environment = {**os.environ, "DEPTH_OUTPUTS": str(outputs)}
    return subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=PROJECT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=800,
        check=False,
    )


def artifact(outputs: Path, node: str):
    record = latest_record(open_store(str(outputs / "store")), node)
    assert record is not None, node
    return record.artifact


def test_it_ends_well_and_says_where_to_look(finished):
    _, run = finished
    assert run.returncode == 0, run.stdout + run.stderr
    assert "best constant" in run.stdout
    assert "report.html" in run.stdout
    assert "make ui" in run.stdout


def test_every_stage_left_what_it_should(finished):
    outputs, _ = finished
    shards = artifact(outputs, "shard.nyu")
    assert isinstance(shards, ShardSet)
    counts = {name: split.num_samples for name, split in shards.splits.items()}
    assert counts == {"train": 12, "val": 4, "test": 4}
    assert shards.dense

    checkpoint = artifact(outputs, "train.nyu")
    assert isinstance(checkpoint, Checkpoint)
    assert checkpoint.num_workers == 2
    assert [r.step for r in checkpoint.epochs] == [3, 6]

    evaluation = artifact(outputs, "evaluate.nyu")
    assert isinstance(evaluation, EvalReport)
    assert evaluation.num_images == 4
    assert 0 < evaluation.per_image_mean["abs_rel"] < 50
    assert len(evaluation.pictures) == 2

    table = artifact(outputs, "ablate.nyu")
    assert isinstance(table, AblationTable)
    status = {t.study: t.status for t in table.trials}
    assert status == {"baseline": "finished", "no_colour_swap": "finished", "broken": "failed"}
    assert "leave none" in next(t.reason for t in table.trials if t.study == "broken")


def test_the_report_has_the_figures(finished):
    outputs, _ = finished
    store = open_store(str(outputs / "store"))
    files = artifact(outputs, "report")
    assert isinstance(files, ReportFiles)
    rel = artifact(outputs, "evaluate.nyu").per_image_mean["abs_rel"]
    assert f"{rel:.3f}" in store.get_bytes(files.html.key).decode()
    assert f"{rel:.3f}" in store.get_bytes(files.markdown.key).decode()
    assert json.loads(store.get_bytes(files.data.key))


def test_mlflow_has_one_tree_of_runs_with_everything_in_it(finished, tmp_path: Path):
    from mlflow.tracking import MlflowClient

    outputs, _ = finished
    uri = f"sqlite:///{outputs / 'mlflow.db'}"
    client = MlflowClient(uri, registry_uri=uri)  # another test may have set a registry
    experiment = client.get_experiment_by_name("depth")
    runs = client.search_runs([experiment.experiment_id])
    by_id = {r.info.run_id: r for r in runs}
    names = {r.info.run_name: r for r in runs}
    parent = next(r for r in runs if "mlflow.parentRunId" not in r.data.tags)
    stages = {"shard.nyu", "train.nyu", "ablate.nyu", "evaluate.nyu", "report", "register"}
    trials = {"baseline-seed0", "no_colour_swap-seed0", "broken-seed0"}
    assert set(names) == {parent.info.run_name} | stages | trials
    for name in stages:
        assert names[name].data.tags["mlflow.parentRunId"] == parent.info.run_id
    for name in trials:
        above = by_id[names[name].data.tags["mlflow.parentRunId"]]
        assert above.info.run_name == "ablate.nyu"
    statuses = {name: run.info.status for name, run in names.items()}
    assert statuses.pop("broken-seed0") == "FAILED"
    assert set(statuses.values()) == {"FINISHED"}

    train = names["train.nyu"]
    assert train.data.params["recipe.network.encoder"] == "mobilenet_v2"
    steps = client.get_metric_history(train.info.run_id, "step/loss")
    assert [m.step for m in steps] == [3, 6]
    figures = {"gradient_norm", "learning_rate", "images_per_second", "data_wait_share"}
    assert figures <= {name.removeprefix("step/") for name in train.data.metrics}
    assert train.data.metrics["step/skipped_steps"] == 0
    epochs = client.get_metric_history(train.info.run_id, "epoch/val_loss")
    assert [m.step for m in epochs] == [0, 1]
    assert train.data.metrics["epoch/val_per_image_abs_rel"] > 0  # by the protocol
    shards = artifact(outputs, "shard.nyu")
    digests = {d.dataset.digest for d in train.inputs.dataset_inputs}
    assert shards.splits["train"].manifest.sha256[:36] in digests
    assert parent.data.tags["mlflow.source.git.commit"]
    evaluation = artifact(outputs, "evaluate.nyu")
    assert parent.data.metrics["nyu/per_image_delta1"] == pytest.approx(
        evaluation.per_image_mean["delta1"]
    )
    pictures = client.list_artifacts(names["evaluate.nyu"].info.run_id, "pictures")
    assert len(pictures) == 2
    panels = [file.path for file in client.list_artifacts(train.info.run_id, "panels")]
    assert panels == ["panels/epoch-000.jpg", "panels/epoch-001.jpg"]
    trace = client.download_artifacts(train.info.run_id, "trace.json.gz", str(tmp_path))
    steps_traced = {
        event["name"]
        for event in json.loads(gzip.decompress(Path(trace).read_bytes()))["traceEvents"]
        if event["name"].startswith("ProfilerStep")
    }
    assert len(steps_traced) == 2
    version = client.get_model_version_by_alias("densedepth-nyu", "champion")
    assert version.tags["depth.network_sha256"] == artifact(outputs, "train.nyu").network.sha256


def test_the_same_command_again_verifies_and_skips_every_stage(finished):
    outputs, _ = finished
    again = pipeline(outputs, str(outputs / "mini.toml"))
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("cached  up to date") == 6
    assert " runs " not in again.stdout


def test_a_training_that_ended_before_its_record_was_written_is_not_lost(finished):
    """A driver that died between the last epoch and the record: the same run goes on."""
    outputs, _ = finished
    store = open_store(str(outputs / "store"))
    before = latest_record(store, "train.nyu")
    assert before is not None
    store.delete(f"records/train.nyu/{before.fingerprint.digest()}.json")
    again = pipeline(outputs, str(outputs / "mini.toml"))
    assert again.returncode == 0, again.stdout + again.stderr
    after = latest_record(store, "train.nyu")
    assert after is not None
    assert after.artifact.network.sha256 == before.artifact.network.sha256
    assert after.mlflow_run_id == before.mlflow_run_id
    assert again.stdout.count("cached  up to date") == 5


def test_a_plan_names_what_a_change_makes_stale(finished):
    outputs, _ = finished
    plan = pipeline(outputs, str(outputs / "mini.toml"), "evaluate.nyu.num_pictures=1", "--plan")
    assert plan.returncode == 0
    lines = {line.split()[0]: line for line in plan.stdout.splitlines() if " " in line}
    assert "num_pictures 2 -> 1" in lines["evaluate.nyu"]
    assert "skip" in lines["train.nyu"]
    assert "run" in lines["report"]


def test_a_sweep_leaves_all_that_a_finished_run_needs(finished):
    outputs, _ = finished
    swept = pipeline(outputs, "gc", "--delete", "--json", module="pipeline")
    assert swept.returncode == 0, swept.stderr
    gone = json.loads(swept.stdout)["objects"]
    assert {key.split("/")[0] for key in gone} == {"ray"}
    for words in (("verify",), ("shards", "verify", str(outputs / "mini.toml"))):
        checked = pipeline(outputs, *words, module="pipeline")
        assert checked.returncode == 0, checked.stdout + checked.stderr
    again = pipeline(outputs, str(outputs / "mini.toml"))
    assert again.stdout.count("cached  up to date") == 6, again.stdout + again.stderr


def test_the_run_is_listed_shown_and_drawn(finished):
    outputs, _ = finished
    words = (("list",), ("status",), ("show", "mini"), ("graph", str(outputs / "mini.toml")))
    for verb in words:
        shown = pipeline(outputs, *verb, "--json", module="pipeline")
        assert shown.returncode == 0, shown.stderr
        assert json.loads(shown.stdout), verb
    (run,) = json.loads(pipeline(outputs, "list", "--json", module="pipeline").stdout)
    rel = artifact(outputs, "evaluate.nyu").per_image_mean["delta1"]
    assert run["figures"] == {"nyu": pytest.approx(rel)}
