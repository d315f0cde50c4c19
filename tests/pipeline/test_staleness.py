"""A matrix of changes against the stages that must and must not become stale.

On the project's own graph and a copy of its own code: every stage has a record of its present
fingerprint, then one thing changes, and the plan is asked what would run.
"""

import ast
import importlib.metadata
import shutil
from pathlib import Path

import pytest

from cluster.local_store import LocalStore
from pipeline import fingerprint as module
from pipeline import source_code
from pipeline.config import load_config
from pipeline.dag import Node, build_graph
from pipeline.fingerprint import code_modules
from pipeline.plan import make_plan
from tests.pipeline.recorded import record_all
from tests.stages.raw_frames import write_data_set

PROJECT = Path(__file__).resolve().parents[2]
PACKAGES = ("pipeline", "stages", "cluster", "densedepth")
SHARD, TRAIN, ABLATE, EVALUATE = "shard.nyu", "train.nyu", "ablate.nyu", "evaluate.nyu"
ALL = {SHARD, TRAIN, ABLATE, EVALUATE, "report", "register"}
AFTER_TRAIN = {TRAIN, EVALUATE, "report", "register"}
AFTER_TRAINING_CODE = AFTER_TRAIN | {ABLATE}


@pytest.fixture(scope="module")
def outputs(tmp_path_factory) -> Path:
    """Where what is known of parsed files is kept, for all tests of this file."""
    folder: Path = tmp_path_factory.mktemp("outputs")
    return folder


@pytest.fixture
def project(tmp_path: Path, outputs: Path, monkeypatch) -> Path:
    """A copy of the project's code, from which fingerprints are taken."""
    for package in PACKAGES:
        shutil.copytree(PROJECT / package, tmp_path / "code" / package)
    monkeypatch.setattr(source_code, "PROJECT_ROOT", tmp_path / "code")
    monkeypatch.setenv("DEPTH_OUTPUTS", str(outputs))
    write_data_set(tmp_path / "raw", 16, 4)
    return tmp_path


def forget() -> None:
    """Forget what this process knows of files and libraries, as a new one would."""
    source_code.reached.cache_clear()
    source_code._read.cache_clear()
    module._version.cache_clear()
    module._sources.clear()


def graph_of(project: Path, *overrides: str) -> dict[str, Node]:
    words = [
        f"shard.nyu.root={project / 'raw'}",
        "train.nyu.recipe.network.weights=none",
        "train.nyu.recipe.freeze_encoder_norm=false",
    ]
    return build_graph(load_config("nyu_small", [*words, *overrides]))


def stale(project: Path, *overrides: str) -> dict[str, str]:
    """Return the stages that would run, with why."""
    forget()
    plan = make_plan(graph_of(project, *overrides), LocalStore(project / "store"))
    return {name: "; ".join(d.causes) for name, d in plan.items() if d.runs}


@pytest.fixture
def done(project: Path) -> Path:
    """The same, with a record of every stage."""
    forget()
    graph = graph_of(project)
    record_all(graph, LocalStore(project / "store"))
    assert set(graph) == ALL
    assert stale(project) == {}
    return project


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("shard.nyu.max_frames=8", ALL),
        ("train.nyu.recipe.optimiser.learning_rate=3e-4", ALL - {SHARD}),  # ablate inherits it
        ("train.nyu.max_failures=5", set()),
        ("train.nyu.checkpoint_every_s=5", set()),
        ("train.nyu.max_train_samples=8", AFTER_TRAIN),
        ("ablate.nyu.seeds=[0, 1]", {ABLATE, "report", "register"}),
        ("evaluate.nyu.num_pictures=1", {EVALUATE, "report", "register"}),
        ("report.title=Another", {"report", "register"}),
        ("register.model_prefix=other", {"register"}),
        ("session.num_cpus=3", set()),
        ("execution.max_retries=7", set()),
        ("tracking.experiment=other", set()),
    ],
)
def test_a_setting_makes_its_own_stage_stale_and_what_follows(done: Path, override, expected):
    reasons = stale(done, override)
    assert set(reasons) == expected
    if expected:
        first = next(iter(reasons.values()))
        key = override.partition("=")[0].split(".")[-1]
        assert key in first
        assert " -> " in first


def append(path: Path, text: str) -> None:
    path.write_text(path.read_text() + text)


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("densedepth/losses.py", AFTER_TRAINING_CODE),
        ("densedepth/augment.py", AFTER_TRAINING_CODE),
        ("densedepth/data/nyu.py", ALL),
        ("densedepth/protocols.py", {EVALUATE, "report", "register"}),
        ("densedepth/pictures.py", {EVALUATE, "report", "register"}),
        ("densedepth/serving.py", {"register"}),
        ("stages/shard.py", ALL),
        ("stages/train.py", AFTER_TRAIN),
        ("stages/worker.py", AFTER_TRAINING_CODE),
        ("stages/ablate.py", {ABLATE, "report", "register"}),
        ("stages/reporting/tables.py", {"report", "register"}),
        ("stages/register.py", {"register"}),
        ("cluster/registry.py", {"register"}),
        ("cluster/storage.py", set()),
        ("cluster/tracking.py", set()),
        ("pipeline/executor.py", set()),
        ("pipeline/config.py", set()),
    ],
)
def test_code_makes_the_stages_stale_that_reach_it(done: Path, file, expected):
    path = done / "code" / file
    append(path, "\n\n# A comment changes nothing.\n")
    assert stale(done) == {}
    append(path, "\nCHANGED = 1\n")
    reasons = stale(done)
    assert set(reasons) == expected
    for name in expected:
        assert reasons[name].endswith(f"code {file}") or reasons[name].startswith("after ")


def test_a_stage_behind_a_stale_one_names_its_own_causes_too(done: Path):
    append(done / "code/densedepth/losses.py", "\nCHANGED = 1\n")
    reasons = stale(done, "shard.nyu.max_frames=8", "train.nyu.max_train_samples=9")
    assert reasons == {
        SHARD: reasons[SHARD],
        TRAIN: "after shard.nyu; max_train_samples None -> 9; code densedepth/losses.py",
        ABLATE: "after shard.nyu; code densedepth/losses.py",
        EVALUATE: "after shard.nyu, train.nyu",
        "report": "after shard.nyu, train.nyu, ablate.nyu, evaluate.nyu",
        "register": "after train.nyu, evaluate.nyu, report",
    }
    assert reasons[SHARD].startswith("max_frames None -> 8; ")
    assert "source files no longer read: " in reasons[SHARD]


def test_what_scores_by_protocol_makes_an_ablations_table_stale_and_no_training(done: Path):
    """Without a protocol the table has what the training itself measures, as the matrix shows."""
    scored = ("ablate.nyu.protocol=nyu_eigen", "train.nyu.protocol=nyu_eigen")
    reasons = stale(done, *scored)
    assert reasons[ABLATE].startswith("protocol None -> nyu_eigen; code ")
    assert "code stages/epoch_view.py (now used)" in reasons[ABLATE].split("; ")
    record_all(graph_of(done, *scored), LocalStore(done / "store"))
    assert stale(done, *scored) == {}
    after_ablate, after_evaluate = {ABLATE, "report", "register"}, {EVALUATE, "report", "register"}
    for file, expected in (
        ("stages/epoch_view.py", after_ablate),
        ("densedepth/protocols.py", after_ablate | after_evaluate),
        ("densedepth/crops.py", after_ablate | after_evaluate),
        ("densedepth/pictures.py", after_evaluate),
    ):
        path = done / "code" / file
        before = path.read_text()
        append(path, "\nCHANGED = 1\n")
        reasons = stale(done, *scored)
        assert set(reasons) == expected, file
        assert reasons.get(ABLATE, f"code {file}") == f"code {file}"
        path.write_text(before)


@pytest.mark.parametrize(
    ("file", "comment", "change", "expected"),
    [
        ("densedepth/losses.py", "# why\n", "CHANGED = 1\n", {TRAIN, ABLATE}),
        ("densedepth/data/nyu.py", '"""What."""\n', "CHANGED = 1\n", {SHARD}),
        ("stages/epoch_view.py", "", "CHANGED = 1\n", set()),
        ("stages/report.html.j2", "", "<p>more</p>\n", {"report"}),
        ("pipeline/executor.py", "", "CHANGED = 1\n", set()),
        ("densedepth/losses.py", "\n", "def half_writ", {TRAIN, ABLATE}),
    ],
)
def test_an_edit_during_a_run_concerns_the_stages_that_reach_the_file(
    done: Path, monkeypatch, file, comment, change, expected
):
    monkeypatch.setattr(source_code, "LOOK_AGAIN_S", 0.0)
    graph = graph_of(done)  # whose code this process has read, as a driver does when it begins

    def edited() -> dict[str, list[str]]:
        found = {name: source_code.edited(code_modules(node)) for name, node in graph.items()}
        return {name: paths for name, paths in found.items() if paths}

    append(done / "code" / file, comment)
    assert edited() == {}
    before = (done / "code" / file).read_text()
    append(done / "code" / file, change)
    assert edited() == {name: [file] for name in expected}
    (done / "code" / file).write_text(before)
    assert edited() == {}
    (done / "code" / file).unlink()
    assert set(edited()) == expected


def test_an_editor_that_just_writes_a_file_is_given_a_moment(done: Path, monkeypatch):
    path = done / "code/densedepth/losses.py"
    text = path.read_text()
    path.write_text(text[:100])
    monkeypatch.setattr(source_code.time, "sleep", lambda seconds: path.write_text(text))
    assert source_code.edited(["stages.train"]) == []


def test_another_layout_or_docstring_of_every_file_changes_nothing(done: Path):
    """Each file is written anew from its syntax: no comment left, and every docstring another."""
    for package in ("stages", "densedepth"):
        for path in (done / "code" / package).rglob("*.py"):
            tree = ast.parse(path.read_text())
            for node in ast.walk(tree):
                text = node.value if isinstance(node, ast.Expr) else None
                if isinstance(text, ast.Constant) and isinstance(text.value, str):
                    text.value = "Another docstring."
            path.write_text(ast.unparse(tree) + "\n\n\n# The end.\n")
    assert stale(done) == {}


def test_the_reports_template_makes_the_report_stale(done: Path):
    append(done / "code/stages/report.html.j2", "<p>more</p>")
    assert stale(done) == {
        "report": "code stages/report.html.j2",
        "register": "after report",
    }


def test_a_changed_and_a_lost_raw_file_make_the_data_stale(done: Path):
    frame = next((done / "raw/data/nyu2_train").rglob("*.jpg"))
    frame.write_bytes(frame.read_bytes() + b"\0")
    reasons = stale(done)
    assert set(reasons) == ALL
    assert reasons[SHARD] == f"1 source file changed: {frame.parent.name}/{frame.name}"
    frame.unlink()
    reasons = stale(done)
    assert set(reasons) == ALL
    pair = sorted(f"{path.parent.name}/{path.name}" for path in (frame, frame.with_suffix(".png")))
    assert reasons[SHARD] == f"2 source files no longer read: {', '.join(pair)}"


def test_a_file_of_weights_makes_the_training_stale(done: Path, tmp_path: Path):
    weights = tmp_path / "weights.pth"
    weights.write_bytes(b"1")
    assert set(stale(done, f"train.nyu.recipe.network.weights={weights}")) == AFTER_TRAIN


@pytest.mark.parametrize(
    ("library", "expected"),
    [
        ("torch", ALL - {SHARD}),  # no reader needs it
        ("simplejpeg", ALL),
        ("h5py", set()),  # read by another format's reader
        ("safetensors", ALL - {SHARD}),
        ("matplotlib", {EVALUATE, "report", "register"}),
        ("jinja2", {"report", "register"}),
        ("pydantic", set()),
        ("mlflow", set()),
        ("boto3", set()),
    ],
)
def test_a_library_counts_where_it_decides(done: Path, monkeypatch, library, expected):
    version = importlib.metadata.version
    monkeypatch.setattr(
        module.importlib.metadata,
        "version",
        lambda name: "99.0" if name == library else version(name),
    )
    reasons = stale(done)
    assert set(reasons) == expected
    if expected:
        assert f"library {library}" in next(iter(reasons.values()))
    monkeypatch.undo()
    forget()
