"""Code that is edited while a run goes on."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster.local_store import LocalStore
from pipeline import source_code
from pipeline.errors import CodeEdited
from pipeline.executor import Execution
from pipeline.runs import load_run
from tests.pipeline.small_graph import InProcess, Recorder, execute, executed, execution, graph

pytestmark = pytest.mark.usefixtures("small_stages")


@pytest.fixture
def edited_file(tmp_path: Path, monkeypatch) -> Iterator[Path]:
    """A file that the small stages reach, in a project of two files."""
    monkeypatch.undo()  # here they have files whose code counts
    code = tmp_path / "code"
    stage, used = code / "tests/pipeline/small_graph.py", code / "densedepth/used.py"
    for path, text in ((stage, "from densedepth.used import f\n"), (used, "def f(): return 1\n")):
        path.parent.mkdir(parents=True)
        path.write_text(text)
    monkeypatch.setattr(source_code, "PROJECT_ROOT", code)
    monkeypatch.setattr(source_code, "LOOK_AGAIN_S", 0.0)
    monkeypatch.setenv("DEPTH_OUTPUTS", str(tmp_path / "outputs"))
    forget()
    yield used
    forget()


def forget() -> None:
    """Forget what this process has read of the code, as another one would not know it."""
    source_code.reached.cache_clear()
    source_code._read.cache_clear()


class Editing(InProcess):
    """Edits a file while a stage runs: what Ray's workers have is a copy."""

    def __init__(self, path: Path, text: str, while_in: str) -> None:
        super().__init__(Recorder())
        self.path, self.text, self.while_in = path, text, while_in

    def submit(self, function: Any, *args: Any) -> int:
        if args[2].stage == self.while_in:
            self.path.write_text(self.text)
        return super().submit(function, *args)


def edited_once_planned(store: LocalStore, monkeypatch, path: Path, text: str) -> Execution:
    """Return an execution in which a file is edited after the plan, before Ray has its copy."""
    made = execution(graph(), store, InProcess(Recorder()))
    opened = made.driver.open

    def edit_then_open(states: Any) -> None:
        path.write_text(text)
        opened(states)

    monkeypatch.setattr(made.driver, "open", edit_then_open)
    return made


def test_an_edit_while_a_run_goes_on_changes_none_of_its_results(store, edited_file: Path):
    before = edited_file.read_text()
    execution(graph(), store, Editing(edited_file, "def f(): return 2\n", while_in="a")).run()
    assert sorted(executed) == list("abcde")

    forget()  # the next run is planned with the edit
    executed.clear()
    execute(graph(), store)
    assert sorted(executed) == list("abcde")

    edited_file.write_text(before)  # every stage's result stands under the code that computed it
    forget()
    executed.clear()
    execute(graph(), store)
    assert executed == []


def test_an_edit_between_the_plan_and_the_copy_stops_the_run_before_any_stage(
    store, edited_file: Path, monkeypatch
):
    made = edited_once_planned(store, monkeypatch, edited_file, "def f(): return 3\n")
    with pytest.raises(CodeEdited, match=r"densedepth/used\.py was edited while the run") as found:
        made.run()
    assert found.value.exit_code == 7
    assert executed == []
    assert load_run(store, "test").status == "failed"


@pytest.mark.parametrize(
    "text", ["def f(): return 1  # a comment\n", '\n\ndef f():\n    """What."""\n    return 1\n']
)
def test_an_edit_without_a_meaning_stops_nothing(store, edited_file: Path, monkeypatch, text):
    made = edited_once_planned(store, monkeypatch, edited_file, text)
    assert set(made.run()) == set("abcde")
