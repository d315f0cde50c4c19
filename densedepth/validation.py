"""Loss and metrics over a split, all ranks together."""

from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as dist

from densedepth.data.batch import Batch, PackedBatch
from densedepth.learner import Learner
from densedepth.metric_table import MetricTable
from densedepth.metrics import image_metrics


@torch.no_grad()
def validate(learner: Learner, batches: Iterable[Batch | PackedBatch]) -> dict[str, float]:
    """Compute loss and metrics at the network's output size, in float32.

    Args:
        learner: whose best network is validated.
        batches: this rank's share of the split.

    Returns:
        ``loss`` (mean over samples) and per-image means of the metrics, both over valid pixels:
        filling makes training depth dense, validation depth keeps its holes. Nothing where there
        is no sample.
    """
    network = learner.best_network.eval()
    distributed = dist.is_initialized() and dist.get_world_size() > 1
    if distributed:  # each rank's batch norm saw its own samples: rank 0's are what is saved
        for buffer in network.buffers():
            dist.broadcast(buffer, src=0)
    table, loss_sum, count = MetricTable("validation"), 0.0, 0
    for packed in batches:
        batch = packed.to(learner.device)
        image = (batch.image.float() / 255).contiguous(memory_format=torch.channels_last)
        predicted = network(image)
        target = learner.depth_range.to_target(batch.depth_m)
        terms = learner.loss(predicted, target, batch.valid)
        loss_sum += float(terms.total) * len(batch.keys)
        count += len(batch.keys)
        predicted_m = learner.depth_range.to_depth_m(predicted).cpu().numpy()
        truth_m, valid = batch.depth_m.cpu().numpy(), batch.valid.cpu().numpy()
        for i, key in enumerate(batch.keys):
            table.update(key, image_metrics(predicted_m[i, 0], truth_m[i, 0], valid[i, 0]))
    if distributed:
        parts: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(parts, (table.to_dict(), loss_sum, count))
        table, loss_sum, count = MetricTable("validation"), 0.0, 0
        for part, part_loss, part_count in parts:
            table.merge(MetricTable.from_dict(part))
            loss_sum += part_loss
            count += part_count
    if not count:  # no validation split: no figures, rather than made-up ones
        return {}
    means = table.compute().per_image_mean if table.num_images else {}
    return {"loss": loss_sum / count, **means}
