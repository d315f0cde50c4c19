"""Fixtures of the tests that need an object store."""

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.storage import ObjectStore, open_store
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
def local_store(tmp_path: Path) -> ObjectStore:
    """An empty store in a folder that does not exist yet."""
    return open_store(str(tmp_path / "a store"))


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
