"""The training loop: it learns, is the same twice, goes on where it was, and skips NaN."""

import contextlib
import copy
import dataclasses
import functools
import io
import json
import math
import re
import subprocess
import sys

import pytest
import torch
import torch.distributed as dist
from torch import nn

from densedepth.data.batch import Batch
from densedepth.depth_range import DepthRange
from densedepth.errors import NonFiniteError, OutOfMemoryError
from densedepth.learner import Learner, TrainSettings
from densedepth.losses import DepthLoss
from densedepth.memory import is_out_of_memory
from densedepth.model import DenseDepth
from densedepth.precision import autocast, set_float32
from densedepth.profiling import step_profiler
from densedepth.schedule import Schedule
from densedepth.training import Listeners, fit

RANGE = DepthRange(0.5, 10.0)


def batch(seed: int, size: int = 2) -> Batch:
    """Pictures whose brightness is their depth: something that can be learned at once."""
    generator = torch.Generator().manual_seed(seed)
    near = torch.rand((size, 1, 1, 1), generator=generator)
    ramp = torch.linspace(0, 1, 32).view(1, 1, 32, 1).expand(size, 1, 32, 32)
    depth_m = 1 + 6 * (0.5 * near + 0.5 * ramp)
    shade = ((depth_m - 1) / 6 * 255).to(torch.uint8)
    image = shade.repeat_interleave(2, 2).repeat_interleave(2, 3).expand(size, 3, 64, 64)
    return Batch(
        keys=tuple(f"s{seed}-{i}" for i in range(size)),
        image=image.contiguous(),
        depth_m=depth_m.contiguous(),
        valid=torch.ones_like(depth_m, dtype=torch.bool),
        sample_seeds=torch.arange(size, dtype=torch.int64) + 100 * seed,
    )


DEVICES = [
    "cpu",
    pytest.param(
        "cuda",
        marks=[
            pytest.mark.gpu,
            pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
        ],
    ),
]


def make_learner(
    encoder: str = "mobilenet_v2", schedule: str = "constant", device: str = "cpu", **changes
) -> Learner:
    torch.manual_seed(0)
    network = DenseDepth(encoder, 0.0625).to(device, memory_format=torch.channels_last)
    settings = TrainSettings(
        Schedule(12, schedule, drop_every_steps=4), **{"learning_rate": 1e-3, **changes}
    )
    loss = DepthLoss(RANGE.max_target).to(device)
    return Learner(network, network, loss, RANGE, settings, torch.device(device))


def batches(epoch: int, next_sample: int = 0) -> list[Batch]:
    """Three batches of two samples an epoch, from a sample on."""
    return [batch(10 * epoch + i) for i in range(next_sample // 2, 3)]


class Stopped(Exception):
    """Stands for whatever ends a process."""


def train(learner: Learner, epochs: int, feed=batches, *, save_at=(), stop: bool = False):
    """Train; return what was reported and the states that were saved, the last one the end of it
    if it is to stop there.
    """
    told = {"steps": [], "epochs": [], "skipped": [], "states": []}

    def save() -> None:
        told["states"].append(copy.deepcopy(learner.state()))
        if stop:
            raise Stopped

    with contextlib.suppress(Stopped):
        fit(
            learner,
            epochs=epochs,
            train=feed,
            validation=lambda: [batch(999, 3)],
            listeners=Listeners(
                on_step=told["steps"].append,
                on_epoch=told["epochs"].append,
                on_skip=told["skipped"].append,
                on_save=save,
                is_save_due=lambda step: step in save_at,
            ),
        )
    return told


def test_training_lowers_the_loss_and_reports_every_epoch():
    told = train(make_learner(), 4)
    steps, results = told["steps"], told["epochs"]
    assert [r.epoch for r in results] == [0, 1, 2, 3]
    assert results[-1].step == 12
    assert results[-1].train_loss < 0.8 * results[0].train_loss
    assert {"loss", "loss_l1", "loss_gradient", "loss_ssim", "learning_rate"} <= set(
        steps[0].metrics
    )
    assert {"loss", "delta1", "abs_rel", "rmse"} <= set(results[-1].metrics)


def test_the_reported_loss_is_the_weighted_sum_of_its_terms():
    m = train(make_learner(), 1)["steps"][0].metrics
    assert m["loss"] == pytest.approx(
        0.1 * m["loss_l1"] + m["loss_gradient"] + m["loss_ssim"], rel=1e-4
    )


def weights(learner: Learner) -> list[torch.Tensor]:
    return [value.clone() for value in learner.best_network.state_dict().values()]


def test_an_interrupted_training_ends_with_the_same_bits():
    whole = make_learner(schedule="cosine", ema_decay=0.9, amsgrad=True)
    train(whole, 3)
    first = make_learner(schedule="cosine", ema_decay=0.9, amsgrad=True)
    train(first, 2)
    state = first.state()
    second = make_learner(schedule="cosine", ema_decay=0.9, amsgrad=True)
    second.load_state(state)
    assert [r.epoch for r in train(second, 3)["epochs"]] == [2]
    assert all(torch.equal(a, b) for a, b in zip(weights(whole), weights(second), strict=True))


def test_the_moving_average_is_what_is_kept_and_differs_from_the_network():
    learner = make_learner(ema_decay=0.9)
    train(learner, 1)
    assert learner.best_network is learner.ema
    ours = learner.network.conv3.weight
    assert not torch.equal(ours, learner.best_network.conv3.weight)


def test_frozen_statistics_of_the_encoder_stay_while_all_weights_learn():
    learner = make_learner(freeze_encoder_norm=True)
    before = {name: value.clone() for name, value in learner.network.state_dict().items()}
    train(learner, 1)
    changed = {
        name
        for name, value in learner.network.state_dict().items()
        if not torch.equal(value, before[name])
    }
    statistics = {name for name in before if "running_" in name or "num_batches" in name}
    assert statistics
    assert all(name.startswith("encoder.") for name in statistics)
    assert not changed & statistics
    weights = {name for name, _ in learner.network.named_parameters()}
    assert len(changed & weights) > 0.9 * len(weights)
    free = make_learner()
    train(free, 1)
    assert any(
        not torch.equal(free.network.state_dict()[name], before[name]) for name in statistics
    )


def test_holes_are_left_out_of_a_masked_training():
    holed = batch(1)
    holed.depth_m[:, :, :8] = 0
    holed.valid[:, :, :8] = False
    loss = make_learner(masked=True).train_step(holed).figures[0]
    assert math.isfinite(float(loss))
    spoiled = batch(1)
    spoiled.depth_m[:, :, :8] = 7.7
    spoiled.valid[:, :, :8] = False
    other = make_learner(masked=True).train_step(spoiled).figures[0]
    assert float(other) == pytest.approx(float(loss), rel=1e-5)


def test_gradients_are_clipped_where_asked():
    free, clipped = make_learner(), make_learner(clip_gradient_norm=1e-9)
    before = [p.detach().clone() for p in clipped.network.parameters()]
    free.train_step(batch(1))
    clipped.train_step(batch(1))
    norm = math.sqrt(sum(float(p.grad.square().sum()) for p in clipped.network.parameters()))
    assert norm == pytest.approx(1e-9, rel=1e-2)
    assert before


def test_the_encoder_may_have_a_rate_of_its_own():
    learner = make_learner(encoder_rate_factor=0.1, learning_rate=1e-2)
    learner.train_step(batch(1))
    assert [g["lr"] for g in learner.optimiser.param_groups] == pytest.approx([1e-3, 1e-2])


PAPER = {}
AVERAGE = {"schedule": "cosine", "ema_decay": 0.9, "amsgrad": True}
BF16 = {"schedule": "one_cycle", "precision": "bf16", "clip_gradient_norm": 1.0}
FP16 = {"schedule": "step", "precision": "fp16", "micro_batch_size": 1}


@pytest.mark.parametrize(
    ("changes", "stopped_at"),
    [(PAPER, 1), (PAPER, 3), (PAPER, 5), (AVERAGE, 2), (AVERAGE, 4), (BF16, 2), (FP16, 2)],
)
def test_a_training_stopped_after_any_step_ends_with_the_same_bits(changes, stopped_at):
    whole, first, second = (make_learner(**changes) for _ in range(3))
    undisturbed = train(whole, 2)
    (state,) = train(first, 2, save_at={stopped_at}, stop=True)["states"]
    second.load_state(state)
    resumed = train(second, 2)
    assert all(torch.equal(a, b) for a, b in zip(weights(whole), weights(second), strict=True))
    assert [r.train_loss for r in resumed["epochs"]] == [
        r.train_loss for r in undisturbed["epochs"][-len(resumed["epochs"]) :]
    ]
    assert resumed["epochs"][-1].metrics == undisturbed["epochs"][-1].metrics


def test_saving_changes_neither_the_weights_nor_the_records():
    quiet, saving = make_learner(), make_learner()
    expected = train(quiet, 2)
    told = train(saving, 2, save_at={1, 2, 4, 6})
    assert len(told["states"]) == 4
    assert all(torch.equal(a, b) for a, b in zip(weights(quiet), weights(saving), strict=True))
    assert [s.metrics["loss"] for s in told["steps"]] == [
        s.metrics["loss"] for s in expected["steps"]
    ]


def test_random_layers_draw_the_same_after_a_restart():
    """EfficientNet drops layers at random."""
    whole, first, second = (make_learner("efficientnet_b0") for _ in range(3))
    train(whole, 1)
    torch.manual_seed(12345)
    (state,) = train(first, 1, save_at={2}, stop=True)["states"]
    second.load_state(state)
    torch.manual_seed(54321)
    train(second, 1)
    assert all(torch.equal(a, b) for a, b in zip(weights(whole), weights(second), strict=True))


def test_micro_batches_sum_to_the_gradient_of_the_whole_batch():
    """Batch norms apart, which see a micro-batch at a time: here they keep their statistics."""
    learners = [make_learner(freeze_encoder_norm=True, micro_batch_size=n) for n in (None, 2)]
    whole, parts = (learner.train_step(batch(1, 5)).figures for learner in learners)
    torch.testing.assert_close(parts, whole, rtol=1e-4, atol=1e-5)
    pairs = zip(*(learner.network.parameters() for learner in learners), strict=True)
    for a, b in pairs:
        torch.testing.assert_close(b.grad, a.grad, rtol=1e-3, atol=1e-4)


def spoilt(number: int, bad_sample: int = 1) -> Batch:
    """A batch with a white picture, of which ``afraid_of_white`` networks have no estimate."""
    spoiled = batch(number)
    spoiled.image[bad_sample] = 255
    return spoiled


def afraid_of_white(**changes) -> Learner:
    learner = make_learner(**changes)

    def no_number(network, inputs, output):
        is_white = (inputs[0] > 0.999).flatten(1).all(1)
        return torch.where(is_white[:, None, None, None], torch.nan, output)

    learner.network.register_forward_hook(no_number)
    return learner


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_step_without_a_number_changes_nothing_and_names_the_sample(precision, device):
    learner = afraid_of_white(precision=precision, device=device, ema_decay=0.9, amsgrad=True)
    train(learner, 1)
    before = {name: value.clone() for name, value in learner.network.state_dict().items()}
    moments = copy.deepcopy(learner.optimiser.state_dict()["state"])
    told = train(learner, 2, lambda epoch, sample: [spoilt(7)])
    (skipped,) = told["skipped"]
    assert (skipped.epoch, skipped.step, skipped.keys) == (1, 3, ("s7-1",))
    assert math.isnan(skipped.loss)
    assert (learner.num_skipped, learner.step) == (1, 4)
    for name, value in learner.network.state_dict().items():
        if "num_batches" not in name:
            assert torch.equal(value, before[name]), name
    for number, state in learner.optimiser.state_dict()["state"].items():
        assert all(torch.equal(value, moments[number][name]) for name, value in state.items())


def test_training_goes_on_after_a_skipped_step_and_counts_it():
    learner = afraid_of_white()
    told = train(learner, 2, lambda epoch, sample: [batch(1), spoilt(2), batch(3)])
    assert [s.step for s in told["skipped"]] == [1, 4]
    assert all(math.isfinite(r.train_loss) for r in told["epochs"])
    assert told["steps"][-1].metrics["skipped_steps"] == 2
    assert math.isfinite(told["steps"][-1].metrics["loss"])


def test_too_many_skipped_steps_end_the_training_with_the_samples_names():
    learner = afraid_of_white(max_skipped_steps=1)
    with pytest.raises(NonFiniteError, match=r"2 steps .* on s3-1; max_skipped_steps = 1"):
        train(learner, 1, lambda epoch, sample: [spoilt(2), spoilt(3)])


def test_an_estimate_that_overflows_spoils_no_statistics():
    learner = make_learner()
    learner.train_step(batch(1))
    before = [b.clone() for n, b in learner.network.named_buffers() if "running" in n]
    with torch.no_grad():
        next(learner.network.parameters()).mul_(math.inf)
    result = learner.train_step(batch(2))
    assert result.figures[-1] == 1
    after = [b for n, b in learner.network.named_buffers() if "running" in n]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_out_of_memory_in_the_first_update_is_told_too(monkeypatch, precision):
    """Adam's moments come with the first step; half of them may have been made."""
    learner = make_learner(precision=precision)
    update, sizes = learner._update, []

    def full():
        sizes.append(float(sum(p.grad.square().sum() for p in learner.network.parameters())))
        if len(sizes) < 3:
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
    "words", ["DefaultCPUAllocator: can't allocate memory", "cuDNN: CUDNN_STATUS_ALLOC_FAILED"]
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


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_full_gpu_says_what_would_fit_and_that_fits():
    def large(number: int) -> Batch:
        one = batch(number, 8)
        return dataclasses.replace(
            one,
            image=one.image.repeat(1, 1, 8, 8),
            depth_m=one.depth_m.repeat(1, 1, 8, 8),
            valid=one.valid.repeat(1, 1, 8, 8),
        )

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


def gpu(*values: str) -> object:
    return pytest.param(*values, marks=DEVICES[1].marks)


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


@pytest.mark.parametrize("device", DEVICES)
def test_the_state_goes_on_where_it_was_and_on_another_device(device):
    """Bits are promised on the CPU only: a GPU sums in any order."""
    precision = "fp16" if device == "cuda" else "bf16"  # fp16 on the CPU is slow, and tested above
    changes = {**AVERAGE, "precision": precision, "device": device}
    first, second = make_learner(**changes), make_learner(**changes)
    (state,) = train(first, 2, save_at={4}, stop=True)["states"]
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    second.load_state(torch.load(file, map_location=device, weights_only=True))
    told = train(second, 2)
    whole = train(make_learner(**changes), 2)
    assert told["epochs"][-1].train_loss == pytest.approx(whole["epochs"][-1].train_loss, rel=1e-2)
    file.seek(0)
    on_cpu = make_learner(**{**changes, "device": "cpu"})
    on_cpu.load_state(torch.load(file, map_location="cpu", weights_only=True))
    for name, value in first.state()["network"].items():
        assert torch.equal(value.cpu(), on_cpu.network.state_dict()[name]), name


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
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


def test_a_snapshot_stays_as_it_was_while_training_goes_on():
    learner = make_learner(ema_decay=0.9)
    train(learner, 1)
    expected, snapshot = copy.deepcopy(learner.state()), learner.snapshot()
    train(learner, 2)
    assert not torch.equal(snapshot["network"]["conv3.bias"], learner.network.conv3.bias)
    assert snapshot["progress"] == expected["progress"]
    for part in ("network", "ema"):
        assert all(torch.equal(snapshot[part][n], value) for n, value in expected[part].items())
    for number, moments in expected["optimiser"]["state"].items():
        found = snapshot["optimiser"]["state"][number]
        assert all(torch.equal(found[name], value) for name, value in moments.items())


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


def test_a_trace_of_a_training_that_is_too_short_has_the_steps_there_were(tmp_path):
    written = []
    profiler = step_profiler(50, tmp_path / "trace.json", written.append)
    profiler.start()
    learner = make_learner()
    fit(
        learner,
        epochs=2,
        train=batches,
        validation=list,
        listeners=Listeners(on_step=lambda record: None, on_epoch=lambda result: None),
        profiler=profiler,
    )
    assert written == [tmp_path / "trace.json"]
    names = {event.get("name") for event in json.loads(written[0].read_text())["traceEvents"]}
    assert "ProfilerStep#3" in names
    assert "aten::conv2d" in names
