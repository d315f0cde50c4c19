"""MLflow's model registry: a network as a model that predicts metres, versions with aliases."""

import importlib.metadata
from collections.abc import Mapping, Sequence
from typing import Any

CHAMPION, CHALLENGER = "champion", "challenger"
LOADER_MODULE = "densedepth.serving"
"""Named, not imported: MLflow imports it where the model is loaded."""
REQUIREMENTS = ("torch", "torchvision", "numpy", "jaxtyping", "safetensors")
"""What a loaded model needs; pinned to the versions that trained it."""


def register_model(
    uri: str,
    client: Any,
    run_id: str,
    name: str,
    path: str,
    tags: Mapping[str, str],
    metric: str,
    comparable: Sequence[str],
    code_paths: Sequence[str],
) -> tuple[int, str]:
    """Log a network under a run, register it once, and let the better version be champion.

    Args:
        uri: tracking and registry server.
        client: an MlflowClient of that server.
        run_id: the run that the model belongs to.
        name: registered model.
        path: the network's file.
        tags: facts of the version; values are text.
        metric: the tag whose number chooses the champion; higher is better.
        comparable: tags that must agree for two versions to be compared at all.
        code_paths: folders that travel with the model.

    Returns:
        Version and alias.
    """
    import mlflow

    known = client.search_model_versions(f"name = '{name}' and run_id = '{run_id}'")
    if known:  # a restart: the version is there already
        version = client.get_model_version(name, known[0].version)
        return int(version.version), (list(version.aliases) or [CHALLENGER])[0]
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    pins = [f"{library}=={importlib.metadata.version(library)}" for library in REQUIREMENTS]
    with mlflow.start_run(run_id=run_id):
        info = mlflow.pyfunc.log_model(
            name=name,
            loader_module=LOADER_MODULE,
            data_path=path,
            code_paths=list(code_paths),
            pip_requirements=[pin.partition("+")[0] for pin in pins],
            registered_model_name=name,
        )
    version = str(info.registered_model_version)
    for key, value in tags.items():
        client.set_model_version_tag(name, version, key, value)
    alias = (
        CHAMPION
        if is_better(tags, _champion_tags(client, name), metric, comparable)
        else CHALLENGER
    )
    client.set_registered_model_alias(name, alias, version)
    return int(version), alias


def is_better(
    tags: Mapping[str, str],
    champion: Mapping[str, str] | None,
    metric: str,
    comparable: Sequence[str],
) -> bool:
    """Decide whether a version takes the champion's place.

    Figures of different protocols or frames say nothing about each other: then the newer one,
    which is of the protocol that the user now asks for, takes it.
    """
    if champion is None or any(champion.get(key) != tags.get(key) for key in comparable):
        return True
    return float(tags[metric]) >= float(champion.get(metric, "-inf"))


def _champion_tags(client: Any, name: str) -> Mapping[str, str] | None:
    from mlflow.exceptions import MlflowException

    try:
        tags: Mapping[str, str] = client.get_model_version_by_alias(name, CHAMPION).tags
    except MlflowException:
        return None
    return tags
