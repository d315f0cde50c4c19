"""How busy and how full the GPU is."""

import torch


def gpu_figures(device: torch.device) -> dict[str, float]:
    """Return the most memory so far in GiB, and the share of the last second that the GPU worked.

    Nothing for the CPU; no utilisation where NVIDIA's library is not there or cannot say, as in
    one part of a divided GPU: a figure is no reason to end a training.
    """
    if device.type != "cuda":
        return {}
    figures = {"gpu_memory_gib": torch.cuda.max_memory_allocated(device) / 2**30}
    try:
        import pynvml
    except ModuleNotFoundError:
        return figures
    try:
        figures["gpu_utilisation"] = torch.cuda.utilization(device) / 100
    except (pynvml.NVMLError, RuntimeError):
        return figures
    return figures
