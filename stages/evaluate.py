"""ShardSet + Checkpoint -> EvalReport: figures and pictures on the test split, by a protocol."""

import time
from collections.abc import Sequence
from typing import Any, Literal, cast

from pydantic import Field, field_validator

from cluster.resources import cluster_resources
from cluster.services import Services
from stages.artifacts import Checkpoint, EvalReport, Picture, ShardSet
from stages.protocol_names import checked_protocol
from stages.recipe import Recipe
from stages.scaling import check_cpus
from stages.settings import Settings
from stages.stored_shards import stored_shards


class EvaluateConfig(Settings):
    """How a trained network is scored."""

    protocol: str = Field("nyu_densedepth", description="see docs/evaluation.md")
    split: Literal["test", "val"] = Field("test", description="the split that is scored")
    batch_size: int = Field(6, ge=1, description="frames predicted together")
    num_pictures: int = Field(8, ge=0, description="frames shown in the report")
    use_gpu: bool | Literal["auto"] = Field("auto", description="auto = where there is one")
    num_cpus: float = Field(1.0, gt=0, description="CPUs Ray sets aside, and threads used")

    @field_validator("protocol")
    @classmethod
    def _check_protocol(cls, name: str) -> str:
        return checked_protocol(name)


def run(
    config: EvaluateConfig, services: Services, shards: ShardSet, checkpoint: Checkpoint
) -> EvalReport:
    """Score a network on a split it has not seen.

    Raises:
        ValueError: the data set has no such split, or not the depth that the protocol refers to.
    """
    import ray

    from densedepth.protocols import get_protocol

    get_protocol(config.protocol).require_truth(cast(Any, shards.ground_truth))
    if config.split not in shards.splits:
        raise ValueError(
            f"{shards.dataset} has no {config.split} split; it has {', '.join(shards.splits)}"
        )
    has = cluster_resources()
    use_gpu = has.num_gpus >= 1 if config.use_gpu == "auto" else config.use_gpu
    check_cpus(config.num_cpus, "the evaluation's threads")
    if use_gpu and not has.num_gpus and has.is_one_machine:
        raise ValueError("use_gpu = true, but this machine has no GPU: set use_gpu = 'auto'")
    task = ray.remote(score).options(num_cpus=config.num_cpus, num_gpus=1 if use_gpu else 0)
    services.progress(0, shards.splits[config.split].num_samples, "frames", "waiting for a CPU")
    report: EvalReport = ray.get(task.remote(config, services, shards, checkpoint, use_gpu))
    services.log_params({"protocol": report.protocol, "num_images": report.num_images})
    figures = {
        "per_image": report.per_image_mean,
        "pooled": report.pooled,
        "per_image_constant": report.constant_baseline,
    }
    services.log_metrics(
        [
            (
                0,
                {
                    f"{kind}_{name}": v
                    for kind, values in figures.items()
                    for name, v in values.items()
                },
            )
        ]
    )
    shards.log_use(services, (config.split,))
    services.log_bytes("evaluation.json", report.model_dump_json(indent=1).encode())
    for index, picture in enumerate(report.pictures):
        data = services.store.get_bytes(picture.image.key)
        services.log_bytes(f"pictures/{index:02d}.jpg", data)
    return report


def score(
    config: EvaluateConfig,
    services: Services,
    shards: ShardSet,
    checkpoint: Checkpoint,
    use_gpu: bool,
) -> EvalReport:
    """Predict and score every frame of the split: the body of the evaluation's task."""
    import torch

    from densedepth.checkpoint import load_network
    from densedepth.constant_baseline import constant_baseline
    from densedepth.data.loader import read_samples
    from densedepth.data.order import evenly_spread
    from densedepth.protocols import get_protocol
    from densedepth.scoring import score_frames

    device = torch.device("cuda" if use_gpu else "cpu")
    torch.set_num_threads(max(1, int(config.num_cpus)))
    protocol = get_protocol(config.protocol)
    network, depth_range, _ = load_network(
        services.store.fetch(checkpoint.network, services.scratch)
    )
    network = network.to(device).to(memory_format=torch.channels_last).eval()
    split = shards.splits[config.split]
    local = stored_shards(services.store, split, services.scratch)
    input_size_px = Recipe.model_validate(checkpoint.recipe).input_size_px
    shown = evenly_spread(split.num_samples, config.num_pictures)
    table, rows, index, predict_s = protocol.new_table(), [], 0, 0.0
    scales: list[float] = []
    started = time.monotonic()
    for frame in score_frames(
        network,
        read_samples(local),
        depth_range=depth_range,
        input_size_px=input_size_px,
        protocol=protocol,
        device=device,
        batch_size=config.batch_size,
    ):
        table.update(frame.sample.key, frame.metrics)
        scale = protocol.scale(frame.prediction_m, frame.sample.depth_m)
        if scale is not None:
            scales.append(scale)
        if index in shown:
            rows.append(frame)
        predict_s += frame.predict_s
        index += 1
        speed = index / (time.monotonic() - started)
        if index % config.batch_size == 0 or index == split.num_samples:
            services.progress(index, split.num_samples, "frames", f"{speed:.1f} frames/s")
    constant = constant_baseline((s.depth_m for s in read_samples(local)), protocol)
    summary = table.compute()
    intervals = table.intervals()["per_image_mean"]
    return EvalReport(
        dataset=shards.dataset,
        split=config.split,
        frames_sha256=split.manifest.sha256,
        protocol=protocol.as_dict(),
        protocol_text=f"{_coverage(protocol, shards, summary.num_images)}; {protocol.describe()}"
        + _scales_text(scales),
        num_images=summary.num_images,
        num_skipped=summary.num_skipped,
        per_image_mean=summary.per_image_mean,
        pooled=summary.pooled,
        constant_baseline=constant.per_image_mean,
        intervals={name: (i.low, i.high) for name, i in intervals.items()},
        by_depth=tuple(
            {
                "lower_m": r.lower_m,
                "upper_m": r.upper_m,
                "num_pixels": float(r.num_pixels),
                **r.pooled,
            }
            for r in summary.by_range
        ),
        pictures=_pictures(services, shards, rows),
        seconds_per_image=predict_s / max(1, index),
    )


def _coverage(protocol: Any, shards: ShardSet, num_images: int) -> str:
    """Say how much of the published test list was scored; of rendered scenes, none was."""
    if shards.rendered:
        return f"{num_images} rendered scenes, not the published test frames"
    return str(protocol.coverage(num_images))


def _scales_text(scales: Sequence[float]) -> str:
    """Say what median scaling did, as monodepth2 does; nothing where there was none."""
    import numpy as np

    if not scales:
        return ""
    median, factors = float(np.median(scales)), np.asarray(scales)
    spread = float(np.std(factors / median))
    return (
        f" Scale factors: median {median:.3f}, mean {float(factors.mean()):.3f}, standard "
        f"deviation of factor / median {spread:.3f}."
    )


def _pictures(services: Services, shards: ShardSet, rows: list[Any]) -> tuple[Picture, ...]:
    """Draw a panel for each shown frame and put it into the store."""
    from densedepth.pictures import PanelRow, panel, to_jpeg

    pictures = []
    for index, frame in enumerate(rows):
        sample = frame.sample
        caption = f"{sample.key}: {frame.caption}" if frame.caption else sample.key
        image = panel([PanelRow(sample.image, sample.depth_m, frame.prediction_m, "")])
        key = f"pictures/{services.key}/{index:02d}.jpg"
        ref = services.store.put_bytes(key, to_jpeg(image))
        pictures.append(Picture(image=ref, caption=caption))
    return tuple(pictures)
