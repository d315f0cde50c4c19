"""A batch that does not fit: one error that says which would."""

import dataclasses
import gc
import math
import re

import pytest
import torch
import torch.distributed as dist
from torch import nn

from densedepth.data.batch import Batch
from densedepth.errors import OutOfMemoryError
from densedepth.memory import is_out_of_memory, out_of_memory
from tests.densedepth.small_training import batch, make_learner


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_out_of_memory_in_the_first_update_is_told_too(monkeypatch, precision):
    """Adam's moments come with the first step; half of them may have been made."""
    learner = make_learner(precision=precision)
    update, sizes = learner._update, []

    def full():
        sizes.append(float(sum(p.grad.square().sum() for p in learner.network.parameters())))
        if len(sizes) < 3:
            learner.optimiser.state[next(learner.network.parameters())] = {"step": torch.zeros(())}
            raise torch.OutOfMemoryError("no room for moments")
        return update()

    monkeypatch.setattr(learner, "_update", full)
    with pytest.raises(OutOfMemoryError, match=r"4 images of 64x64 .* 1 would: set speed"):
        learner.train_step(batch(1, 4))
    assert [size != 0 for size in sizes] == [True] * 3  # gradients beside DDP's hooks


def test_out_of_memory_in_the_middle_of_ddps_gradient_is_told_too(monkeypatch, tmp_path):
    """DDP has seen a part of the gradients, and would not see them twice."""
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
    try:
        learner = make_learner()
        learner.forward = nn.parallel.DistributedDataParallel(learner.network)

        def fill(encoder, inputs, maps):
            def full(gradient):
                if len(gradient) > 2:
                    raise torch.OutOfMemoryError(f"no room for {len(gradient)}")

            maps[-1].register_hook(full)

        learner.network.encoder.register_forward_hook(fill)
        with pytest.raises(OutOfMemoryError, match=r"4 images of 64x64 .* 2 would: set speed"):
            learner.train_step(batch(1, 4))
    finally:
        dist.destroy_process_group()


@pytest.mark.parametrize(
    "words",
    [
        "DefaultCPUAllocator: can't allocate memory",
        "cuDNN: CUDNN_STATUS_ALLOC_FAILED",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "CUDA error: out of memory",  # of a graph that is made
        "ncclUnhandledCudaError: Cuda failure 2 'out of memory'",
    ],
)
def test_full_memory_is_known_by_its_words_too(words):
    assert is_out_of_memory(RuntimeError(words))
    assert not is_out_of_memory(RuntimeError("an illegal memory access was encountered"))


@pytest.mark.parametrize(
    ("num_images", "message"),
    [(2, r"8 images of 64x64 .* 2 would: set speed.micro_batch_size = 2"), (0, "not even one")],
)
def test_out_of_memory_says_what_would_fit(num_images, message):
    learner = make_learner()
    inner = learner.network.forward

    def forward(image: torch.Tensor) -> torch.Tensor:
        if len(image) > num_images:
            raise torch.OutOfMemoryError(f"no room for {len(image)}")
        return inner(image)

    learner.network.forward = forward
    with pytest.raises(OutOfMemoryError, match=message):
        learner.train_step(batch(1, 8))


def test_what_would_fit_is_tried_without_the_graphs_memory(monkeypatch):
    """Graphs keep a whole step's memory, and a training in micro-batches has none."""
    learner = make_learner()
    eager, full = learner.network.forward, [6]

    def fill(network, image, precision):
        """Stand for graphs that take six images' memory of eight's, for which no loss is left."""
        network.forward = forward
        full[0] = 6

        def undo():
            full[0] = 0
            network.forward = eager

        return undo

    def forward(image: torch.Tensor) -> torch.Tensor:
        if len(image) + full[0] > 8:
            raise torch.OutOfMemoryError(f"no room for {len(image)} beside {full[0]}")
        return eager(image)

    monkeypatch.setattr("densedepth.learner.replay_as_graph", fill)
    learner._until_graph = 0
    with pytest.raises(OutOfMemoryError, match=r"8 images of 64x64 .* 4 would: set speed"):
        learner.train_step(batch(1, 8))
    assert full == [0]
    assert math.isfinite(float(learner.train_step(batch(1, 4)).figures[0]))


def test_the_size_told_is_the_micro_batchs_and_height_by_width():
    learner = make_learner(micro_batch_size=4)

    def forward(image: torch.Tensor) -> torch.Tensor:
        raise torch.OutOfMemoryError("no room")

    learner.network.forward = forward
    wide = batch(1, 8)
    wide = dataclasses.replace(wide, image=wide.image.repeat(1, 1, 1, 2))
    with pytest.raises(OutOfMemoryError, match=r"4 images of 64x128 at a time .* not even one"):
        learner.train_step(wide)


def test_another_error_while_sizes_are_tried_comes_out_itself():
    tried = []

    def fails(count: int) -> None:
        tried.append(count)
        raise RuntimeError("an illegal memory access")

    with pytest.raises(RuntimeError, match="illegal memory access"):
        out_of_memory(fails, 8, (64, 64), torch.device("cpu"))
    assert tried == [4]


@pytest.mark.gpu
def test_a_full_gpu_says_what_would_fit_and_that_fits():
    def large(number: int) -> Batch:
        one = batch(number, 8)
        return dataclasses.replace(
            one,
            image=one.image.repeat(1, 1, 8, 8),
            depth_m=one.depth_m.repeat(1, 1, 8, 8),
            valid=one.valid.repeat(1, 1, 8, 8),
        )

    gc.collect()  # what other tests left would count as needed
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    make_learner(device="cuda", precision="bf16").train_step(large(1))
    needed = torch.cuda.max_memory_allocated() / torch.cuda.get_device_properties(0).total_memory
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(0.6 * needed)
    try:
        with pytest.raises(
            OutOfMemoryError, match=r"8 images of 512x512 .* GiB\); [124] would"
        ) as e:
            make_learner(device="cuda", precision="bf16").train_step(large(1))
        fits = int(re.search(r"micro_batch_size = (\d)", str(e.value))[1])
        learner = make_learner(device="cuda", precision="bf16", micro_batch_size=fits)
        assert math.isfinite(float(learner.train_step(large(1)).figures[0]))
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
