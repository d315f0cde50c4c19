"""Fingerprints: what changes them and what does not, and how a change is named."""

import types
from pathlib import Path

import pytest
from pydantic import Field

from pipeline import fingerprint as module
from pipeline import source_code
from pipeline.dag import Node
from pipeline.fingerprint import Fingerprint, fingerprint
from stages.settings import Settings as StageSettings


class Config(StageSettings):
    learning_rate: float = 1e-4
    nested: dict[str, int] = Field(default_factory=lambda: {"a": 1})


@pytest.fixture
def project(tmp_path: Path, monkeypatch) -> Path:
    """A project of four files: a stage, what it uses, what that uses, and a stranger."""
    (tmp_path / "stages").mkdir()
    (tmp_path / "densedepth").mkdir()
    (tmp_path / "stages/work.py").write_text(
        "from densedepth.used import f\n\ndef run():\n    return f(1)\n"
    )
    (tmp_path / "densedepth/used.py").write_text(
        "def f(x):\n    from densedepth import deep\n    return deep.g(x)\n"
    )
    (tmp_path / "densedepth/deep.py").write_text("import torch\n\ndef g(x):\n    return x\n")
    (tmp_path / "densedepth/stranger.py").write_text("y = 1\n")
    monkeypatch.setattr(source_code, "PROJECT_ROOT", tmp_path)
    (tmp_path / "outputs").mkdir()
    monkeypatch.setenv("DEPTH_OUTPUTS", str(tmp_path / "outputs"))
    return tmp_path


def take(config: Config | None = None, inputs: dict[str, str] | None = None) -> Fingerprint:
    source_code.reached.cache_clear()
    source_code._read.cache_clear()
    stage = types.ModuleType("stages.work")
    return fingerprint(Node("work", stage, config or Config()), inputs or {})


def test_code_is_followed_through_imports_inside_functions(project: Path):
    assert set(take().code) == {"stages/work.py", "densedepth/used.py", "densedepth/deep.py"}
    assert set(take().libraries) == {"torch"}


@pytest.mark.parametrize(
    ("path", "text", "changes"),
    [
        ("densedepth/deep.py", "import torch\n\ndef g(x):\n    return x + 1\n", True),
        ("densedepth/deep.py", "import torch\n# why\n\n\ndef g( x ):\n    return x\n", False),
        ("densedepth/deep.py", 'import torch\n\ndef g(x):\n    """Doc."""\n    return x\n', False),
        ("densedepth/stranger.py", "y = 2\n", False),
        ("stages/work.py", "from densedepth.used import f\n\ndef run():\n    return f(2)\n", True),
    ],
)
def test_code_counts_by_its_meaning(project: Path, path: str, text: str, changes: bool):
    before = take()
    (project / path).write_text(text)
    after = take()
    assert (before.digest() != after.digest()) == changes
    if changes:
        assert after.differences(before) == [f"code {path}"]


def test_a_setting_is_named_with_both_values(project: Path):
    before = take(Config())
    after = take(Config(learning_rate=3e-4, nested={"a": 2}))
    assert after.differences(before) == ["learning_rate 0.0001 -> 0.0003", "nested.a 1 -> 2"]


def test_an_input_and_a_library_are_named(project: Path, monkeypatch):
    before = take(inputs={"shard.nyu": "1"})
    module._version.cache_clear()
    monkeypatch.setattr(module.importlib.metadata, "version", lambda name: "9.9")
    after = take(inputs={"shard.nyu": "2"})
    module._version.cache_clear()
    differences = after.differences(before)
    assert differences[0] == "input shard.nyu"
    assert differences[1].startswith("library torch ")
    assert differences[1].endswith("-> 9.9")


def test_source_files_are_counted_by_what_became_of_them_and_the_first_are_named():
    def mark(**sources: str) -> Fingerprint:
        return Fingerprint(code={}, config={}, inputs={}, sources=sources, libraries={})

    before = {"/raw/a": "1", "/raw/b": "1"}
    two = mark(**before | {"/raw/b": "2", "/raw/c": "3"})
    assert two.differences(mark(**before)) == [
        "1 source file changed: raw/b",
        "1 source file new: raw/c",
    ]
    more = mark(**{"/raw/x/c": "3", "/raw/x/d": "4", "/raw/x/e": "5", "/raw/b": "missing"})
    assert more.differences(mark(**before)) == [
        "1 source file no longer read: raw/a",
        "1 source file missing: raw/b",
        "3 source files new: x/c, x/d, ...",
    ]
    folders = {"/raw/room (train)": "7 files, 11"}
    assert mark(**folders | {"/raw/room (train)": "8 files, 22"}).differences(mark(**folders)) == [
        "1 source folder changed: raw/room (train)"
    ]


def test_what_is_only_in_one_of_two_is_named_as_such():
    """A setting that a later version has counts, though it is none; so does a file of code."""

    def mark(**parts: dict[str, str]) -> Fingerprint:
        return Fingerprint(**{name: parts.get(name, {}) for name in Fingerprint.model_fields})

    old = mark(code={"a.py": "1", "b.py": "1"}, config={"x": 1}, inputs={"shard": "1"})
    new = mark(code={"b.py": "1", "c.py": "1"}, config={"x": 1, "y": None}, inputs={"train": "1"})
    assert new.differences(old) == [
        "y nothing -> None",
        "code a.py (no longer used)",
        "code c.py (now used)",
        "input shard (no longer used)",
        "input train (now used)",
    ]
    assert new.differences(old, unknown=["shard", "train"]) == new.differences(old)[:3]


def test_the_real_stages_reach_what_they_use_and_no_more():
    from stages import shard, train

    source_code.reached.cache_clear()
    source_code._read.cache_clear()
    shard_code = source_code.reached(shard.__name__)
    train_code = source_code.reached(train.__name__)
    assert "densedepth/losses.py" in train_code
    assert "densedepth/losses.py" not in shard_code
    assert "densedepth/data/nyu.py" in shard_code
    assert not any(path.startswith(("cluster/", "pipeline/")) for path in shard_code)


def test_what_is_known_of_a_file_is_kept_by_its_bytes_and_damage_does_no_harm(project: Path):
    first = take()
    known = project / "outputs/scratch/meanings"
    kept = sorted(known.iterdir())
    assert len(kept) == 3
    for file in kept:
        file.write_text("half a li")
    assert take() == first
    (project / "densedepth/deep.py").write_text("import torch\n\ndef g(x):\n    return 2 * x\n")
    changed = take()
    assert changed.code != first.code
    (project / "densedepth/deep.py").write_text("import torch\n\ndef g(x):\n    return x\n")
    assert take() == first
    known.rename(project / "away")
    known.write_text("a file in the way")
    assert take() == first


@pytest.mark.parametrize(
    ("old", "new", "shown"),
    [
        ("short", "other", "nested short -> other"),
        (
            "x" * 100 + "abc" + "y" * 100,
            "x" * 100 + "def" + "y" * 100,
            f"nested ...{'x' * 20}abc{'y' * 37}... -> ...{'x' * 20}def{'y' * 37}...",
        ),
        ("x" * 70, "y" * 70, f"nested {'x' * 60}... -> {'y' * 60}..."),
        ("z" * 70, "z" * 71, f"nested ...{'z' * 20} -> ...{'z' * 21}"),
        (["a"], "b" * 70, f"nested ['a'] -> {'b' * 60}..."),
    ],
)
def test_long_values_are_shown_where_they_differ(project: Path, old, new, shown):
    before = take().model_copy(update={"config": {"nested": old}})
    assert before.model_copy(update={"config": {"nested": new}}).differences(before) == [shown]
