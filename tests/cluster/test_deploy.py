"""The files that start clusters: valid, within their limits, of one version, without secrets."""

import copy
import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.session import PROJECT_ROOT
from pipeline.config import PipelineConfig, load_config
from pipeline.errors import ConfigMistakes

CLUSTER_FILE = PROJECT_ROOT / "ray_cluster.yaml"
DOCKERFILE = PROJECT_ROOT / "cluster/deploy/Dockerfile"
RAYJOB_FILE = PROJECT_ROOT / "cluster/deploy/rayjob.yaml"
OPERATIONS = PROJECT_ROOT / "docs/operations.md"
MAX_GPUS = 64

SECRETS = {
    "an access key's id": r"\b(AKIA|ASIA)[0-9A-Z]{16}\b",
    "a secret given in place": r"(?i)(secret[_-]?access[_-]?key|password|auth_token)['\"]?\s*[:=]\s*"
    r"['\"]?[A-Za-z0-9/+=_.-]{6,}",
    "a private key": r"BEGIN [A-Z ]*PRIVATE KEY",
    "credentials in a URL": r"://[^/\s:@]+:[^/\s@]+@",
}


@pytest.fixture
def cluster() -> dict[str, Any]:
    """What `ray up` reads."""
    return dict(yaml.safe_load(CLUSTER_FILE.read_text()))


@pytest.fixture
def rayjob() -> dict[str, Any]:
    """What `kubectl create` reads."""
    return dict(yaml.safe_load(RAYJOB_FILE.read_text()))


@pytest.fixture
def amazon(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """An imitation of Amazon's services in this process, with real data about instance types."""
    moto = pytest.importorskip("moto")
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "nothing")
    monkeypatch.setenv("HOME", str(tmp_path))  # Ray writes the key pair that it makes to ~/.ssh
    with moto.mock_aws():
        yield


def locked_version(package: str) -> str:
    match = re.search(
        rf"^{package}==([\w.]+)", (PROJECT_ROOT / "requirements.lock").read_text(), re.MULTILINE
    )
    assert match, f"{package} is not in requirements.lock"
    return match.group(1)


def locked_python() -> str:
    match = re.search(r"--python-version (3\.\d+)", (PROJECT_ROOT / "Makefile").read_text())
    assert match
    return match.group(1)


def commands(cluster: dict[str, Any]) -> list[str]:
    """Every shell command that a node runs."""
    return [line for key, lines in cluster.items() if key.endswith("_commands") for line in lines]


# ray_cluster.yaml


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
    import jsonschema  # type: ignore[import-untyped]
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


# secrets


@pytest.mark.parametrize("path", [CLUSTER_FILE, DOCKERFILE, RAYJOB_FILE, OPERATIONS], ids=str)
def test_no_secret_stands_in_a_file_that_starts_a_cluster(path: Path) -> None:
    assert secrets_in(path.read_text()) == []


@pytest.mark.parametrize(
    "text",
    [
        "AKIAABCDEFGHIJKLMNOP",
        "AWS_SECRET_ACCESS_KEY=wJalrXUtnFEMI/K7MDENG",
        "password: hunter22",
        "-----BEGIN RSA PRIVATE KEY-----",
        "tracking.uri=http://admin:hunter22@mlflow:5000",
    ],
)
def test_a_secret_would_be_found(text: str) -> None:
    assert len(secrets_in(f"harmless\n{text}\n")) == 1


def test_credentials_come_from_roles_and_secrets_not_from_values(
    cluster: dict[str, Any], rayjob: dict[str, Any]
) -> None:
    assert "aws_credentials" not in cluster["provider"]
    for node_type in cluster["available_node_types"].values():
        assert set(node_type["node_config"]["IamInstanceProfile"]) == {"Name"}
        assert node_type["node_config"]["MetadataOptions"]["HttpTokens"] == "required"
    for group in groups(rayjob):
        pod = group["template"]["spec"]
        assert pod["serviceAccountName"] == "depth"
        for variable in pod["containers"][0]["env"]:
            assert not re.search("KEY|SECRET|TOKEN|PASSWORD", variable["name"])
        sources = pod["containers"][0]["envFrom"]
        assert all(set(source) == {"secretRef"} for source in sources)
    assert "depth-mlflow" not in str(rayjob["spec"]["rayClusterSpec"]["workerGroupSpecs"]), (
        "only the driver's node talks to MLflow"
    )


def secrets_in(text: str) -> list[str]:
    return [what for what, pattern in SECRETS.items() if re.search(pattern, text)]


# the RayJob


def groups(rayjob: dict[str, Any]) -> list[dict[str, Any]]:
    spec = rayjob["spec"]["rayClusterSpec"]
    return [spec["headGroupSpec"], *spec["workerGroupSpecs"]]


def test_rays_autoscaler_reads_the_rayjobs_cluster_as_a_head_and_64_gpus(
    rayjob: dict[str, Any],
) -> None:
    from ray.autoscaler._private.kuberay import autoscaling_config

    assert (rayjob["apiVersion"], rayjob["kind"]) == ("ray.io/v1", "RayJob")
    resource = {
        "metadata": {"name": "depth", "namespace": "default"},
        "spec": rayjob["spec"]["rayClusterSpec"],
    }
    read = autoscaling_config._derive_autoscaling_config_from_ray_cr(resource)
    node_types = read["available_node_types"]
    assert node_types["headgroup"]["resources"]["CPU"] == 0
    assert "GPU" not in node_types["headgroup"]["resources"]
    assert node_types["cpu"]["resources"]["CPU"] == 16
    assert "GPU" not in node_types["cpu"]["resources"]
    assert node_types["gpu"]["max_workers"] * node_types["gpu"]["resources"]["GPU"] == MAX_GPUS
    assert all(node_type["min_workers"] == 0 for node_type in node_types.values())
    assert read["idle_timeout_minutes"] == 10


def test_the_rayjob_starts_what_it_says_and_cleans_up(rayjob: dict[str, Any]) -> None:
    spec = rayjob["spec"]
    cluster = spec["rayClusterSpec"]
    assert spec["shutdownAfterJobFinishes"] is True
    assert cluster["enableInTreeAutoscaling"] is True
    assert cluster["authOptions"] == {"mode": "token"}
    assert cluster["rayVersion"] == locked_version("ray")
    images = {group["template"]["spec"]["containers"][0]["image"] for group in groups(rayjob)}
    assert len(images) == 1, "driver and workers must run the same code"
    for group in groups(rayjob):
        pod = group["template"]["spec"]
        volumes = {volume["name"] for volume in pod["volumes"]}
        mounted = {mount["name"]: mount for mount in pod["containers"][0]["volumeMounts"]}
        assert set(mounted) == volumes
        assert mounted["outputs"]["mountPath"] == image_env()["DEPTH_OUTPUTS"]
        assert pod["securityContext"]["runAsUser"] == 1000
    assert "--uid 1000" in DOCKERFILE.read_text()


def test_the_rayjobs_run_keeps_its_results_outside_the_cluster(
    rayjob: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DEPTH_OUTPUTS", str(tmp_path))
    entrypoint = rayjob["spec"]["entrypoint"]
    assert entrypoint.startswith("python -m pipeline.run nyu ")
    config = config_of(entrypoint)
    assert config.store.startswith("s3://")
    assert config.tracking.uri.startswith("http")
    mounts = groups(rayjob)[0]["template"]["spec"]["containers"][0]["volumeMounts"]
    raw = next(mount["mountPath"] for mount in mounts if mount["name"] == "raw")
    assert all(table.root.startswith(f"{raw}/") for table in config.shard.values())
    assert all(table.num_workers <= MAX_GPUS for table in config.train.values())


# commands that people copy


def config_of(command: str) -> PipelineConfig:
    words = shlex.split(command)
    assert words[:3] == ["python", "-m", "pipeline.run"]
    preset, *overrides = [word for word in words[3:] if word != "--plan"]
    return load_config(preset, overrides)


def documented_commands() -> list[str]:
    """Every full command line of the pipeline in the operations guide and ray_cluster.yaml."""
    found = []
    for path in (OPERATIONS, CLUSTER_FILE):
        text = re.sub(r"\\\n#?\s*", "", path.read_text())
        found += re.findall(r"python -m pipeline\.run \w[^\n`]*", text)
    return found


def test_every_documented_command_is_a_valid_configuration(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DEPTH_OUTPUTS", str(tmp_path))
    assert len(documented_commands()) >= 5
    for command in documented_commands():
        try:
            config_of(command)
        except ConfigMistakes as error:
            pytest.fail(f"{command}\n{error}")


# the image


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions and their arguments, comments and line ends taken out."""
    lines = [line for line in DOCKERFILE.read_text().splitlines() if not line.startswith("#")]
    text = re.sub(r"\\\n", " ", "\n".join(lines))
    pairs = [line.split(maxsplit=1) for line in text.splitlines() if line.strip()]
    return [(word, rest) for word, rest in pairs]


def image_env() -> dict[str, str]:
    pairs = [shlex.split(rest) for word, rest in instructions() if word == "ENV"]
    return dict(pair.split("=", 1) for group in pairs for pair in group)


def test_the_image_holds_the_locks_python_and_every_package_and_is_not_root() -> None:
    steps = instructions()
    assert steps[0][0] == "FROM"
    assert re.match(rf"python:{re.escape(locked_python())}-slim\b", steps[0][1])
    install = next(rest for word, rest in steps if word == "RUN" and "uv pip sync" in rest)
    assert "--require-hashes" in install
    assert install.split()[-1] == "/opt/depth/requirements.lock"
    copied = {rest.split()[0] for word, rest in steps if word == "COPY"}
    assert copied == {"requirements.lock", "pipeline", "stages", "cluster", "densedepth"}
    assert all((PROJECT_ROOT / source).exists() for source in copied)
    assert [rest for word, rest in steps if word == "USER"] == ["ray"]
    assert image_env()["PATH"].startswith("/opt/venv/bin:")
    assert image_env()["PYTHONPATH"] == next(rest for word, rest in steps if word == "WORKDIR")
    assert "wget" in next(rest for word, rest in steps if word == "RUN"), "KubeRay's probes"
