"""Fixtures of the tests that run small stages in this process."""

from pathlib import Path

import pytest

from cluster.local_store import LocalStore
from pipeline import source_code
from tests.pipeline.small_graph import errors, execute, executed, graph


@pytest.fixture
def small_stages(monkeypatch) -> None:
    """Let the small stages begin anew; they have no files whose code could count."""
    executed.clear()
    errors.clear()
    monkeypatch.setattr(source_code, "reached", lambda module: {})


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    """An empty store."""
    return LocalStore(tmp_path / "store")


@pytest.fixture
def run_one(small_stages, tmp_path: Path, monkeypatch) -> LocalStore:
    """The default store, with a finished run ``one``."""
    monkeypatch.setenv("DEPTH_OUTPUTS", str(tmp_path))
    store = LocalStore(tmp_path / "store")
    execute(graph(), store, run_id="one")
    return store
