"""What training changes, and one step of it; no loop, no orchestrator."""

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from jaxtyping import Bool, Float
from torch import Tensor, nn

from densedepth.augment import augment_batch, sample_seed
from densedepth.cuda_graph import EAGER_STEPS, replay_as_graph
from densedepth.data.batch import Batch, PackedBatch
from densedepth.depth_range import DepthRange
from densedepth.epoch_progress import EpochProgress
from densedepth.losses import DepthLoss
from densedepth.memory import is_out_of_memory, out_of_memory
from densedepth.model import DenseDepth
from densedepth.moving_average import move_average
from densedepth.norm_statistics import NormStatistics
from densedepth.precision import autocast
from densedepth.train_settings import TrainSettings

FIGURES = ("loss", "loss_l1", "loss_gradient", "loss_ssim", "gradient_norm", "is_skipped")
"""What a step tells, in this order; ``gradient_norm`` is before clipping."""


class StepResult(NamedTuple):
    """What a step tells, still on the device: fetching it waits for the device.

    Attributes:
        figures: ``FIGURES``.
        is_offending: which of this rank's samples have an estimate that is no number.
    """

    figures: Float[Tensor, "6"]
    is_offending: Bool[Tensor, " b"]


@dataclass
class Learner:
    """Everything that training changes.

    Attributes:
        network: the bare network, whose weights are saved.
        forward: what is called: the network, or its DDP wrapping.
        settings: the loop's settings.
        step: steps done, skipped ones too.
        epoch: epochs done.
        num_skipped: steps whose loss or gradient was no number.
        progress: of the epoch that is running.
    """

    network: DenseDepth
    forward: nn.Module
    loss: DepthLoss
    depth_range: DepthRange
    settings: TrainSettings
    device: torch.device
    step: int = 0
    epoch: int = 0
    num_skipped: int = 0
    progress: EpochProgress = field(default_factory=EpochProgress)
    ema: DenseDepth | None = None
    optimiser: torch.optim.Optimizer = field(init=False)

    def __post_init__(self) -> None:
        s = self.settings
        # In the network's order: the optimiser's state is saved by position.
        parts: dict[bool, list[nn.Parameter]] = {True: [], False: []}
        for name, parameter in self.network.named_parameters():
            parts[name.startswith("encoder.")].append(parameter)
        groups = [
            {"params": parts[True], "factor": s.encoder_rate_factor},
            {"params": parts[False], "factor": 1.0},
        ]
        # AdamW with no decay is Adam.
        self.optimiser = torch.optim.AdamW(
            groups,
            lr=s.learning_rate,
            betas=s.betas,
            amsgrad=s.amsgrad,
            weight_decay=s.weight_decay,
            fused=True,
        )
        self._scaler = torch.amp.GradScaler(self.device.type, enabled=s.precision == "fp16")
        self._statistics = NormStatistics(self.network)
        if s.ema_decay is not None:
            self.ema = deepcopy(self.network).requires_grad_(False).eval()
        if s.compiled:  # the method alone: names in a saved state stay, and DDP is around it
            self.network.forward = torch.compile(self.network.forward)  # type: ignore[method-assign]
        by_graph = s.cuda_graphs and not s.compiled and self.device.type == "cuda"
        self._until_graph = EAGER_STEPS if by_graph else -1
        self._undo_graph: Callable[[], None] | None = None

    @property
    def best_network(self) -> DenseDepth:
        """The network to validate and keep: the moving average where there is one."""
        return self.ema if self.ema is not None else self.network

    def train_step(self, packed: Batch | PackedBatch) -> StepResult:
        """Do one optimiser step, or skip it where the gradient is no number.

        A skipped step leaves weights, moments and statistics as they were, on every rank.

        Raises:
            OutOfMemoryError: the batch does not fit.
            CudaGraphError: the network's passes cannot be captured.
        """
        s = self.settings
        for group in self.optimiser.param_groups:
            group["lr"] = s.learning_rate * s.schedule.factor(self.step) * group["factor"]
        rank = dist.get_rank() if dist.is_initialized() else 0
        # Nothing to save for a restart: what is drawn follows from the step.
        torch.manual_seed(sample_seed(s.seed, self.step, rank))
        failure = None
        try:
            batch = packed.to(self.device)
            self._statistics.note()
            losses, is_offending = self._backward(batch)
            norm, is_skipped = self._update()  # the first one makes Adam's moments
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            failure = error
        if failure is not None:
            failure.__traceback__ = None  # which holds the tensors that fill the memory
            raise self._explain(packed) from failure
        self._statistics.put_back(is_skipped)
        self.step += 1
        if self.ema is not None and s.ema_decay is not None:
            move_average(self.ema, self.network, s.ema_decay, self.step, is_skipped)
        return StepResult(
            torch.cat([losses, torch.stack([norm, is_skipped.float()])]), is_offending
        )

    def counts_as_skipped(self, loss: float) -> bool:
        """Say whether a skipped step is a fault; fp16 also skips to find its scale."""
        return (
            not self._scaler.is_enabled() or not math.isfinite(loss) or self._scaler.get_scale() < 1
        )

    def _backward(
        self, batch: Batch, only: int | None = None
    ) -> tuple[Float[Tensor, "4"], Bool[Tensor, " b"]]:
        """Sum the gradient over micro-batches; ranks meet in the last one.

        Args:
            batch: this rank's part of the global batch.
            only: train on that many images and on the bare network, to see whether they fit.
        """
        s = self.settings
        image, depth_m, valid = augment_batch(
            batch.image,
            batch.depth_m,
            batch.valid,
            sample_seeds=batch.sample_seeds,
            flip_probability=s.flip_probability,
            channel_swap_probability=s.channel_swap_probability,
        )
        assert valid is not None
        colours = image.float() / 255
        if not s.distortion.is_identity:
            colours, depth_m, valid = s.distortion.apply(
                colours, depth_m, valid, batch.sample_seeds
            )
        layout = torch.channels_last if s.channels_last else torch.contiguous_format
        target = self.depth_range.to_target(depth_m)
        mask = valid if s.masked else None
        size = only or len(batch.keys)
        micro = only or s.micro_batch_size or size
        call = self.network if only else self.forward
        self._to_training_mode()
        self.optimiser.zero_grad(set_to_none=True)
        # DDP takes the mean over ranks; where their parts differ, each sample still counts alike.
        world_size = dist.get_world_size() if dist.is_initialized() else 1
        mean_size = (s.global_batch_size or size * world_size) / world_size
        losses = torch.zeros(4, device=self.device)
        is_offending = []
        for first in range(0, size, micro):
            part = slice(first, min(first + micro, size))
            share = (part.stop - first) / mean_size
            colour = colours[part].contiguous(memory_format=layout)
            if micro >= size and not only:
                self._count_down_to_graph(colour)
            with self._together(part.stop == size or bool(only)):
                with autocast(s.precision, self.device):
                    predicted = call(colour).float()
                terms = self.loss(predicted, target[part], mask[part] if mask is not None else None)
                # No number in the loss makes none in the gradient: every rank learns of it.
                total = terms.total * torch.where(terms.total.isfinite(), share, torch.nan)
                if only:
                    self._set_gradient(self._scaler.scale(total))
                else:
                    self._scaler.scale(total).backward()
            losses += share * torch.stack(terms).detach()
            is_offending.append(~torch.isfinite(predicted.detach()).flatten(1).all(1))
        return losses, torch.cat(is_offending)

    def _count_down_to_graph(self, colours: Float[Tensor, "b 3 h w"]) -> None:
        """Capture the network's passes once, when some steps have been done."""
        if self._until_graph == 0:
            self._undo_graph = replay_as_graph(self.network, colours, self.settings.precision)
        self._until_graph -= 1

    def _set_gradient(self, total: Float[Tensor, ""]) -> None:
        """Set the gradient beside DDP, whose hooks would wait for the other ranks."""
        parameters = [p for p in self.network.parameters() if p.requires_grad]
        gradients = torch.autograd.grad(total, parameters, allow_unused=True)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient

    def _update(self) -> tuple[Float[Tensor, ""], Bool[Tensor, ""]]:
        """Change the weights; return the gradient's norm and whether the step was skipped."""
        s = self.settings
        if self._scaler.is_enabled():
            self._scaler.unscale_(self.optimiser)
        parameters = [p for group in self.optimiser.param_groups for p in group["params"]]
        gradients = [p.grad for p in parameters if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        is_skipped = ~torch.isfinite(norm)
        if s.clip_gradient_norm is not None:
            torch.nn.utils.clip_grads_with_norm_(parameters, s.clip_gradient_norm, norm)
        # As a gradient scaler tells a fused optimiser, without waiting for the device.
        # Torch gives every fused optimiser both, and names them in no annotation.
        self.optimiser.grad_scale, self.optimiser.found_inf = None, is_skipped.float()  # type: ignore[attr-defined]
        self.optimiser.step()
        if self._scaler.is_enabled():
            self._scaler.update()
        return norm, is_skipped

    def _to_training_mode(self) -> None:
        self.forward.train()
        if self.settings.freeze_encoder_norm:  # ImageNet's statistics, not those of a few frames
            for layer in self.network.encoder.modules():
                if isinstance(layer, nn.BatchNorm2d):
                    layer.eval()

    def _together(self, is_last: bool) -> AbstractContextManager[Any]:
        """Let the ranks' gradients meet after the last micro-batch only."""
        if is_last or not isinstance(self.forward, nn.parallel.DistributedDataParallel):
            return nullcontext()
        no_sync: AbstractContextManager[Any] = self.forward.no_sync()
        return no_sync

    def _explain(self, packed: Batch | PackedBatch) -> Exception:
        """Find out how many images fit; what is learnt meanwhile is of no use."""

        def step(count: int) -> None:
            self.optimiser.zero_grad(set_to_none=True)
            self.optimiser.state.clear()  # moments, perhaps half made
            self._backward(packed.to(self.device), only=count)
            self._update()

        self.optimiser.zero_grad(set_to_none=True)
        if self._undo_graph is not None:  # its memory is a whole step's; micro-batches have none
            self._undo_graph()
        size = len(packed.keys)
        return out_of_memory(
            step,
            min(self.settings.micro_batch_size or size, size),
            (packed.image.shape[-2], packed.image.shape[-1]),
            self.device,
        )

    def state(self) -> dict[str, Any]:
        """Return everything that a restart needs, for ``torch.save``."""
        return {
            "network": self.network.state_dict(),
            "ema": self.ema.state_dict() if self.ema is not None else None,
            "optimiser": self.optimiser.state_dict(),
            "scaler": self._scaler.state_dict(),
            "step": self.step,
            "epoch": self.epoch,
            "num_skipped": self.num_skipped,
            "progress": vars(self.progress),
        }

    def snapshot(self) -> dict[str, Any]:
        """Copy ``state`` to the host's memory, to be written while training goes on."""
        copied: dict[str, Any] = _on_host(self.state())
        return copied

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from what ``state`` returned, also with another number of ranks."""
        self.network.load_state_dict(state["network"])
        if self.ema is not None and state["ema"] is not None:
            self.ema.load_state_dict(state["ema"])
        self.optimiser.load_state_dict(state["optimiser"])
        self._scaler.load_state_dict(state["scaler"])
        self.step, self.epoch = state["step"], state["epoch"]
        self.num_skipped = state["num_skipped"]
        self.progress = EpochProgress(**state["progress"])


def _on_host(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        return {key: _on_host(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(_on_host, value))
    return value
