"""A trace of a few training steps, to open in Perfetto or chrome://tracing."""

from collections.abc import Callable
from pathlib import Path

import torch

STEPS_BEFORE = 3
"""Steps before the trace: the first ones load, compile and choose kernels."""


def step_profiler(
    num_steps: int, path: Path, then: Callable[[Path], None]
) -> torch.profiler.profile:
    """Return a profiler that is told of every step and writes one trace.

    Args:
        num_steps: steps in the trace.
        path: the trace, ``.json.gz``; written when the last of the steps is done.
        then: called with the path when it is written.
    """
    activities = [torch.profiler.ProfilerActivity.CPU]
    if torch.cuda.is_available():
        activities.append(torch.profiler.ProfilerActivity.CUDA)

    def write(profiler: torch.profiler.profile) -> None:
        profiler.export_chrome_trace(str(path))
        then(path)

    return torch.profiler.profile(
        activities=activities,
        schedule=torch.profiler.schedule(
            wait=STEPS_BEFORE - 1, warmup=1, active=num_steps, repeat=1
        ),
        on_trace_ready=write,
        profile_memory=True,
        acc_events=True,  # of the one cycle; without it torch 2.11 warns that more would be lost
    )
