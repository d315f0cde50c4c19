"""A network's forward and backward pass as CUDA graphs: launched as two, not kernel by kernel.

DenseNet-169 and its decoder are thousands of short kernels; the host launches them slower than a
large GPU does them.
"""

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from densedepth.errors import CudaGraphError
from densedepth.memory import is_out_of_memory
from densedepth.precision import Precision, autocast

EAGER_STEPS = 3
"""Steps done kernel by kernel before: libraries choose their algorithms, memory is found to do."""
_WARM_PASSES = 3  # on the side, before capturing, as torch asks for
# What other threads do meanwhile, such as NCCL's, does not end the capture.
_MODE = "thread_local"


def replay_as_graph(
    network: nn.Module, image: Tensor, precision: Precision
) -> Callable[[], None] | None:
    """Let the network train by CUDA graphs from now on; leave weights and statistics as they are.

    Calls in training mode on images of this shape replay the graphs, all others run as before.
    DDP around the network still gets each gradient; all come at the backward pass's end. The
    gradients' memory is used anew in each step, so that a step must be one backward pass.

    Args:
        network: on a GPU, in training mode.
        image: what it is trained on; (b, 3, h, w) in [0, 1].
        precision: what its calls are made in.

    Returns:
        What undoes it and gives the graphs' memory back; None where there is no memory for graphs:
        a warning says so, and nothing has changed.

    Raises:
        CudaGraphError: the passes cannot be captured.
    """
    eager = network.forward
    before = [buffer.clone() for buffer in network.buffers()]
    torch.cuda.empty_cache()  # the graphs keep memory of their own
    try:
        passes = _Passes(network, image, precision)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            # Torch's allocator takes such a capture for one that goes on: it keeps each batch's
            # memory for good, and fails an assertion when there is none left.
            raise CudaGraphError(
                f"the network's passes cannot be captured as CUDA graphs: {error}. Set "
                "speed.cuda_graphs = false: training is then slower, and otherwise the same"
            ) from error
        warnings.warn(f"training goes on without CUDA graphs: {error}", stacklevel=2)
        return None
    finally:
        with torch.no_grad():
            for buffer, value in zip(network.buffers(), before, strict=True):
                buffer.copy_(value)
    shape = image.shape

    def forward(image: Tensor) -> Tensor:
        if image.shape != shape or not network.training or not torch.is_grad_enabled():
            return eager(image)
        found: Tensor = _Replay.apply(passes, image, *passes.parameters)
        return found

    def undo() -> None:
        network.forward = eager

    network.forward = forward
    return undo


class _Passes:
    """Both passes, captured, and the memory that they read and write.

    Attributes:
        parameters: what the network learns.
        image: what the forward pass reads.
        found: what it writes.
        gradient: of ``found``, which the backward pass reads.
        gradients: of the parameters, which it writes; None = has none.
    """

    def __init__(self, network: nn.Module, image: Tensor, precision: Precision) -> None:
        named = {name: p for name, p in network.named_parameters() if p.requires_grad}
        self.parameters = list(named.values())
        # The same memory under other names: what DDP hangs on the parameters is left alone.
        leaves = {name: p.detach().requires_grad_() for name, p in named.items()}
        self.image = image.detach().clone()

        def forward() -> Tensor:
            with autocast(precision, image.device, is_cached=False):
                found: Tensor = torch.func.functional_call(network, leaves, (self.image,))
                return found

        def backward(found: Tensor) -> tuple[Tensor | None, ...]:
            return torch.autograd.grad(
                found, list(leaves.values()), self.gradient, allow_unused=True
            )

        stream = torch.cuda.Stream(image.device)
        stream.wait_stream(torch.cuda.current_stream(image.device))
        with torch.cuda.stream(stream):
            for _ in range(_WARM_PASSES):
                found = forward()
                self.gradient = torch.zeros_like(found)
                backward(found)
                del found
        torch.cuda.current_stream(image.device).wait_stream(stream)
        pool = torch.cuda.graph_pool_handle()
        self.forward_graph, self.backward_graph = torch.cuda.CUDAGraph(), torch.cuda.CUDAGraph()
        # Where a capture fails, torch leaves its own stream in use: this takes it back.
        with torch.cuda.stream(torch.cuda.current_stream(image.device)):
            with torch.cuda.graph(self.forward_graph, pool=pool, capture_error_mode=_MODE):
                found = forward()
            with torch.cuda.graph(self.backward_graph, pool=pool, capture_error_mode=_MODE):
                self.gradients = backward(found)
        self.found = found.detach()


class _Replay(torch.autograd.Function):
    """Lets autograd see the captured passes as one operation on the network's parameters."""

    @staticmethod
    def forward(ctx: Any, passes: _Passes, image: Tensor, *parameters: Tensor) -> Tensor:
        ctx.passes = passes
        passes.image.copy_(image)
        passes.forward_graph.replay()
        return passes.found.detach()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        passes: _Passes = ctx.passes
        passes.gradient.copy_(gradient)
        passes.backward_graph.replay()
        return (None, None, *(g if g is None else g.detach() for g in passes.gradients))
