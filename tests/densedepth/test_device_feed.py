"""Batches on their way to a device: every depth step arrives as the CPU has it."""

from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import torch

from densedepth.data.batch import PackedBatch
from densedepth.data.batch_slots import BatchSlots
from densedepth.device_feed import ahead_on_device

SIZE_PX = (256, 256)


def packed(number: int) -> PackedBatch:
    """A batch of one map that has every step of 16 bits once, and one picture's noise."""
    steps = torch.arange(2**16, dtype=torch.int32).roll(number).to(torch.uint16)
    noise = torch.Generator().manual_seed(number)
    pixels = torch.randint(0, 256, (1, *SIZE_PX, 3), dtype=torch.uint8, generator=noise)
    return PackedBatch(
        keys=(f"sample{number}",),
        image=pixels.permute(0, 3, 1, 2),
        depth_units=steps.view(1, *SIZE_PX),
        has_holes=True,
        steps_per_m=torch.tensor([1000.0]),
        depth_m=None,
        sample_seeds=torch.tensor([number]),
        target_size_px=SIZE_PX,
    )


def batches(count: int, *, pinned: bool = False) -> Iterator[PackedBatch]:
    for number in range(count):
        yield packed(number).pin_memory() if pinned else packed(number)


def test_for_the_cpu_batches_are_passed_on_as_they_are():
    given = list(batches(3))
    passed = list(ahead_on_device(given, torch.device("cpu")))
    assert all(a is b for a, b in zip(given, passed, strict=True))


def test_every_step_of_16_bits_becomes_its_metres():
    depth_m = packed(0).to(torch.device("cpu")).depth_m
    expected = torch.arange(2**16, dtype=torch.float32) / 1000
    assert torch.equal(depth_m.flatten(), expected)


@pytest.mark.gpu
@pytest.mark.parametrize("pinned", [False, True])
def test_steps_and_pictures_arrive_on_a_gpu_as_the_cpu_has_them(pinned):
    # PyTorch has uint16 for few operations. These three: pinning, copying, making floats.
    device = torch.device("cuda")
    found = list(ahead_on_device(batches(5, pinned=pinned), device))
    assert [batch.keys for batch in found] == [(f"sample{n}",) for n in range(5)]
    for number, batch in enumerate(found):
        expected = packed(number).to(torch.device("cpu"))
        assert batch.image.is_cuda
        assert torch.equal(batch.image.cpu(), expected.image)
        assert torch.equal(batch.valid.cpu(), expected.valid)
        torch.testing.assert_close(batch.depth_m.cpu(), expected.depth_m, rtol=1e-6, atol=0)
        assert batch.sample_seeds.tolist() == [number]


@pytest.mark.gpu
def test_slots_are_page_locked_meanwhile_and_batches_in_them_are_not_copied():
    slots = BatchSlots.make(1, 2, 2**20)
    with slots.page_locked():
        memory = slots.lend(1)
        assert memory.is_pinned()
        assert memory[100:200].pin_memory().data_ptr() == memory.data_ptr() + 100
        memory.fill_(7)
        assert int(memory.to("cuda", non_blocking=True).sum()) == 7 * 2**20
    assert not memory.is_pinned()


@pytest.mark.gpu
def test_memory_that_the_driver_does_not_lock_is_no_error_of_what_comes_next():
    """Locked twice is refused; the next kernel would take CUDA's last error for its own."""
    slots = BatchSlots.make(1, 2, 4096)
    with slots.page_locked(), slots.page_locked():
        assert int(slots.lend(1).fill_(7).pin_memory().to("cuda", non_blocking=True).sum()) == 28672
    assert not slots.lend(0).is_pinned()


class Code:
    """As torch's codes of CUDA's errors are: true, whatever the number."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __int__(self) -> int:
        return self.number


def test_what_was_page_locked_is_unlocked_and_nothing_else(monkeypatch):
    slots = BatchSlots.make(1, 3, 4096)
    first, second, third = (memory.data_ptr() for memory in slots.memory)
    locked, unlocked = [], []

    def lock(address: int, size: int, flags: int) -> Code:
        locked.append((address, size, flags))
        return Code(2 if address == second else 0)

    def unlock(address: int) -> Code:
        unlocked.append(address)
        return Code(0)

    def kernel(*size, device: str) -> None:
        unlocked.append(f"a kernel on {device}")
        raise RuntimeError("CUDA error: out of memory")

    driver = SimpleNamespace(cudaHostRegister=lock, cudaHostUnregister=unlock)
    monkeypatch.setattr(torch.cuda, "cudart", lambda: driver)
    monkeypatch.setattr(torch, "ones", kernel)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: unlocked.append("after copies"))
    with slots.page_locked():
        assert locked == [(address, 4096, 0) for address in (first, second, third)]
        assert unlocked == ["a kernel on cuda"]  # it takes the refusal of the second away
    assert unlocked[1:] == ["after copies", first, third]
    driver.cudaHostUnregister = lambda address: Code(1)
    with (
        pytest.raises(RuntimeError, match=r"did not unlock .* codes \[1, 1\]"),
        slots.page_locked(),
    ):
        pass
