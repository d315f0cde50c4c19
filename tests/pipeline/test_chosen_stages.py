"""Runs of some stages only, chosen or forced."""

import pytest

from pipeline.errors import UsageMistake
from pipeline.plan import make_plan
from pipeline.runs import load_run
from pipeline.selection import select, upstream_of
from tests.pipeline.small_graph import Settings, execute, executed, graph

pytestmark = pytest.mark.usefixtures("small_stages")


@pytest.mark.parametrize(
    ("choice", "ran"),
    [
        ({"only": ["b"]}, {"b"}),
        ({"only": ["b"], "downstream": True}, {"b", "e"}),
        ({"first": ["b"]}, {"b", "e"}),
        ({"last": ["b"]}, {"b"}),
        ({"first": ["b"], "last": ["b"]}, {"b"}),
    ],
)
def test_only_what_is_chosen_runs(store, choice, ran):
    execute(graph(), store)
    executed.clear()
    text = {name: Settings(text=name.upper()) for name in ("b", "e")}
    _, _, shown = execute(graph(**text), store, **choice)
    assert set(executed) == ran
    left_out = [line.split()[2] for line in shown.splitlines() if "left out" in line]
    needed = upstream_of(graph(), ran)
    assert left_out == [name for name in graph() if name not in needed]  # in the graph's order


def test_a_chosen_stage_whose_input_is_stale_is_refused_before_anything_runs(store):
    execute(graph(), store)
    executed.clear()
    error, recorder, _ = execute(graph(a=Settings(text="A")), store, only=["b"])
    assert isinstance(error, UsageMistake)
    assert "b needs a, which is not up to date (text a -> A)" in str(error)
    assert (executed, recorder.calls) == ([], [])


def test_a_gap_between_chosen_stages_is_refused_before_anything_runs(store):
    """b, between a and e, is up to date now, but not once a has run."""
    execute(graph(), store)
    executed.clear()
    changed = graph(a=Settings(text="A"))
    error, recorder, _ = execute(changed, store, only=["a", "e"])
    assert str(error) == (
        "e needs b, which is not up to date (after a) and not among the chosen stages: "
        "choose it too"
    )
    assert (executed, recorder.calls) == ([], [])
    with pytest.raises(UsageMistake) as refused:
        make_plan(changed, store, select(changed, only=["a", "e"]))
    assert str(refused.value) == str(error)
    execute(graph(), store, only=["a", "e"])  # where a need not run there is no gap
    assert executed == []


def test_a_forced_stage_runs_as_an_execution_of_its_own(store):
    execute(graph(), store)
    executed.clear()
    _, recorder, _ = execute(graph(), store, force=["c"], downstream=True)
    assert executed == ["c", "d", "e"]
    keys = [args[0] for method, *args in recorder.calls if method == "ensure_run"]
    assert [key.rpartition("/")[2] for key in keys[1:]] == ["again-1"] * 3
    assert load_run(store, "test").forced == {}


def test_a_forced_stage_that_this_run_has_published_is_not_forced_again(store):
    """As after a driver that died before it could note that it had done what it was forced to."""
    execute(graph(), store)
    executed.clear()
    execute(graph(), store, force=["c"])
    records, _, text = execute(graph(), store, force=["c"])
    assert executed == ["c"]
    assert text.count("up to date") == 5
    assert records["c"].mark == "again-1"
    execute(graph(), store, force=["c"], run_id="another")
    assert executed == ["c", "c"]
