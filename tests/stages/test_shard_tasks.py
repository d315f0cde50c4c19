"""A shard's task: what it takes of the cluster."""

import pytest

from cluster.resources import Resources
from stages import shard_tasks
from stages.shard_tasks import cpus_per_task


@pytest.mark.parametrize(
    ("num_cpus", "smallest", "num_shards", "expected"),
    [(2, 2, 100, 1), (64, 16, 4, 8), (64, 4, 4, 4), (64, 64, 16, 4), (0, 0, 4, 1), (8, 8, 0, 8)],
)
def test_a_task_takes_more_cpus_where_shards_are_few(
    monkeypatch: pytest.MonkeyPatch, num_cpus, smallest, num_shards, expected
):
    has = Resources(num_cpus, 0, False, smallest)
    monkeypatch.setattr(shard_tasks, "cluster_resources", lambda: has)
    assert cpus_per_task(num_shards) == expected
