"""Fixtures of the tests of stages: stores of both kinds, and a tiny raw data set."""

from pathlib import Path

import pytest

from tests.cluster.conftest import (
    local_store,
    mounted,
    proxy,
    s3_environment,
    s3_store,
    seaweedfs,
    store,
)
from tests.stages.raw_frames import write_data_set

__all__ = [
    "local_store",
    "mounted",
    "proxy",
    "s3_environment",
    "s3_store",
    "seaweedfs",
    "store",
]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_data_set(tmp_path / "raw")
