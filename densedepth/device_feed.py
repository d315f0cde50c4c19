"""Copies batches to the GPU while it works on the ones before."""

from collections.abc import Iterable, Iterator

import torch

from densedepth.data.batch import Batch, PackedBatch


def ahead_on_device(
    batches: Iterable[Batch | PackedBatch], device: torch.device
) -> Iterator[Batch | PackedBatch]:
    """Yield batches that are on the device, or on their way: one more is copied meanwhile.

    Args:
        batches: in pinned memory, else the copies do not overlap.
        device: a GPU; for the CPU the batches are passed on as they are.
    """
    if device.type != "cuda":
        yield from batches
        return
    stream = torch.cuda.Stream(device)
    ahead: tuple[Batch, torch.cuda.Event, Batch | PackedBatch] | None = None
    for packed in batches:
        with torch.cuda.stream(stream):
            moved = packed.to(device)
            event = stream.record_event()
        if ahead is not None:
            yield _ready(*ahead[:2])
            ahead[1].synchronize()  # a loader process may write anew where this one was
        ahead = moved, event, packed
    if ahead is not None:
        yield _ready(*ahead[:2])


def _ready(batch: Batch, event: torch.cuda.Event) -> Batch:
    """Let the stream in use wait for the copy, and keep the copy's memory until it is used."""
    stream = torch.cuda.current_stream(batch.image.device)
    stream.wait_event(event)
    for tensor in (batch.image, batch.depth_m, batch.valid, batch.sample_seeds):
        tensor.record_stream(stream)
    return batch
