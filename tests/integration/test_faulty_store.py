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
from tests.stages.raw_frames import write_data_set

PRESET = """
[session]
num_cpus = 2

[shard.rooms]
format = "nyu_densedepth"
root = "{root}"
options = {{ val_fraction = 0.0 }}
samples_per_shard = 2

[train.rooms]
max_failures = 0
loader_processes = 1

[train.rooms.recipe]
epochs = 1
global_batch_size = 4
input_size_px = [64, 64]

[train.rooms.recipe.network]
encoder = "mobilenet_v2"
decoder_width = 0.0625
weights = "none"
"""
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
    s3_environment: SeaweedServer,
    proxy: FaultyProxy,
    tmp_path: Path,
    ray_folder: Path,
):
    preset = tmp_path / "rooms.toml"
    preset.write_text(PRESET.format(root=write_data_set(tmp_path / "raw")))
    near = pipeline(tmp_path / "near", str(preset))
    assert near.returncode == 0, near.stdout + near.stderr

    proxy.spoiled_paths = "/shards/"
    proxy.spoil("PUT", *WRITE_FAULTS)
    killed = threading.Event()

    def kill() -> None:
        s3_environment.kill()
        killed.set()

    proxy.spoil("GET", *READ_FAULTS, kill)
    url = f"s3://{BUCKET}/{uuid.uuid4().hex}"
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(pipeline, tmp_path / "far", str(preset), f"store={url}")
        while not killed.wait(1):
            assert not running.done(), running.result().stdout + running.result().stderr
        time.sleep(AWAY_S)
        was_there = running.done()
        s3_environment.start()  # in this thread: the server ends with the one that started it
        far = running.result()
    assert far.returncode == 0, far.stdout + far.stderr
    assert not was_there
    assert proxy.num_unanswered > 0
    assert proxy.all_faults_happened

    here, there = open_store(str(tmp_path / "near/store")), open_store(url)
    shards = [latest_record(store, "shard.rooms").artifact for store in (here, there)]
    assert shards[0] == shards[1]
    networks = [latest_record(store, "train.rooms").artifact for store in (here, there)]
    assert networks[0].network.sha256 == networks[1].network.sha256

    assert SECRET_KEY not in far.stdout + far.stderr
    assert list(ray_folder.rglob("session_*/logs/*")), "Ray's logs are elsewhere"
    assert [*files_with_the_secret(tmp_path), *files_with_the_secret(ray_folder)] == []
    for key in there.list_keys():
        assert SECRET_KEY.encode() not in there.get_bytes(key), key
