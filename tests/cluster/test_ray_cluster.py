"""ray_cluster.yaml: what `ray up` makes of it, and what its nodes run."""

import copy
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.deploy_files import MAX_GPUS, locked_python, read_cluster


@pytest.fixture
def cluster() -> dict[str, Any]:
    return read_cluster()


@pytest.fixture
def amazon(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """An imitation of Amazon's services in this process, with real data about instance types."""
    import moto

    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "nothing")
    monkeypatch.setenv("HOME", str(tmp_path))  # Ray writes the key pair that it makes to ~/.ssh
    with moto.mock_aws():
        yield


def commands(cluster: dict[str, Any]) -> list[str]:
    """Every shell command that a node runs."""
    return [line for key, lines in cluster.items() if key.endswith("_commands") for line in lines]


def test_the_cluster_is_valid_by_the_schema_and_the_checks_of_ray_up(
    cluster: dict[str, Any],
) -> None:
    import ray.autoscaler._private.util as autoscaler

    autoscaler.validate_config(autoscaler.prepare_config(copy.deepcopy(cluster)))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("idle_timeout_minuts",), 10),
        (("available_node_types", "head", "resorces"), {"CPU": 0}),
        (("available_node_types", "gpu_worker", "resources", "GPU"), -1),
        (("head_node_type",), "haed"),
        (("max_workers",), "12"),
    ],
)
def test_a_mistake_in_the_cluster_file_is_refused(
    cluster: dict[str, Any], path: tuple[str, ...], value: Any
) -> None:
    import jsonschema
    import ray.autoscaler._private.util as autoscaler

    table = cluster
    for part in path[:-1]:
        table = table[part]
    table[path[-1]] = value
    with pytest.raises((jsonschema.ValidationError, ValueError)):
        autoscaler.validate_config(autoscaler.prepare_config(cluster))


def test_ray_up_prepares_and_launches_every_node_type_with_the_resources_that_it_really_has(
    cluster: dict[str, Any], amazon: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    import boto3
    import ray.autoscaler._private.aws.node_provider as aws
    from ray.autoscaler._private.commands import _bootstrap_config

    node_types = cluster["available_node_types"]
    wanted = sorted({t["node_config"]["InstanceType"] for t in node_types.values()})
    region = cluster["provider"]["region"]
    ec2 = boto3.client("ec2", region)
    catalogue = ec2.describe_instance_types(InstanceTypes=wanted)["InstanceTypes"]
    monkeypatch.setattr(aws, "list_ec2_instances", lambda *_: catalogue)  # not all thousand: slow
    iam = boto3.client("iam")
    for profile in {t["node_config"]["IamInstanceProfile"]["Name"] for t in node_types.values()}:
        iam.create_instance_profile(InstanceProfileName=profile)

    ready = _bootstrap_config(copy.deepcopy(cluster), no_config_cache=True)
    provider = aws.AWSNodeProvider(ready["provider"], ready["cluster_name"])
    for name, node_type in ready["available_node_types"].items():
        (instance,) = provider.create_node(node_type["node_config"], {"type": name}, 1).values()
        assert instance.instance_type == node_types[name]["node_config"]["InstanceType"]

    by_type = {entry["InstanceType"]: entry for entry in catalogue}
    for name in ("cpu_worker", "gpu_worker"):
        real = by_type[node_types[name]["node_config"]["InstanceType"]]
        num_gpus = sum(gpu["Count"] for gpu in real.get("GpuInfo", {}).get("Gpus", []))
        assert node_types[name]["resources"]["CPU"] == real["VCpuInfo"]["DefaultVCpus"]
        assert node_types[name]["resources"].get("GPU", 0) == num_gpus
    assert "GpuInfo" not in by_type[node_types["head"]["node_config"]["InstanceType"]]


def test_the_head_takes_no_work_and_workers_come_only_when_asked_for(
    cluster: dict[str, Any],
) -> None:
    node_types = cluster["available_node_types"]
    assert cluster["head_node_type"] == "head"
    assert node_types["head"]["resources"] == {"CPU": 0}
    assert "InstanceMarketOptions" not in node_types["head"]["node_config"], "the driver's node"
    workers = {name: t for name, t in node_types.items() if name != "head"}
    for worker in workers.values():
        assert worker["min_workers"] == 0
        assert worker["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
    assert cluster["max_workers"] == sum(t["max_workers"] for t in workers.values())
    gpus = [t["max_workers"] * t["resources"].get("GPU", 0) for t in workers.values()]
    assert sum(gpus) == MAX_GPUS
    assert cluster["upscaling_speed"] >= max(t["max_workers"] for t in workers.values())
    start = " ".join(cluster["head_start_ray_commands"])
    assert "--num-cpus=0 --num-gpus=0" in start
    assert "--dashboard-host=127.0.0.1" in start
    assert "--autoscaling-config=~/ray_bootstrap_config.yaml" in start


def test_nodes_install_exactly_the_lock_with_its_python(cluster: dict[str, Any]) -> None:
    text = "\n".join(commands(cluster))
    assert f"uv venv --quiet --python {locked_python()} " in text
    assert re.search(r"uv pip sync .*--require-hashes ~/depth/requirements\.lock", text)
    installs = re.findall(r"pip install[^\n]*", text)
    assert len(installs) == 1, "only uv comes from outside the lock"
    assert "'uv>=" in installs[0]
    assert cluster["file_mounts"]["~/depth/requirements.lock"] == "requirements.lock"


def test_every_command_of_a_node_is_valid_bash(cluster: dict[str, Any]) -> None:
    for command in commands(cluster):
        checked = subprocess.run(["bash", "-n", "-c", command], capture_output=True, text=True)
        assert checked.returncode == 0, f"{command}\n{checked.stderr}"


def test_the_environment_that_setup_writes_is_the_one_that_starting_reads(
    cluster: dict[str, Any], tmp_path: Path
) -> None:
    write = next(c for c in cluster["setup_commands"] if "> ~/depth/env" in c)
    login = next(c for c in cluster["setup_commands"] if ".bashrc" in c)
    (tmp_path / "depth").mkdir()
    (tmp_path / ".bashrc").touch()
    script = "\n".join([write, login, write, login, ". ~/.bashrc", "env"])
    env = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
    shown = subprocess.run(
        ["bash", "-e", "-c", script], env=env, capture_output=True, text=True, check=True
    ).stdout
    variables = dict(line.split("=", 1) for line in shown.splitlines() if "=" in line)
    assert variables["PATH"] == f"{tmp_path}/venv/bin:/usr/bin:/bin"
    assert variables["RAY_AUTH_MODE"] == "token"
    assert variables["DEPTH_OUTPUTS"].startswith("/")
    assert variables["AWS_DEFAULT_REGION"] == cluster["provider"]["region"]
    assert (tmp_path / ".bashrc").read_text().count("depth/env") == 1
    for key in ("head_start_ray_commands", "worker_start_ray_commands"):
        assert all(command.startswith(". ~/depth/env;") for command in cluster[key])


def test_the_token_is_a_file_of_the_user_and_stands_in_no_file_of_ours(
    cluster: dict[str, Any],
) -> None:
    assert cluster["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
    assert "chmod 600 ~/.ray/auth_token" in cluster["setup_commands"]
