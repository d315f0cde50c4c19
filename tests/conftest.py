"""Fixtures that every test may use."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

# Before torch is imported: networks this small gain nothing from more threads, and wait long for
# one that has no core.
os.environ.setdefault("OMP_NUM_THREADS", "1")
settings.register_profile("no deadline", deadline=None)  # a test asserts results, never times
settings.load_profile("no deadline")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip the tests that are marked ``gpu`` where there is none."""
    on_gpu = [item for item in items if item.get_closest_marker("gpu")]
    if not on_gpu:
        return
    import torch  # seconds, which other tests need not wait for

    if not torch.cuda.is_available():
        for item in on_gpu:
            item.add_marker(pytest.mark.skip(reason="no CUDA device on this machine"))


@pytest.fixture(scope="session")
def samples_root() -> Path:
    """The folder with real NYU and KITTI frames; skips where there is none."""
    root = os.environ.get("DEPTH_SAMPLES")
    if not root:
        pytest.skip("DEPTH_SAMPLES is not set: no real frames on this machine")
    path = Path(root)
    if not path.is_dir():
        pytest.fail(f"DEPTH_SAMPLES={root} is not a folder")
    return path
