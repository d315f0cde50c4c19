"""How far the host runs ahead of the GPU."""

from collections import deque

import torch

STEPS_AHEAD = 2
"""Steps that the GPU has left to do, at least one whole one, when the host goes on."""


class Pace:
    """Holds the host back while the GPU has enough to do.

    A host that runs on waits for batches that the GPU does not need yet: that wait would be told
    as the GPU's, batches would fill its memory, and a GPU that hangs would be noticed late.

    Args:
        device: a GPU; on the CPU nothing is waited for.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._queued: deque[torch.cuda.Event] = deque()

    def step_queued(self) -> None:
        """Note that a step has been queued, and wait for the one ``STEPS_AHEAD`` before it."""
        if self._device.type != "cuda":
            return
        # Blocking: the CPU that would ask again and again is left to the loader.
        done = torch.cuda.Event(blocking=True)
        done.record(torch.cuda.current_stream(self._device))
        self._queued.append(done)
        if len(self._queued) > STEPS_AHEAD:
            self._queued.popleft().synchronize()
