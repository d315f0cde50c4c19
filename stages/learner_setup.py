"""From a recipe to the learner: network, loss, optimiser, the same weights on every rank."""

from typing import Any

from stages.trainer import TrainJob


def make_learner(job: TrainJob, device: Any, num_samples: int, world_size: int) -> Any:
    """Build network, loss and optimiser as the recipe says; the same weights on every rank."""
    import ray.train.torch
    import torch

    from densedepth.data.order import num_batches
    from densedepth.depth_range import DepthRange
    from densedepth.distortion import Distortion
    from densedepth.learner import Learner
    from densedepth.losses import DepthLoss
    from densedepth.model import DenseDepth
    from densedepth.ranks import ddp_options
    from densedepth.schedule import Schedule
    from densedepth.train_settings import TrainSettings
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
    network = network.to(device)
    if recipe.speed.channels_last:
        network = network.to(memory_format=torch.channels_last)
    depth_range = DepthRange(job.shards.min_depth_m, job.shards.max_depth_m)
    optimiser = recipe.optimiser
    steps_per_epoch = num_batches(num_samples, recipe.global_batch_size)
    num_steps = steps_per_epoch * recipe.epochs
    drop_every = optimiser.drop_every_epochs
    settings = TrainSettings(
        schedule=Schedule(
            num_steps,
            optimiser.schedule,
            optimiser.warmup_steps,
            optimiser.final_rate_factor,
            max(1, round(drop_every * steps_per_epoch)) if drop_every else None,
            optimiser.drop_factor,
        ),
        learning_rate=optimiser.learning_rate,
        encoder_rate_factor=optimiser.encoder_rate_factor,
        betas=(optimiser.beta1, optimiser.beta2),
        amsgrad=optimiser.amsgrad,
        weight_decay=optimiser.weight_decay,
        clip_gradient_norm=optimiser.clip_gradient_norm,
        flip_probability=recipe.augment.flip_probability,
        channel_swap_probability=recipe.augment.channel_swap_probability,
        distortion=Distortion(
            recipe.augment.zoom_max, recipe.augment.rotation_deg, recipe.augment.colour_jitter
        ),
        ema_decay=recipe.ema_decay,
        freeze_encoder_norm=recipe.freeze_encoder_norm,
        masked=not job.shards.dense,
        global_batch_size=recipe.global_batch_size,
        seed=recipe.seed,
        precision=recipe.speed.precision,
        channels_last=recipe.speed.channels_last,
        compiled=recipe.speed.compile,
        cuda_graphs=recipe.speed.cuda_graphs,
        micro_batch_size=recipe.speed.micro_batch_size,
        max_skipped_steps=recipe.max_skipped_steps,
    )
    loss = DepthLoss(
        depth_range.max_target,
        l1_weight=recipe.loss.l1_weight,
        gradient_weight=recipe.loss.gradient_weight,
        ssim_weight=recipe.loss.ssim_weight,
    ).to(device)
    forward: Any = network
    if world_size > 1:
        forward = ray.train.torch.prepare_model(
            network,
            move_to_device=False,
            parallel_strategy_kwargs=ddp_options(device, world_size),
        )
    return Learner(network, forward, loss, depth_range, settings, device)
