"""How many workers a training has, what each is given, and whether this cluster has it."""

from typing import Literal

from pydantic import Field, field_validator, model_validator

from cluster.resources import cluster_resources
from stages.artifacts import ShardSet
from stages.protocol_names import checked_protocol
from stages.recipe import Recipe
from stages.settings import Settings


class ScalingSettings(Settings):
    """How many workers, what each is given, and what they save and show."""

    OPERATIONAL = frozenset(
        {
            "max_failures",
            "max_wait_min",
            "checkpoint_every_s",
            "checkpoint_every_steps",
            "stalled_after_s",
            "max_step_min",
            "num_panel_frames",
            "profile_steps",
            "loader_processes",
        }
    )

    num_workers: int = Field(1, ge=0, description="DDP ranks; each has a part of the global batch")
    use_gpu: bool | Literal["auto"] = Field(
        "auto", description="a GPU for each worker; auto = where the cluster has them"
    )
    cpus_per_worker: float = Field(1.0, gt=0, description="CPUs Ray sets aside for each worker")
    threads_per_worker: int | None = Field(
        None, ge=1, description="threads of a worker's maths on the CPU; none = cpus_per_worker"
    )
    loader_processes: int = Field(0, ge=0, description="decoding processes of each worker")
    min_workers: int | None = Field(
        None,
        ge=1,
        description="elastic: begin, or go on after a loss, with as few ranks where there is no "
        "room for num_workers, and with more when there is; none = always num_workers",
    )
    max_failures: int = Field(2, ge=0, description="restarts of a training whose worker died")
    max_wait_min: float | None = Field(
        None,
        gt=0,
        description="minutes to wait for room for the workers, each time; none = without end",
    )
    checkpoint_every_s: float | None = Field(
        60.0, gt=0, description="seconds between two saved states, each epoch's end apart"
    )
    checkpoint_every_steps: int | None = Field(
        None, ge=1, description="steps between two saved states, each epoch's end apart"
    )
    stalled_after_s: float = Field(
        120.0, gt=0, description="a rank is named that waits so long for a batch or in a step"
    )
    max_step_min: float = Field(
        30.0, gt=0, description="minutes after which ranks that wait for each other give up"
    )
    protocol: str | None = Field(
        None,
        description="what scores each epoch's validation, see docs/evaluation.md; none = every "
        "measured pixel at the network's output size",
    )
    num_panel_frames: int = Field(
        4, ge=0, description="validation frames drawn after each epoch, always the same"
    )
    profile_steps: int = Field(0, ge=0, description="steps of rank 0 that are traced in MLflow")
    max_train_samples: int | None = Field(None, ge=1, description="training frames at most")

    @field_validator("protocol")
    @classmethod
    def _check_protocol(cls, name: str | None) -> str | None:
        return None if name is None else checked_protocol(name)

    @model_validator(mode="after")
    def _check_min_workers(self) -> "ScalingSettings":
        if self.min_workers is not None and self.min_workers > self.num_workers:
            raise ValueError(
                f"min_workers = {self.min_workers} is more than num_workers = {self.num_workers}"
            )
        return self

    @property
    def scaling(self) -> "ScalingSettings":
        """These settings without what a stage adds to them."""
        return ScalingSettings(**self.model_dump(include=set(ScalingSettings.model_fields)))


def check_batch(recipe: Recipe, num_workers: int) -> None:
    """Check that every worker gets a part of the global batch.

    Raises:
        ValueError: there are more workers than frames in it.
    """
    if num_workers > recipe.global_batch_size:
        raise ValueError(
            f"num_workers = {num_workers} is more than recipe.global_batch_size = "
            f"{recipe.global_batch_size}: a worker would have no frame; use fewer workers, or a "
            "larger batch, which trains differently"
        )


def check_samples(recipe: Recipe, scaling: ScalingSettings, shards: ShardSet) -> None:
    """Check that the training frames fill a batch, before workers are waited for.

    Raises:
        ValueError: they do not.
    """
    from densedepth.data.order import num_batches

    num_samples = shards.splits["train"].num_samples
    num_batches(
        min(num_samples, scaling.max_train_samples or num_samples), recipe.global_batch_size
    )


def check_cpus(needed: float, what: str) -> None:
    """Check that a single machine has the CPUs that are asked for; Ray would wait for ever.

    Raises:
        ValueError: it has not.
    """
    has = cluster_resources()
    if has.is_one_machine and has.num_cpus < needed:
        raise ValueError(
            f"{what} need {needed:g} CPUs, but this Ray has {has.num_cpus:g}: lower num_workers, "
            "cpus_per_worker or num_cpus, or raise session.num_cpus"
        )


def use_gpu(scaling: ScalingSettings) -> bool:
    """Decide whether workers get GPUs; ``true`` waits until the cluster has grown some.

    Raises:
        ValueError: GPUs are asked for on a single machine that has none.
    """
    has = cluster_resources()
    is_enough = has.num_gpus >= max(1, scaling.min_workers or scaling.num_workers)
    if scaling.use_gpu == "auto":
        return is_enough
    if scaling.use_gpu and not is_enough and has.is_one_machine:
        raise ValueError(
            f"use_gpu = true and num_workers = {scaling.num_workers}, but this machine has "
            f"{has.num_gpus} GPUs: lower num_workers, set use_gpu = false or 'auto', or run on a "
            "cluster with GPU nodes"
        )
    return scaling.use_gpu
