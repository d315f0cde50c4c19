"""Within a training step the host waits for nothing on the GPU, which then never stands still."""

import dataclasses

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from densedepth.distortion import Distortion
from densedepth.learner import Learner
from densedepth.losses import DepthLoss
from densedepth.model import DenseDepth
from densedepth.schedule import Schedule
from densedepth.train_settings import TrainSettings
from densedepth.training import Listeners, fit
from tests.densedepth.small_training import RANGE, batch, make_learner
from tests.densedepth.test_device_feed import packed

ALL = {
    "distortion": Distortion(1.3, 3.0, 0.2),
    "clip_gradient_norm": 1.0,
    "ema_decay": 0.9,
    "masked": True,
}


class Crossings(TorchDispatchMode):
    """Notes operations on tensors of the host and of the GPU: each is a copy, and waits."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        leaves = tree_leaves((args, kwargs, result))
        tensors = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor) and leaf.dim()]
        if len({tensor.device.type for tensor in tensors}) > 1:
            self.found.append(f"{func} {kwargs}")
        return result


@pytest.mark.filterwarnings("ignore:CUDA is not available", "ignore:Accessing the data pointer")
def test_a_step_copies_nothing_to_the_gpu_or_from_it(monkeypatch):
    """On tensors without content, on a GPU that need not be there; reading one would fail."""

    def backward(total: torch.Tensor) -> None:  # there is no thread for such a GPU
        for parameter in network.parameters():
            parameter.grad = torch.empty_like(parameter)

    monkeypatch.setattr(torch.Tensor, "backward", backward)
    device = torch.device("cuda")
    with FakeTensorMode():
        with device:
            network, average = (DenseDepth("mobilenet_v2", 0.0625) for _ in range(2))
        loss = DepthLoss(RANGE.max_target)
        loss._window = loss._window.to(device)
        settings = TrainSettings(Schedule(12), cuda_graphs=False, **{**ALL, "ema_decay": None})
        learner = Learner(network, network, loss, RANGE, settings, device)
        learner.ema, learner.settings = average, dataclasses.replace(settings, ema_decay=0.9)
        with Crossings() as copies:
            ready = batch(1).to(device)
        assert len(copies.found) == 4
        assert all("'non_blocking': True" in copy for copy in copies.found)
        for _ in range(2):  # the first one makes Adam's moments
            with Crossings() as crossings:
                result = learner.train_step(ready)
            assert crossings.found == []
    assert result.figures.is_cuda


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore:Synchronization debug mode")
@pytest.mark.parametrize("changes", [{}, ALL])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_torch_sees_no_wait_for_the_gpu_between_steps_either(precision, changes):
    """Steps by CUDA graphs, batches from page-locked memory, figures every tenth step."""

    def feed(epoch: int, next_sample: int):
        for number in range(24):
            if number == 8:  # graphs are captured, libraries have what they need
                torch.cuda.set_sync_debug_mode("error")
            yield dataclasses.replace(packed(number), target_size_px=(128, 128)).pin_memory()
        torch.cuda.set_sync_debug_mode("default")

    learner, told = make_learner(device="cuda", precision=precision, **changes), []
    try:
        fit(
            learner,
            epochs=1,
            train=feed,
            listeners=Listeners(on_step=told.append, on_epoch=lambda result: None),
        )
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert [record.step for record in told] == [10, 20, 24]
    assert "forward" in vars(learner.network)
