"""When memory is out: how many images would have fitted."""

from collections.abc import Callable

import torch

from densedepth.errors import OutOfMemoryError

_WORDS = (
    "can't allocate memory",
    "out of memory",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUBLAS_STATUS_ALLOC_FAILED",
)
"""What errors say that are no ``OutOfMemoryError``: of the CPU, of the driver, of libraries."""


def is_out_of_memory(error: BaseException) -> bool:
    """Say whether torch could not have memory, on a GPU or on the CPU."""
    if isinstance(error, torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(word in str(error) for word in _WORDS)


def out_of_memory(
    try_images: Callable[[int], object],
    num_images: int,
    size_px: tuple[int, int],
    device: torch.device,
) -> OutOfMemoryError:
    """Return the error that says what would fit, by trying half as many until it does.

    Args:
        try_images: trains on that many images, without another rank.
        num_images: as many did not fit.
        size_px: height and width of an image.
        device: where.
    """
    fits = num_images // 2
    while fits:
        if device.type == "cuda":
            torch.cuda.empty_cache()
        try:
            try_images(fits)
            break
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
        fits //= 2
    where = str(device)
    if device.type == "cuda":
        where += f" ({torch.cuda.get_device_properties(device).total_memory / 2**30:.0f} GiB)"
    images = f"{num_images} images of {size_px[0]}x{size_px[1]}"
    if not fits:
        return OutOfMemoryError(
            f"training on {images} at a time does not fit into the memory of {where}, and not even "
            "one does: lower input_size_px or decoder_width, or choose a smaller encoder"
        )
    return OutOfMemoryError(
        f"training on {images} at a time does not fit into the memory of {where}; {fits} would: "
        f"set speed.micro_batch_size = {fits}, and the step still sums the whole batch's gradient"
    )
