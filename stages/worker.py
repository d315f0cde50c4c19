"""What each Ray Train worker executes: the seam between Ray and plain PyTorch.

Shared by ``train`` and ``ablate``. The loop itself is ``densedepth.training.fit``.
"""

import tempfile
from pathlib import Path
from typing import Any

from cluster.errors import from_os_error
from stages.artifacts import EpochRecord
from stages.recipe import Recipe
from stages.stored_shards import stored_shards
from stages.trainer import TrainJob


def train_worker(config: dict[str, Any]) -> dict[str, Any]:
    """Train on this rank; every rank reports after every epoch, rank 0 with the checkpoint.

    Returns:
        ``history``, the epochs' records, and ``num_parameters``.
    """
    import ray.train
    import ray.train.torch
    import torch

    from densedepth.training import EpochResult, StepRecord, fit

    job, services = TrainJob.model_validate_json(config["job"]), config["services"]
    rank, world_size, checkpoint = 0, 1, None
    in_own_trial = job.scaling.num_workers == 0  # inside Ray Tune, where ray.train does not answer
    if not in_own_trial:
        context = ray.train.get_context()
        rank, world_size = context.get_world_rank(), context.get_world_size()
        checkpoint = ray.train.get_checkpoint()
    device = ray.train.torch.get_device()
    if device.type == "cpu":
        torch.set_num_threads(
            job.scaling.threads_per_worker or max(1, int(job.scaling.cpus_per_worker))
        )
    at_most = job.scaling.max_train_samples
    store, scratch = services.store, services.scratch
    train_shards = stored_shards(store, job.shards.splits["train"], scratch, at_most)
    val_split = job.shards.splits.get("val")
    val_shards = stored_shards(store, val_split, scratch) if val_split else None
    learner = make_learner(job, device, train_shards.num_used, world_size)
    history: list[dict[str, Any]] = []
    if checkpoint is not None:
        with checkpoint.as_directory() as folder:
            state = torch.load(Path(folder) / "state.pt", map_location=device, weights_only=True)
        learner.load_state(state)
        history = state["history"]
    num_steps = learner.settings.num_steps

    def on_step(record: StepRecord) -> None:
        if rank:
            return
        metrics = {**record.metrics}
        metrics["images_per_second"] *= world_size
        services.log_metrics([(record.step, {f"step/{k}": v for k, v in metrics.items()})])
        text = f"loss {metrics['loss']:.3f}, {metrics['images_per_second']:.1f} images/s"
        services.progress(record.step, num_steps, "steps", text)

    def on_epoch(result: EpochResult) -> None:
        record = EpochRecord(
            epoch=result.epoch,
            step=result.step,
            train_loss=result.train_loss,
            metrics=result.metrics,
            seconds=result.seconds,
        )
        history.append(record.model_dump())
        metrics = {"train_loss": result.train_loss} | {
            f"val_{name}": value for name, value in result.metrics.items()
        }
        report = {**metrics, "epoch": result.epoch, "step": result.step}
        if rank:
            ray.train.report(report)
            return
        services.log_metrics([(result.epoch, {f"epoch/{k}": v for k, v in metrics.items()})])
        if in_own_trial:
            return
        with tempfile.TemporaryDirectory() as folder:
            _write_checkpoint(Path(folder), learner, history, job.recipe)
            checkpoint = ray.train.Checkpoint.from_directory(folder)
            try:
                ray.train.report(report, checkpoint=checkpoint)
            except OSError as error:  # from the upload
                raise from_os_error(error, services.store.url_of("ray"), writing=True) from error

    def batches(epoch: int) -> Any:
        from densedepth.data.loader import BatchLoader, TrainBatches

        return BatchLoader(
            TrainBatches(
                train_shards,
                seed=job.recipe.seed,
                epoch=epoch,
                rank=rank,
                world_size=world_size,
                global_batch_size=job.recipe.global_batch_size,
                input_size_px=job.recipe.input_size_px,
            ),
            loader_processes=job.scaling.loader_processes,
            pin_memory=device.type == "cuda",
        )

    def validation() -> Any:
        from densedepth.data.loader import BatchLoader, ValidationBatches

        if val_shards is None:
            return []
        return BatchLoader(
            ValidationBatches(
                val_shards,
                rank=rank,
                world_size=world_size,
                batch_size=max(1, job.recipe.global_batch_size // world_size),
                input_size_px=job.recipe.input_size_px,
            ),
            loader_processes=job.scaling.loader_processes,
            pin_memory=device.type == "cuda",
        )

    if rank == 0:
        services.progress(learner.step, num_steps, "steps", f"{world_size} workers")
    fit(
        learner,
        epochs=job.recipe.epochs,
        train=batches,
        validation=validation,
        on_step=on_step,
        on_epoch=on_epoch,
    )
    count = sum(p.numel() for p in learner.network.parameters() if p.requires_grad)
    return {"history": history, "num_parameters": count}


def make_learner(job: TrainJob, device: Any, num_samples: int, world_size: int) -> Any:
    """Build network, loss and optimiser as the recipe says; the same weights on every rank."""
    import ray.train.torch
    import torch

    from densedepth.data.order import num_batches
    from densedepth.depth_range import DepthRange
    from densedepth.losses import DepthLoss
    from densedepth.model import DenseDepth
    from densedepth.training import Learner, TrainSettings
    from densedepth.weights import load_encoder_weights

    recipe = job.recipe
    torch.manual_seed(recipe.seed)
    network = DenseDepth(
        recipe.network.encoder,
        recipe.network.decoder_width,
        conva_activation=recipe.network.conva_activation,
        align_corners=recipe.network.align_corners,
        input_normalisation=recipe.network.input_normalisation,
    )
    load_encoder_weights(network, recipe.network.weights, recipe.network.weights_sha256)
    network = network.to(device).to(memory_format=torch.channels_last)
    depth_range = DepthRange(job.shards.min_depth_m, job.shards.max_depth_m)
    optimiser = recipe.optimiser
    steps_per_epoch = num_batches(num_samples, recipe.global_batch_size)
    settings = TrainSettings(
        num_steps=steps_per_epoch * recipe.epochs,
        learning_rate=optimiser.learning_rate,
        encoder_rate_factor=optimiser.encoder_rate_factor,
        betas=(optimiser.beta1, optimiser.beta2),
        amsgrad=optimiser.amsgrad,
        weight_decay=optimiser.weight_decay,
        schedule=optimiser.schedule,
        warmup_steps=optimiser.warmup_steps,
        final_rate_factor=optimiser.final_rate_factor,
        clip_gradient_norm=optimiser.clip_gradient_norm,
        flip_probability=recipe.augment.flip_probability,
        channel_swap_probability=recipe.augment.channel_swap_probability,
        ema_decay=recipe.ema_decay,
        freeze_encoder_norm=recipe.freeze_encoder_norm,
        masked=not job.shards.dense,
    )
    loss = DepthLoss(
        depth_range.max_target,
        l1_weight=recipe.loss.l1_weight,
        gradient_weight=recipe.loss.gradient_weight,
        ssim_weight=recipe.loss.ssim_weight,
    ).to(device)
    forward: Any = network
    if world_size > 1:
        forward = ray.train.torch.prepare_model(network, move_to_device=False)
    return Learner(network, forward, loss, depth_range, settings, device)


def _write_checkpoint(
    folder: Path, learner: Any, history: list[dict[str, Any]], recipe: Recipe
) -> None:
    """Write the full state for a restart, and the network alone for whoever uses it."""
    import torch

    from densedepth.checkpoint import save_network

    state = {**learner.state(), "history": history}
    torch.save(state, folder / "state.pt")
    extra = {"input_size_px": list(recipe.input_size_px)}
    save_network(learner.best_network, learner.depth_range, folder / "network.safetensors", extra)
