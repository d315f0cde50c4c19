"""The precision that training computes in, and where a result must not be rounded."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import torch


def without_autocast(device: torch.device) -> AbstractContextManager[Any]:
    """Switch autocast off; does nothing on ``meta``, which has none."""
    if device.type == "meta":  # torch.compile cannot look into torch.amp.is_autocast_available
        return nullcontext()
    return torch.autocast(device_type=device.type, enabled=False)


Precision = Literal["fp32", "tf32", "bf16", "fp16"]

_HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}


def autocast(
    precision: Precision, device: torch.device, *, is_cached: bool = True
) -> AbstractContextManager[Any]:
    """Compute in half precision where it is asked for; ``fp32`` and ``tf32`` do nothing here.

    Args:
        precision: what to compute in.
        device: where.
        is_cached: whether a weight that is used twice is rounded once; not in a CUDA graph.
    """
    if precision in _HALF:
        return torch.autocast(
            device_type=device.type, dtype=_HALF[precision], cache_enabled=is_cached
        )
    return nullcontext()


def set_float32(precision: Precision) -> None:
    """Set how this process multiplies float32 on a GPU: ``fp32`` in full, others in TF32.

    Torch's own default is mixed: convolutions in TF32, matrix products in full.
    """
    in_full = precision == "fp32"
    torch.backends.cuda.matmul.allow_tf32 = not in_full
    torch.backends.cudnn.allow_tf32 = not in_full
