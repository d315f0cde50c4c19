"""Settings for speed: precisions, CUDA graphs and compilation do the same steps."""

import functools
import math
import subprocess
import sys

import pytest
import torch
import torch.distributed as dist
from torch import nn

from densedepth.data.batch import Batch
from densedepth.model import DenseDepth
from densedepth.precision import autocast, set_float32
from tests.densedepth.small_training import DEVICES, batch, batches, make_learner, train


def gpu(*values: str) -> object:
    return pytest.param(*values, marks=pytest.mark.gpu)


@pytest.mark.parametrize(
    ("device", "precision"),
    [("cpu", "bf16"), gpu("cuda", "tf32"), gpu("cuda", "bf16"), gpu("cuda", "fp16")],
)
def test_every_precision_learns_as_full_precision_does(device, precision):
    set_float32(precision)
    try:
        told = train(make_learner(precision=precision, device=device), 8)
    finally:
        set_float32("fp32")
    losses = [epoch.train_loss for epoch in told["epochs"]]
    assert not told["skipped"]
    if precision == "fp16":  # the first steps look for the scale, perhaps a whole epoch's
        found = [loss for loss in losses if math.isfinite(loss)]
        assert len(found) >= 6
        assert found[-1] < 0.95 * found[0]
    else:
        expected = train(make_learner(device=device), 8)["epochs"][-1].train_loss
        assert losses[-1] == pytest.approx(expected, rel=0.15)


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("in_ddp", [False, True])
def test_cuda_graphs_do_the_same_steps(in_ddp, precision, monkeypatch, tmp_path):
    """A batch of another size, and validation, run as before; a failed capture would warn."""

    def feed(epoch: int, sample: int) -> list[Batch]:
        return [batch(10 * epoch + 7, 3), *batches(epoch)]

    set_float32(precision)
    learner = make_learner(device="cuda", precision=precision, ema_decay=0.9)
    network = learner.network
    if in_ddp:
        monkeypatch.setenv("NCCL_SOCKET_IFNAME", "lo")
        dist.init_process_group("nccl", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
        learner.forward = nn.parallel.DistributedDataParallel(network, device_ids=[0])
    try:
        losses = [epoch.train_loss for epoch in train(learner, 4, feed)["epochs"]]
        assert losses[-1] < 0.9 * losses[0]
        assert "forward" in vars(network)
        # On the same weights and pictures: what graphs give, and what the layers do one by one.
        image = batch(99).image.cuda().float() / 255
        learner.forward.train()
        results = []
        for call in (learner.forward, functools.partial(DenseDepth.forward, network)):
            network.zero_grad()
            with autocast(precision, learner.device):
                found = call(image)
            found.float().square().mean().backward()
            gradient = torch.cat([p.grad.flatten() for p in network.parameters()])
            results.append((found.detach().clone(), gradient.clone()))
        for graphs, layers in zip(*results, strict=True):
            error = torch.linalg.vector_norm(graphs - layers) / torch.linalg.vector_norm(layers)
            assert error < (1e-3 if precision == "fp32" else 3e-2)
    finally:
        set_float32("fp32")
        if in_ddp:
            dist.destroy_process_group()


def compare_compiled(device: str) -> None:
    """Train with and without compilation; raises where they differ."""
    if device == "cpu":  # traced, but not translated to C++, which takes a minute
        torch.compile = functools.partial(torch.compile, backend="eager")
    set_float32("fp32")
    changes = {"device": device, "micro_batch_size": 1, "ema_decay": 0.9}
    plain, compiled = make_learner(**changes), make_learner(**changes, compiled=True)
    (expected,), (found,) = (train(learner, 1)["epochs"] for learner in (plain, compiled))
    both = f"{found} beside {expected}"
    rel = 1e-3 if device == "cpu" else 1e-2  # a GPU sums in another order
    assert found.train_loss == pytest.approx(expected.train_loss, rel=rel), both
    assert found.metrics["rmse"] == pytest.approx(expected.metrics["rmse"], rel=10 * rel), both


@pytest.mark.parametrize("device", DEVICES)
def test_a_compiled_network_does_the_same_steps(device):
    """In a process of its own: the tests' checks of shapes cannot be compiled."""
    script = f"from {__name__} import compare_compiled; compare_compiled({device!r})"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
