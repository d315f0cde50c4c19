"""Shared memory that loader processes decode into and that is used again and again.

A batch is 12 MB (8 pictures of 640x480 with depth). A new piece of shared memory for each costs
more in page faults than the copy that it saves. Here every loader process owns a few slots. It
decodes into a free one and sends its number; the main process looks at the same memory through
tensors, and the slot is free again when the last tensor is gone.
"""

import errno
import shutil
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

SHARED_MEMORY = Path("/dev/shm")
"""Where Linux keeps the shared memory that torch asks for."""


@dataclass(frozen=True)
class BatchSlots:
    """The slots of all loader processes; sent to them by torch's own means.

    Attributes:
        memory: every slot's bytes, shared.
        is_taken: 1 while a slot is filled or looked at. Its process takes a slot, the main
            process alone gives it back, so that no lock is needed.
        num_per_process: slots of one process.
    """

    memory: tuple[Tensor, ...]
    is_taken: UInt8[Tensor, " n"]
    num_per_process: int

    @classmethod
    def make(cls, num_processes: int, num_per_process: int, size_bytes: int) -> "BatchSlots":
        """Allocate slots for some processes.

        Raises:
            OSError: there is less shared memory than that; without this check the first process
                that writes into what is not there dies of a bus error.
        """
        count = num_processes * num_per_process
        if SHARED_MEMORY.is_dir():
            free_bytes = shutil.disk_usage(SHARED_MEMORY).free
            if count * size_bytes > free_bytes:
                raise OSError(
                    errno.ENOSPC,
                    f"{num_processes} loader processes need {count * size_bytes / 1e6:.0f} MB of "
                    f"shared memory, and {free_bytes / 1e6:.0f} MB are free: give the container a "
                    "larger /dev/shm, or use fewer loader processes or smaller batches",
                )
        memory = tuple(_shared(size_bytes) for _ in range(count))
        return cls(memory, _shared(count).zero_(), num_per_process)

    @contextmanager
    def page_locked(self) -> Iterator[None]:
        """Lock the slots' pages meanwhile: copies from them to a GPU overlap with its work.

        Where the driver does not do it, nothing happens: ``pin_memory`` then copies.
        """
        cudart = torch.cuda.cudart()
        # Codes are compared as numbers: each of torch's is true, the one of success too.
        locked = [
            memory
            for memory in self.memory
            if int(cudart.cudaHostRegister(memory.data_ptr(), memory.nbytes, 0)) == 0
        ]
        if len(locked) < len(self.memory):
            # The refusal stays CUDA's last error, which the next kernel takes for its own.
            with suppress(RuntimeError):
                torch.ones(1, device="cuda")
        try:
            yield
        finally:
            torch.cuda.synchronize()  # copies may be on their way
            # What the driver still took for locked would fail copies of what lies there next.
            codes = [int(cudart.cudaHostUnregister(memory.data_ptr())) for memory in locked]
            if any(codes):
                raise RuntimeError(f"CUDA did not unlock the loader's memory: codes {codes}")

    def take(self, process: int) -> int | None:
        """Take a free slot of a process; None if all are in use."""
        first = process * self.num_per_process
        flags = self.is_taken.numpy()
        for slot in range(first, first + self.num_per_process):
            if not flags[slot]:
                flags[slot] = 1
                return slot
        return None

    def lend(self, slot: int) -> UInt8[Tensor, " n"]:
        """Return a filled slot's bytes; it is free again when all tensors on them are gone."""
        view = self.memory[slot].numpy().view()
        weakref.finalize(view, _give_back, self.is_taken.numpy(), slot).atexit = False
        return torch.from_numpy(view)


def _shared(size_bytes: int) -> UInt8[Tensor, " n"]:
    return torch.empty(size_bytes, dtype=torch.uint8).share_memory_()


def _give_back(flags: np.ndarray, slot: int) -> None:
    flags[slot] = 0
