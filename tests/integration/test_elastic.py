"""A training that loses a node goes on with the ranks that are left, by real raylets."""

import os
import signal
import threading
import time
from pathlib import Path

import pytest
from ray._private.ray_constants import PROCESS_TYPE_RAYLET

from stages import train
from tests.integration.test_training_faults import CONFIG, EPOCHS, STEPS, make_services, sharded
from tests.integration.test_training_faults import nodes as nodes
from tests.integration.test_training_faults import session as session
from tests.integration.test_training_faults import tracking_uri as tracking_uri

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.s3,
    pytest.mark.slow,
    pytest.mark.timeout(1200),
]


def test_a_training_goes_on_with_fewer_ranks_when_a_node_is_lost(nodes, session, tmp_path: Path):
    services = make_services(session, tmp_path)
    shards = sharded(services, tmp_path)
    sizes: list[int] = []

    def lose_node() -> None:
        until = time.monotonic() + 300
        while time.monotonic() < until:
            progress = services.monitor.snapshot().get(services.stage)
            beats = services.beats()
            if progress and progress.unit == "steps" and progress.done >= 4 and len(beats) == 3:
                sizes.append(len(beats))
                (node,) = nodes.worker_nodes
                os.kill(node.all_processes[PROCESS_TYPE_RAYLET][0].process.pid, signal.SIGKILL)
                return
            time.sleep(0.05)

    harm = threading.Thread(target=lose_node, daemon=True)
    harm.start()
    config = CONFIG.model_copy(update={"num_workers": 3, "min_workers": 2})
    result = train.run(config, services, shards)
    harm.join()
    assert sizes == [3]
    assert [e.epoch for e in result.epochs] == list(range(EPOCHS))
    assert result.epochs[-1].step == STEPS
