"""Which stages the options of a command mean."""

import pytest

from pipeline.config import load_config
from pipeline.dag import build_graph
from pipeline.errors import UsageMistake
from pipeline.selection import downstream_of, select, upstream_of

GRAPH = build_graph(load_config("demo"))
NYU = {"shard.nyu", "train.nyu", "ablate.nyu", "evaluate.nyu"}


def test_without_options_everything_is_chosen_and_nothing_forced():
    selection = select(GRAPH)
    assert selection.chosen == set(GRAPH)
    assert selection.forced == set()


@pytest.mark.parametrize(
    ("options", "chosen"),
    [
        ({"last": ["train"]}, {"shard.nyu", "train.nyu", "shard.kitti", "train.kitti"}),
        ({"last": ["train.nyu"]}, {"shard.nyu", "train.nyu"}),
        ({"first": ["evaluate.nyu"]}, {"evaluate.nyu", "report", "register"}),
        ({"first": ["train.nyu"], "last": ["evaluate.nyu"]}, {"train.nyu", "evaluate.nyu"}),
        ({"only": ["*.nyu"]}, NYU),
        ({"only": ["report", "train.nyu"]}, {"report", "train.nyu"}),
        ({"only": ["report"], "downstream": True}, {"report", "register"}),
    ],
)
def test_names_kinds_and_patterns_choose(options, chosen):
    assert select(GRAPH, **options).chosen == chosen


def test_force_alone_means_all_that_is_chosen_and_may_take_what_follows_along():
    assert select(GRAPH, only=["train"], force=[]).forced == {"train.nyu", "train.kitti"}
    forced = select(GRAPH, force=["evaluate.nyu"], downstream=True).forced
    assert forced == {"evaluate.nyu", "report", "register"}
    forced = select(GRAPH, force=["train.nyu"], downstream=True, last=["evaluate"]).forced
    assert forced == {"train.nyu", "evaluate.nyu"}  # what follows, as far as it is chosen


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"only": ["trian"]}, "no stage is called 'trian'; did you mean train"),
        ({"first": ["*.sun"]}, r"no stage is called '\*.sun'"),
        ({"first": ["register"], "last": ["shard"]}, "leave no stage to run"),
        ({"only": ["shard"], "force": ["train.nyu"]}, "--force names train.nyu, which"),
        ({"downstream": True}, "--downstream adds what follows to the stages of --only or"),
        ({"downstream": True, "first": ["train"]}, "or --from STAGE for a stage and all that"),
    ],
)
def test_what_cannot_be_meant_is_refused(options, message):
    with pytest.raises(UsageMistake, match=message):
        select(GRAPH, **options)


def test_up_and_down_the_stream():
    assert upstream_of(GRAPH, ["evaluate.nyu"]) == {"evaluate.nyu", "train.nyu", "shard.nyu"}
    assert downstream_of(GRAPH, ["ablate.nyu"]) == {"ablate.nyu", "report", "register"}
