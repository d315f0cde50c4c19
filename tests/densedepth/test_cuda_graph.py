"""Graphs that cannot be made; those that can are compared in ``test_fast_settings``."""

import gc
import subprocess
import sys

import pytest
import torch

from densedepth import cuda_graph
from densedepth.cuda_graph import replay_as_graph
from densedepth.errors import CudaGraphError
from tests.densedepth.small_training import batch, make_learner


def refusing(error: Exception):
    """Stand for a capture: its warm passes change statistics, then it fails."""

    def passes(network, image, precision):
        network(image)
        raise error

    return passes


IMAGE = batch(1).image.float() / 255


@pytest.mark.parametrize(
    "error",
    [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("CUDA error: out of memory")],
)
def test_without_memory_for_graphs_training_goes_on_as_before(monkeypatch, error):
    monkeypatch.setattr(cuda_graph, "_Passes", refusing(error))
    network = make_learner().network.train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.warns(UserWarning, match=f"goes on without CUDA graphs: {error}"):
        assert replay_as_graph(network, IMAGE, "fp32") is None
    assert "forward" not in vars(network)
    assert all(torch.equal(value, before[n]) for n, value in network.state_dict().items())


def test_a_network_that_cannot_be_captured_ends_training_with_what_to_set(monkeypatch):
    reason = "CUDA error: operation not permitted when stream is capturing"
    monkeypatch.setattr(cuda_graph, "_Passes", refusing(RuntimeError(reason)))
    learner = make_learner()
    learner._until_graph = 0
    with pytest.raises(CudaGraphError, match=f"{reason}. Set speed.cuda_graphs = false"):
        learner.train_step(batch(1))


def fail_to_capture() -> None:
    """Capture what waits for the GPU; raises where that has another end than it should."""
    network = make_learner(device="cuda").network.train()
    network.register_forward_hook(lambda network, inputs, output: output * float(output.mean()))
    stream = torch.cuda.current_stream()
    with pytest.raises(CudaGraphError, match=r"Set speed.cuda_graphs = false"):
        replay_as_graph(network, IMAGE.cuda(), "fp32")
    assert torch.cuda.current_stream() == stream
    assert bool(network(IMAGE.cuda()).isfinite().all())


@pytest.mark.gpu
def test_a_gpu_names_a_network_that_waits_for_it_and_its_own_stream_stays_in_use():
    """In a process of its own: torch's allocator does not recover."""
    script = f"from {__name__} import fail_to_capture; fail_to_capture()"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.gpu
def test_graphs_that_are_undone_give_their_memory_back():
    learner = make_learner(device="cuda", precision="bf16")
    for number in range(6):
        learner.train_step(batch(number, 8))
    learner.optimiser.zero_grad()
    torch.cuda.empty_cache()
    before = torch.cuda.memory_reserved()
    learner._undo_graph()
    gc.collect()
    torch.cuda.empty_cache()
    assert torch.cuda.memory_reserved() < before
    assert bool(learner.train_step(batch(7, 8)).figures.isfinite().all())
