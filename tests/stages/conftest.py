"""Fixtures of the tests of stages: stores of both kinds, and a tiny raw data set."""

from pathlib import Path

import pytest

from tests.cluster.conftest import (
    local_store,
    proxy,
    s3_environment,
    s3_store,
    seaweedfs,
    store,
)
from tests.stages.raw_frames import write_pair

__all__ = ["local_store", "proxy", "s3_environment", "s3_store", "seaweedfs", "store"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "raw"
    train = "".join(write_pair(root, "nyu2_train", n) for n in range(1, 9))
    test = "".join(write_pair(root, "nyu2_test", n) for n in range(1, 3))
    (root / "data/nyu2_train.csv").write_text(train)
    (root / "data/nyu2_test.csv").write_text(test)
    return root
