"""What a precision's name stands for."""

import pytest
import torch

from densedepth.precision import set_float32
from tests.densedepth.small_training import batch, make_learner


@pytest.mark.parametrize(
    ("precision", "expected"),
    [
        ("fp32", torch.float32),
        ("tf32", torch.float32),
        ("bf16", torch.bfloat16),
        ("fp16", torch.float16),
    ],
)
def test_the_network_computes_in_the_precision_asked_for_and_its_weights_stay(precision, expected):
    learner, seen = make_learner(precision=precision), []
    layer = next(m for m in learner.network.encoder.modules() if isinstance(m, torch.nn.Conv2d))
    layer.register_forward_hook(lambda layer, given, out: seen.append(out.dtype))
    learner.train_step(batch(1))
    assert seen == [expected]
    assert {p.dtype for p in learner.network.parameters()} == {torch.float32}


def test_only_full_precision_keeps_a_gpus_products_and_convolutions_in_full():
    try:
        for precision in ("tf32", "fp32", "bf16", "fp16"):
            set_float32(precision)
            is_short = precision != "fp32"
            assert torch.backends.cuda.matmul.allow_tf32 == is_short
            assert torch.backends.cudnn.allow_tf32 == is_short
    finally:
        set_float32("fp32")
