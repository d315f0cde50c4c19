"""The running statistics of all batch norms of a network, which a skipped step must not change."""

import torch
from jaxtyping import Bool
from torch import Tensor, nn


class NormStatistics:
    """Moves a network's statistics into one tensor, so that all of them are put back at once.

    Args:
        network: on the device where it stays.
    """

    def __init__(self, network: nn.Module) -> None:
        layers = [m for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        buffers = [b for m in layers for b in (m.running_mean, m.running_var) if b is not None]
        self._piece = torch.cat([b.flatten() for b in buffers]) if buffers else torch.empty(0)
        parts = self._piece.split([b.numel() for b in buffers]) if buffers else ()
        for buffer, part in zip(buffers, parts, strict=True):
            buffer.data = part.view_as(buffer)
        self._noted = self._piece

    def note(self) -> None:
        """Note them as they are before a step."""
        self._noted = self._piece.clone()

    def put_back(self, is_skipped: Bool[Tensor, ""]) -> None:
        """Put back what was noted, where the step is skipped; the device is not waited for."""
        if len(self._piece):
            self._piece.copy_(torch.where(is_skipped, self._noted, self._piece))
