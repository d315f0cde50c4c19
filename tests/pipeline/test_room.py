"""Whether a cluster has room for what a stage asks for."""

from pipeline.config import load_config
from pipeline.dag import build_graph
from pipeline.room import Request, request_of, room_for


def test_what_each_stage_asks_for():
    graph = build_graph(load_config("nyu", ["shard.nyu.root=/x", "train.nyu.cpus_per_worker=6"]))
    assert request_of(graph["train.nyu"]) == Request(4, {"CPU": 6.0, "GPU": 1.0})
    assert request_of(graph["shard.nyu"]) == Request(1, {"CPU": 1.0, "GPU": 0.0})
    demo = build_graph(load_config("demo"))
    assert request_of(demo["train.nyu"]).bundle["GPU"] == 0  # auto: what there is
    assert request_of(demo["ablate.nyu"]).num_bundles == 1  # trials without workers


def test_every_bundle_must_fit_on_a_node_and_all_of_them_on_the_nodes():
    request = Request(4, {"CPU": 6.0, "GPU": 1.0})
    small, large = {"CPU": 4.0, "GPU": 4.0}, {"CPU": 16.0, "GPU": 8.0}
    assert room_for(request, [large, large], []) is None
    cases = [
        # Enough of everything in all, and no node that could hold a single worker.
        ([small] * 8, [], "fail", "no node has as much, only 4 CPUs, 4 GPUs"),
        ([large], [], "fail", "asks for 4 times 6 CPUs, 1 GPUs; there is room for 2 of them"),
        ([small] * 8, [(small, -1)], "fail", "no node has"),
        ([large], [(large, 1)], "fail", "room for 2 of them"),
        ([small], [(large, 2)], "warn", "the cluster must grow first, now 4 CPUs, 4 GPUs"),
        ([small], [(large, -1)], "warn", "the cluster must grow first"),
    ]
    for nodes, grows, status, text in cases:
        found = room_for(request, nodes, grows)
        assert found is not None
        assert (found.status, text in found.found) == (status, True), found
