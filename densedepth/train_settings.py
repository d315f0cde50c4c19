"""What the loop needs to know beside the network."""

from dataclasses import dataclass, field

from densedepth.distortion import Distortion
from densedepth.precision import Precision
from densedepth.schedule import Schedule


@dataclass(frozen=True)
class TrainSettings:
    """How a network is trained; see ``stages.recipe`` for meanings."""

    schedule: Schedule
    learning_rate: float = 1e-4
    encoder_rate_factor: float = 1.0
    betas: tuple[float, float] = (0.9, 0.999)
    amsgrad: bool = False
    weight_decay: float = 0.0
    clip_gradient_norm: float | None = None
    flip_probability: float = 0.5
    channel_swap_probability: float = 0.25
    distortion: Distortion = field(default_factory=Distortion)
    ema_decay: float | None = None
    freeze_encoder_norm: bool = False
    masked: bool = False
    global_batch_size: int | None = None
    seed: int = 0
    precision: Precision = "fp32"
    channels_last: bool = True
    compiled: bool = False
    cuda_graphs: bool = True
    micro_batch_size: int | None = None
    max_skipped_steps: int = 20
