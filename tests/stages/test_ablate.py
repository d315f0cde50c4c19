"""Ablations, before anything is trained: what is refused, and what decides the table."""

from typing import Any, cast

import pytest

from stages import ablate, train
from stages.artifacts import ShardSet
from stages.trainer import EPOCH_VIEW

SHARDS = ShardSet(
    dataset="nyu",
    min_depth_m=0.1,
    max_depth_m=10.0,
    rendered=False,
    ground_truth="nyu_depths",
    dense=True,
    splits={},
)


@pytest.mark.parametrize(
    ("run", "config"),
    [
        (train.run, train.TrainConfig(protocol="kitti_eigen_garg")),
        (ablate.run, ablate.AblateConfig(protocol="kitti_eigen_garg")),
    ],
)
def test_a_protocol_for_another_kind_of_depth_is_refused_before_anything_is_trained(run, config):
    with pytest.raises(ValueError, match=r"protocol kitti_eigen_garg is scored against .* nyu_dep"):
        run(config, cast(Any, None), SHARDS)


def test_what_scores_by_protocol_decides_the_table_where_a_protocol_is_set():
    assert ablate.loads(ablate.AblateConfig()) == ()
    assert ablate.loads(ablate.AblateConfig(protocol="nyu_eigen")) == (EPOCH_VIEW,)
