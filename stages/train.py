"""ShardSet -> Checkpoint: DDP training by Ray Train, which goes on when a worker dies."""

import json
from importlib import import_module
from typing import Any

from pydantic import Field, model_validator

from cluster.services import Services
from stages.artifacts import Checkpoint, EpochRecord, ShardSet
from stages.heartbeat import watched
from stages.recipe import NetworkConfig, Recipe, weights_mark
from stages.scaling import ScalingSettings, check_batch, check_samples
from stages.trainer import EPOCH_VIEW, TrainJob, make_trainer, opened, run_trainer
from stages.worker import train_worker


class TrainConfig(ScalingSettings):
    """The main training of a data set."""

    recipe: Recipe = Field(default_factory=Recipe, description="how the network is trained")
    num_workers: int = Field(1, ge=1, description="DDP ranks; each has a part of the global batch")

    @model_validator(mode="after")
    def _check_batch(self) -> "TrainConfig":
        check_batch(self.recipe, self.num_workers)
        return self


def sources(config: TrainConfig) -> dict[str, str]:
    """Say what the stage reads outside the store: the encoder's weights."""
    return weights_mark(config.recipe)


def networks(config: TrainConfig) -> tuple[NetworkConfig, ...]:
    """Name the networks that are trained, whose encoders' weights must be there."""
    return (config.recipe.network,)


def run(config: TrainConfig, services: Services, shards: ShardSet) -> Checkpoint:
    """Train a network.

    Raises:
        ValueError: the settings ask for what the cluster does not have, the protocol refers to
            another kind of depth, or there are fewer frames than a batch has.
    """
    if config.protocol is not None:
        import_module(EPOCH_VIEW).require_truth(config.protocol, shards.ground_truth)
    check_samples(config.recipe, config, shards)
    job = TrainJob(recipe=config.recipe, scaling=config.scaling, shards=shards)
    services.log_params({"recipe": config.recipe.model_dump(), "num_workers": config.num_workers})
    shards.log_use(services, ("train", "val"))
    several = "s" if config.num_workers != 1 else ""
    text = f"waiting for {config.num_workers} worker{several} to start"
    services.progress(0, 0, "steps", text)
    with watched(services, config.stalled_after_s):
        result = run_trainer(lambda: make_trainer(train_worker, job, services), services.store)
    artifact = keep_network(job, services, result)
    services.log_metrics([(0, artifact.summary())])
    history = [record.model_dump() for record in artifact.epochs]
    services.log_bytes("curve.json", json.dumps(history, indent=1).encode())
    return artifact


def keep_network(job: TrainJob, services: Services, result: Any) -> Checkpoint:
    """Copy the chosen network from Ray's folder into the store.

    Raises:
        RuntimeError: training ended without a checkpoint.
        StorageError: the store does not give it, or take it.
    """
    if result.checkpoint is None:
        raise RuntimeError("training ended without a checkpoint; Ray's logs say why")
    history = tuple(EpochRecord.model_validate(r) for r in result.return_value["history"])
    chosen, best_epoch = result.checkpoint, history[-1].epoch
    if job.keeps_best:
        chosen, metrics = min(result.best_checkpoints, key=lambda pair: pair[1]["val_loss"])
        best_epoch = int(metrics["epoch"])
    with opened(chosen, services.store.url_of("ray")) as folder:
        ref = services.store.put_file(
            f"networks/{services.key}.safetensors", folder / "network.safetensors"
        )
    return Checkpoint(
        dataset=job.shards.dataset,
        network=ref,
        recipe=job.recipe.model_dump(mode="json"),
        best_epoch=best_epoch,
        epochs=history,
        num_parameters=result.return_value["num_parameters"],
        train_seconds=sum(record.seconds for record in history),
        num_workers=job.scaling.num_workers,
        num_skipped_steps=len(result.return_value["skipped"]),
    )
