"""The moving average of a network's weights."""

import torch
from jaxtyping import Bool
from torch import Tensor, nn


@torch.no_grad()
def move_average(
    average: nn.Module,
    network: nn.Module,
    decay: float,
    step: int,
    is_skipped: Bool[Tensor, ""],
) -> None:
    """Move an average towards a network's weights and statistics; counters are copied.

    The decay begins low, at (1 + step) / (10 + step), as TensorFlow's
    ``tf.train.ExponentialMovingAverage`` does.

    Args:
        average: is changed.
        network: of the same kind.
        decay: the average's share that stays.
        step: the network's, counted from 1.
        is_skipped: on the device, which is not waited for: the average stays as it is.
    """
    decay = min(decay, (1 + step) / (10 + step))
    ours, theirs = average.state_dict(), network.state_dict()
    floats = [name for name, value in ours.items() if value.dtype.is_floating_point]
    share = torch.where(is_skipped, 0.0, 1 - decay)
    change = torch._foreach_sub([theirs[n] for n in floats], [ours[n] for n in floats])
    torch._foreach_mul_(change, share)
    torch._foreach_add_([ours[n] for n in floats], change)
    for name in ours.keys() - set(floats):
        ours[name].copy_(theirs[name])
