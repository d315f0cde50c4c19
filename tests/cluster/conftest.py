"""Fixtures of the tests that need an object store."""

import os
import subprocess
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cluster import s3_store as s3_store_module
from cluster.storage import ObjectStore, open_store
from tests.cluster.cached import RemoteStore
from tests.cluster.faulty_proxy import FaultyProxy, faulty_proxy
from tests.cluster.seaweedfs import SeaweedServer, seaweedfs_server

BUCKET = "tests"


@pytest.fixture(scope="session")
def seaweedfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeaweedServer]:
    """A running S3 server with a bucket."""
    with seaweedfs_server(tmp_path_factory.mktemp("seaweedfs")) as server:
        server.make_bucket(BUCKET)
        yield server


@pytest.fixture
def s3_environment(seaweedfs: SeaweedServer, monkeypatch: pytest.MonkeyPatch) -> SeaweedServer:
    """The environment of this process points at the S3 server."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in seaweedfs.environment().items():
        monkeypatch.setenv(name, value)
    return seaweedfs


@pytest.fixture
def s3_store(s3_environment: SeaweedServer) -> ObjectStore:
    """An empty store in the S3 server."""
    return open_store(f"s3://{BUCKET}/{uuid.uuid4().hex}/below")


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> int:
    """Objects above this many bytes go in parts; S3's own minimum for a part."""
    monkeypatch.setattr(s3_store_module, "_PART_BYTES", 5 << 20)
    return 5 << 20


@pytest.fixture
def local_store(tmp_path: Path) -> ObjectStore:
    """An empty store in a folder that does not exist yet."""
    return open_store(str(tmp_path / "a store"))


@pytest.fixture
def remote(tmp_path: Path) -> RemoteStore:
    """An empty store as if on another machine."""
    return RemoteStore(tmp_path / "remote")


@pytest.fixture(params=["local", pytest.param("s3", marks=pytest.mark.s3)])
def store(request: pytest.FixtureRequest) -> ObjectStore:
    """An empty store of each kind in turn."""
    return request.getfixturevalue(f"{request.param}_store")


@pytest.fixture
def proxy(s3_environment: SeaweedServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyProxy]:
    """A proxy before the S3 server, which the environment points at."""
    with faulty_proxy(s3_environment.endpoint_url) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        yield proxy
        assert proxy.all_faults_happened, "a fault was planned that no request met"


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mount a tmpfs with options; skips where that is not allowed (it takes root)."""
    folders: list[Path] = []

    def mount(options: str) -> Path:
        folder = tmp_path / f"mount-{len(folders)}"
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        try:
            subprocess.run(command, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            pytest.skip("mounting a tmpfs is not allowed here")
        folders.append(folder)
        return folder

    yield mount
    for folder in folders:
        subprocess.run(["umount", str(folder)], check=True)
