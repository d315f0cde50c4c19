"""A tensor on its way from the GPU to the host."""

import torch
from torch import Tensor


class OnItsWay:
    """What a tensor holds now, copied to the host while the GPU goes on with what comes next.

    Reading a tensor at once waits until the GPU has nothing left to do, and it then stands still
    until the host has given it more. What is read when more work has been queued costs nothing.

    Args:
        tensor: on any device; on the CPU nothing is copied.
    """

    def __init__(self, tensor: Tensor) -> None:
        self._on_host = tensor.to("cpu", non_blocking=True)
        self._event = None
        if tensor.is_cuda:
            # Blocking: the CPU that would ask again and again is left to the loader.
            self._event = torch.cuda.Event(blocking=True)
            self._event.record(torch.cuda.current_stream(tensor.device))

    def arrived(self) -> Tensor:
        """Wait for it, and return it."""
        if self._event is not None:
            self._event.synchronize()
        return self._on_host
