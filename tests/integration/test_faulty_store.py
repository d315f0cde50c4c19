"""A run whose store is S3 behind a faulty line: the same network as out of a folder, no secrets."""

import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cluster.storage import open_store
from pipeline.records import latest_record
from tests.cluster.conftest import BUCKET
from tests.cluster.faulty_proxy import READ_FAULTS, WRITE_FAULTS, FaultyProxy
from tests.cluster.seaweedfs import SECRET_KEY, SeaweedServer
from tests.integration.test_pipeline import pipeline

AWAY_S = 5.0
"""How long the server is dead: longer than botocore's own attempts."""


def files_with_the_secret(folder: Path) -> Iterator[Path]:
    for path in folder.rglob("*"):
        if path.is_file() and SECRET_KEY.encode() in path.read_bytes():
            yield path


@pytest.fixture
def ray_folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where Ray's logs of these runs are, and no others; its sockets need a short name."""
    with tempfile.TemporaryDirectory(prefix="r-", ignore_cleanup_errors=True) as folder:
        monkeypatch.setenv("RAY_TMPDIR", folder)
        yield Path(folder)


@pytest.mark.s3
@pytest.mark.cluster
def test_a_faulty_line_and_a_killed_server_give_the_same_network_and_no_secret_is_left_anywhere(
    finished,
    s3_environment: SeaweedServer,
    proxy: FaultyProxy,
    tmp_path: Path,
    ray_folder: Path,
):
    near, ended = finished
    assert ended.returncode == 0, ended.stderr
    is_killed = threading.Event()

    def kill() -> None:
        s3_environment.kill()
        is_killed.set()

    proxy.spoiled_paths = "/shards/"
    proxy.spoil("PUT", *WRITE_FAULTS, kill)  # while shards are written ...
    proxy.spoil("GET", *READ_FAULTS, kill)  # ... and while the network is trained
    url = f"s3://{BUCKET}/{uuid.uuid4().hex}"
    command = (
        *(str(near / "mini.toml"), "--to", "train", f"store={url}"),
        f"shard.nyu.root={near / 'raw/rooms'}",
        *("train.nyu.max_failures=0", "execution.max_retries=0"),  # the reading itself goes on
        *("train.nyu.loader_processes=1", "train.nyu.profile_steps=0"),
    )
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(pipeline, tmp_path / "far", *command)
        for _ in range(2):
            while not is_killed.wait(1):
                assert not running.done(), running.result().stdout + running.result().stderr
            is_killed.clear()
            time.sleep(AWAY_S)
            assert not running.done(), running.result().stdout + running.result().stderr
            s3_environment.start()  # in this thread: the server ends with the one that started it
        far = running.result()
    assert far.returncode == 0, far.stdout + far.stderr
    assert proxy.all_faults_happened
    assert proxy.num_unanswered > 0

    here, there = open_store(str(near / "store")), open_store(url)
    shards = [latest_record(store, "shard.nyu").artifact for store in (here, there)]
    assert shards[0] == shards[1]
    networks = [latest_record(store, "train.nyu").artifact for store in (here, there)]
    assert networks[0].network.sha256 == networks[1].network.sha256

    assert SECRET_KEY not in far.stdout + far.stderr
    assert list(ray_folder.rglob("session_*/logs/*")), "Ray's logs are elsewhere"
    assert [*files_with_the_secret(tmp_path), *files_with_the_secret(ray_folder)] == []
    for key in there.list_keys():
        assert SECRET_KEY.encode() not in there.get_bytes(key), key
