"""The graph: its shape, and what is refused before anything runs."""

import pytest

from pipeline.config import load_config
from pipeline.dag import Node, build_graph, check_graph
from pipeline.errors import GraphError
from stages import report


def node(name: str, **inputs: str) -> Node:
    return Node(name, report, None, inputs)


def test_the_demo_has_a_branch_per_data_set_and_one_report():
    graph = build_graph(load_config("demo"))
    assert graph["train.nyu"].needs() == ("shard.nyu",)
    assert graph["ablate.nyu"].needs() == ("shard.nyu",)
    assert set(graph["evaluate.kitti"].needs()) == {"shard.kitti", "train.kitti"}
    assert {"evaluate.nyu", "evaluate.kitti", "ablate.nyu"} <= set(graph["report"].needs())
    assert "report" in graph["register"].needs()
    assert "train.kitti" not in graph["train.nyu"].needs()


def test_nodes_come_after_their_inputs():
    graph = build_graph(load_config("demo"))
    order = list(graph)
    assert all(order.index(n) < order.index(name) for name in order for n in graph[name].needs())


def test_a_branch_without_ablation_has_no_such_node():
    graph = build_graph(load_config("demo"))
    assert "ablate.kitti" not in graph


def test_a_cycle_is_named():
    with pytest.raises(GraphError, match=r"in a circle: .*a.* -> "):
        check_graph([node("a", x="b"), node("b", x="a")])


def test_a_missing_input_names_the_nearest_node():
    with pytest.raises(GraphError, match=r"a needs 'shrad', .*did you mean 'shard'"):
        check_graph([node("shard"), node("a", x="shrad")])


def test_two_nodes_of_one_name_are_refused():
    with pytest.raises(GraphError, match="two stages are called 'a'"):
        check_graph([node("a"), node("a")])
