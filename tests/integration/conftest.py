"""Fixtures of whole runs: one that has ended, a real S3 server, a proxy that spoils its replies."""

import subprocess
from pathlib import Path

import pytest

from tests.cluster.conftest import proxy, s3_environment, seaweedfs
from tests.integration.test_pipeline import MINI, pipeline

__all__ = ["proxy", "s3_environment", "seaweedfs"]


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A miniature run that has ended; its outputs, where its preset ``mini.toml`` is too."""
    outputs = tmp_path_factory.mktemp("outputs")
    (outputs / "mini.toml").write_text(MINI)
    return outputs, pipeline(outputs, str(outputs / "mini.toml"))
