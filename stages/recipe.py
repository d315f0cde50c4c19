"""How a network is trained: what decides the weights; the defaults are the paper's."""

from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator, model_validator

from densedepth.errors import WeightsError
from stages.settings import Settings, anchored, one_of

ENCODERS = (
    "densenet121",
    "densenet161",
    "densenet169",
    "densenet201",
    "mobilenet_v2",
    "resnet50",
    "efficientnet_b0",
)
"""Names for checking settings without torch; ``densedepth.encoders`` has the networks."""


def anchored_weights(weights: str) -> str:
    """Anchor what is a path, and no word."""
    return weights if weights in ("imagenet", "none") else anchored(weights)


class NetworkConfig(Settings):
    """The network."""

    encoder: str = Field("densenet169", description="torchvision encoder, or timm:NAME")
    decoder_width: float = Field(
        1.0, gt=0, le=1, description="decoder's first width as a share of the encoder's output"
    )
    conva_activation: bool = Field(
        False, description="LeakyReLU after CONVA too, as the later code; the paper has none"
    )
    align_corners: bool = Field(True, description="corner alignment of the bilinear upsampling")
    input_normalisation: Literal["none", "imagenet"] = Field(
        "none", description="the paper feeds RGB in [0, 1] as it is"
    )
    weights: str = Field(
        "imagenet", description="imagenet, none, or a path or URL of the encoder's state dict"
    )
    weights_sha256: str | None = Field(
        None, description="digest of the file that weights names; a URL needs one"
    )

    @field_validator("weights")
    @classmethod
    def _anchor_weights(cls, weights: str) -> str:
        return anchored_weights(weights)

    @field_validator("encoder")
    @classmethod
    def _check_encoder(cls, name: str) -> str:
        return name if name.startswith("timm:") else one_of(name, ENCODERS, "encoder")


class OptimiserConfig(Settings):
    """Adam and its schedule."""

    learning_rate: float = Field(1e-4, gt=0, description="Adam's peak step size")
    encoder_rate_factor: float = Field(
        1.0, gt=0, description="the encoder's learning rate as a multiple of the decoder's"
    )
    beta1: float = Field(0.9, ge=0, lt=1, description="decay of the first moment")
    beta2: float = Field(0.999, ge=0, lt=1, description="decay of the second moment")
    amsgrad: bool = Field(False, description="as DenseDepth's code; the paper names none")
    weight_decay: float = Field(0.0, ge=0, description="decoupled (AdamW) when above zero")
    schedule: Literal["constant", "cosine", "one_cycle", "step"] = Field(
        "constant", description="after the warm-up; constant is the paper's"
    )
    warmup_steps: int = Field(
        0, ge=0, description="steps of linear rise from zero; one_cycle's rise, 0 = 30 % of all"
    )
    final_rate_factor: float = Field(
        0.01, gt=0, le=1, description="where cosine, one_cycle end, as a share of learning_rate"
    )
    drop_every_epochs: float | None = Field(
        None, gt=0, description="with step: epochs between two drops of the rate"
    )
    drop_factor: float = Field(
        0.1, gt=0, lt=1, description="with step: what a drop multiplies the rate by"
    )
    clip_gradient_norm: float | None = Field(None, gt=0, description="none = the paper")

    @model_validator(mode="after")
    def _check_schedule(self) -> "OptimiserConfig":
        if self.schedule == "step" and self.drop_every_epochs is None:
            raise ValueError(
                "schedule = 'step' needs drop_every_epochs: say after how many epochs the rate "
                "drops, such as 5"
            )
        return self


class AugmentConfig(Settings):
    """Augmentation, drawn from each sample's own seed."""

    flip_probability: float = Field(0.5, ge=0, le=1, description="horizontal mirror")
    channel_swap_probability: float = Field(
        0.25, ge=0, le=1, description="probability that the colour channels really change places"
    )
    zoom_max: float = Field(
        1.0, ge=1, le=4, description="enlarged by 1 to this, depth divided by it; 1 = the paper"
    )
    rotation_deg: float = Field(
        0.0, ge=0, le=45, description="turned by at most so much; 0 = the paper"
    )
    colour_jitter: float = Field(
        0.0,
        ge=0,
        le=1,
        description="brightness, gamma, contrast vary by exp(-j) to exp(j), colours by half of "
        "that; 0 = the paper",
    )


class LossConfig(Settings):
    """Weights of the loss's terms."""

    l1_weight: float = Field(0.1, ge=0, description="lambda, on |y - y'| of the inverse depth")
    gradient_weight: float = Field(1.0, ge=0, description="on the edges' difference")
    ssim_weight: float = Field(1.0, ge=0, description="on (1 - SSIM) / 2")


class SpeedConfig(Settings):
    """Precision and speed; the defaults are exact, and as the paper trained."""

    precision: Literal["fp32", "tf32", "bf16", "fp16"] = Field(
        "fp32",
        description="of the network; fp32 and tf32 differ on GPUs only; fp16 scales the loss; "
        "the loss, the weights and Adam stay in float32",
    )
    channels_last: bool = Field(True, description="memory layout: height, width, channel")
    compile: bool = Field(
        False, description="torch.compile; a minute or more before the first step"
    )
    cuda_graphs: bool = Field(
        True,
        description="on GPUs, launch the network's forward and backward pass as one graph each; "
        "not with compile or micro_batch_size",
    )
    micro_batch_size: int | None = Field(
        None,
        ge=1,
        description="frames at a time; a rank sums the gradient of its part of the global batch "
        "over them, batch norms see that many; none = the rank's whole part",
    )


class Recipe(Settings):
    """Everything that decides the trained weights, the data apart."""

    network: NetworkConfig = Field(default_factory=NetworkConfig, description="the network")
    optimiser: OptimiserConfig = Field(default_factory=OptimiserConfig, description="Adam")
    augment: AugmentConfig = Field(default_factory=AugmentConfig, description="augmentation")
    loss: LossConfig = Field(default_factory=LossConfig, description="the loss's weights")
    speed: SpeedConfig = Field(default_factory=SpeedConfig, description="precision and speed")
    epochs: int = Field(20, ge=1, description="passes over the training split")
    global_batch_size: int = Field(8, ge=1, description="frames an optimiser step, all ranks")
    input_size_px: tuple[int, int] = Field(
        (480, 640), description="height, width fed to the network; even, best multiples of 32"
    )
    ema_decay: float | None = Field(
        None, gt=0, lt=1, description="moving average of the weights; none = the paper"
    )
    freeze_encoder_norm: bool = Field(
        False,
        description="keep the statistics of the encoder's batch norms as the weights file has "
        "them; the paper updates them, which takes more frames",
    )
    keep: Literal["best", "last"] = Field(
        "best", description="which epoch's network is handed on: best validation loss, or last"
    )
    max_skipped_steps: int = Field(
        20,
        ge=0,
        description="steps whose loss or gradient is no number; they change nothing, and more of "
        "them end the training",
    )
    seed: int = Field(0, ge=0, description="of initial weights, order and augmentation")

    @model_validator(mode="after")
    def _check(self) -> "Recipe":
        if any(side < 32 or side % 2 for side in self.input_size_px):
            raise ValueError(
                f"input_size_px = {list(self.input_size_px)}: height and width must be even and at "
                f"least 32, try {[max(32, round(side / 32) * 32) for side in self.input_size_px]}; "
                "multiples of 32 fit the encoder without rounding"
            )
        if self.freeze_encoder_norm and self.network.weights == "none":
            raise ValueError(
                "freeze_encoder_norm = true keeps the statistics of an encoder that has none, "
                "since network.weights = 'none': set it to false, or give weights"
            )
        return self


def weights_mark(recipe: Recipe) -> dict[str, str]:
    """Return the encoder's weights file, where a path is given, with a mark of its content.

    Raises:
        WeightsError: there is no such file.
    """
    network = recipe.network
    if network.weights in ("imagenet", "none") or "://" in network.weights:
        return {}
    path = Path(network.weights).expanduser()
    if not path.is_file():
        raise WeightsError(
            f"recipe.network.weights = {network.weights!r}: no such file; give the path of a state "
            f"dict of {network.encoder}, or imagenet, or none"
        )
    status = path.stat()
    return {str(path): f"{status.st_size}/{status.st_mtime_ns}"}
