"""How ranks that train together add their gradients."""

import inspect
from typing import Any

import torch
from torch.nn.parallel import DistributedDataParallel


def ddp_options(device: torch.device, world_size: int) -> dict[str, Any]:
    """Return what ``DistributedDataParallel`` is given.

    Restarts are to change no bit on the CPU. DDP arranges the gradients anew after its first
    step, and so after the first step of every restart; more than two ranks then sum in another
    order. It does not where it looks for parameters without a gradient, which costs a walk
    through the graph. On a GPU sums have no fixed order anyway.

    Running statistics are not sent before each step: of no use to a rank in training, some five
    hundred copies on a GPU. ``validate`` gives all ranks those of rank 0, which are saved.

    Args:
        device: of the network.
        world_size: ranks in all.
    """
    known = inspect.signature(DistributedDataParallel).parameters
    sends_statistics = "forward_sync_buffers"
    if sends_statistics not in known:  # its name before torch 2.15
        sends_statistics = "broadcast_buffers"
    return {
        "find_unused_parameters": device.type == "cpu" and world_size > 2,
        sends_statistics: False,
    }
