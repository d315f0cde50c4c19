"""A tensor that is copied to the host while the GPU goes on."""

import pytest
import torch

from densedepth.on_its_way import OnItsWay


def test_on_the_cpu_it_is_the_tensor_itself():
    tensor = torch.arange(3)
    assert OnItsWay(tensor).arrived() is tensor


@pytest.mark.gpu
def test_it_has_what_the_tensor_held_then_and_the_gpu_need_not_be_done():
    tensor = torch.full((6,), 1.0, device="cuda")
    side = torch.randn(8192, 8192, device="cuda")
    torch.cuda.synchronize()
    sent = OnItsWay(tensor)
    tensor += 1
    for _ in range(50):
        side = (side @ side).clamp(-1, 1)
    done = torch.cuda.Event()
    done.record()
    assert sent.arrived().tolist() == [1.0] * 6
    assert not done.query(), "the wait was for all that was queued"
    assert sent.arrived().is_pinned()
    assert tensor.tolist() == [2.0] * 6
