"""Checkpoints + EvalReports -> Registration: each network in MLflow's registry, with an alias.

A version becomes ``champion`` when it is at least as good as the present one under the same
protocol on the same frames; otherwise it is ``challenger``. A network that does not beat the best
constant prediction is kept out.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, field_validator

from cluster.services import Services
from cluster.tracking import anchored_uri
from stages.artifacts import Checkpoint, EvalReport, RegisteredModel, Registration, ReportFiles
from stages.settings import Settings

if TYPE_CHECKING:  # named for the fingerprint: what travels with a model, and who is champion
    import cluster.registry  # noqa: F401 - used by the monitor
    import densedepth.serving  # noqa: F401 - used by MLflow


class RegisterConfig(Settings):
    """What goes into the registry, and under which name."""

    model_prefix: str = Field("densedepth", description="the name is PREFIX-DATASET")
    registry_uri: str = Field("", description="the registry's server; filled from tracking.uri")
    metric: Literal["delta1", "delta2", "delta3"] = Field(
        "delta1", description="per-image mean that chooses the champion"
    )
    min_ratio_to_constant: float = Field(
        1.0, ge=0, description="delta1 must reach this many times the best constant's"
    )

    @field_validator("registry_uri")
    @classmethod
    def _anchor_uri(cls, uri: str) -> str:
        return anchored_uri(uri)


def run(
    config: RegisterConfig,
    services: Services,
    checkpoints: dict[str, Checkpoint],
    evaluations: dict[str, EvalReport],
    report: ReportFiles,
) -> Registration:
    """Register every evaluated network."""
    models = []
    for index, (dataset, evaluation) in enumerate(evaluations.items()):
        services.progress(index, len(evaluations), "models", f"logging {dataset}")
        models.append(_register(config, services, checkpoints[dataset], evaluation, report))
    services.progress(len(models), len(models), "models")
    services.log_params({m.name: f"version {m.version}, {m.alias}" for m in models})
    return Registration(models=tuple(models))


def _register(
    config: RegisterConfig,
    services: Services,
    checkpoint: Checkpoint,
    evaluation: EvalReport,
    report: ReportFiles,
) -> RegisteredModel:
    name = f"{config.model_prefix}-{checkpoint.dataset}"
    ratio = evaluation.per_image_mean["delta1"] / max(evaluation.constant_baseline["delta1"], 1e-9)
    if ratio < config.min_ratio_to_constant:
        reason = (
            f"kept out: delta1 is {ratio:.2f} times the best constant prediction's, "
            f"min_ratio_to_constant is {config.min_ratio_to_constant}"
        )
        return RegisteredModel(
            dataset=checkpoint.dataset, name=name, version=0, alias="", uri="", reason=reason
        )
    tags: dict[str, Any] = {
        "depth.protocol": evaluation.protocol["name"],
        "depth.split": evaluation.split,
        "depth.num_images": evaluation.num_images,
        "depth.frames_sha256": evaluation.frames_sha256,
        "depth.network_sha256": checkpoint.network.sha256,
        "depth.report": services.store.url_of(report.html.key),
        **{
            f"depth.per_image_{metric}": value
            for metric, value in evaluation.per_image_mean.items()
        },
    }
    path = services.store.fetch(checkpoint.network, services.scratch)
    version, alias = services.monitor.register_model(
        services.run_id,
        name,
        str(path),
        {key: str(value) for key, value in tags.items()},
        f"depth.per_image_{config.metric}",
        ("depth.protocol", "depth.frames_sha256"),
        [str(Path(__file__).resolve().parent.parent / "densedepth")],
    )
    return RegisteredModel(
        dataset=checkpoint.dataset,
        name=name,
        version=version,
        alias=alias,
        uri=f"models:/{name}@{alias}",
    )
