"""What starts clusters: the RayJob, the image, documented commands; no secrets in any of them."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from cluster.session import PROJECT_ROOT
from pipeline.config import PipelineConfig, load_config
from pipeline.errors import ConfigMistakes
from tests.cluster.deploy_files import (
    CLUSTER_FILE,
    DOCKERFILE,
    MAX_GPUS,
    OPERATIONS,
    RAYJOB_FILE,
    image_env,
    image_steps,
    locked_python,
    locked_version,
    pod_groups,
    read_cluster,
    read_rayjob,
)

SECRETS = {
    "an access key's id": r"\b(AKIA|ASIA)[0-9A-Z]{16}\b",
    "a secret given in place": (
        r"(?i)(secret[_-]?access[_-]?key|password|auth_token)['\"]?\s*[:=]\s*"
        r"['\"]?[A-Za-z0-9/+=_.-]{6,}"
    ),
    "a private key": r"BEGIN [A-Z ]*PRIVATE KEY",
    "credentials in a URL": r"://[^/\s:@]+:[^/\s@]+@",
}


@pytest.fixture
def rayjob() -> dict[str, Any]:
    return read_rayjob()


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
    images = {group["template"]["spec"]["containers"][0]["image"] for group in pod_groups(rayjob)}
    assert len(images) == 1, "driver and workers must run the same code"
    for group in pod_groups(rayjob):
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
    mounts = pod_groups(rayjob)[0]["template"]["spec"]["containers"][0]["volumeMounts"]
    raw = next(mount["mountPath"] for mount in mounts if mount["name"] == "raw")
    assert all(table.root.startswith(f"{raw}/") for table in config.shard.values())
    assert all(table.num_workers <= MAX_GPUS for table in config.train.values())


def test_the_image_holds_the_locks_python_and_every_package_and_is_not_root() -> None:
    steps = image_steps()
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
    assert len(documented_commands()) >= 4
    for command in documented_commands():
        try:
            config_of(command)
        except ConfigMistakes as error:
            pytest.fail(f"{command}\n{error}")


@pytest.mark.parametrize(
    "path", [CLUSTER_FILE, DOCKERFILE, RAYJOB_FILE, OPERATIONS], ids=lambda p: p.name
)
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
    rayjob: dict[str, Any],
) -> None:
    cluster = read_cluster()
    assert "aws_credentials" not in cluster["provider"]
    for node_type in cluster["available_node_types"].values():
        assert set(node_type["node_config"]["IamInstanceProfile"]) == {"Name"}
        assert node_type["node_config"]["MetadataOptions"]["HttpTokens"] == "required"
    for group in pod_groups(rayjob):
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
