"""A trained network as a predictor of pictures; the module that MLflow's ``pyfunc`` loads it by."""

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32, UInt8

from densedepth.checkpoint import load_network
from densedepth.inference import predict_depth_m
from densedepth.precision import set_float32


class DepthPredictor:
    """Predicts depth for pictures of any size.

    Attributes:
        network: the trained network.
        depth_range: what it can say, metres.
        input_size_px: height and width it was trained and scored at; pictures are resized to it.
        device: where it computes.
    """

    def __init__(self, path: Path, device: torch.device | str = "cpu") -> None:
        network, self.depth_range, extra = load_network(path)
        self.device = torch.device(device)
        self.network = network.to(self.device)
        size = extra.get("input_size_px")
        self.input_size_px = (int(size[0]), int(size[1])) if size else None

    def predict(
        self, model_input: UInt8[np.ndarray, "b h w 3"], params: dict[str, object] | None = None
    ) -> Float32[np.ndarray, "b h w"]:
        """Predict metres at the pictures' own size.

        Args:
            model_input: colour pictures of one size, 0..255.
            params: none are known; MLflow passes the argument.
        """
        image = torch.from_numpy(np.array(model_input)).permute(0, 3, 1, 2).to(self.device)
        with torch.inference_mode():
            depth_m = predict_depth_m(
                self.network,
                image.float() / 255,
                self.depth_range,
                input_size_px=self.input_size_px,
                output_size_px=(image.shape[2], image.shape[3]),
            )
        return depth_m[:, 0].cpu().numpy()


def fastest_device() -> torch.device:
    """Return the GPU, where there is one, set to compute float32 in full as the CPU does."""
    set_float32("fp32")
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _load_pyfunc(path: str) -> DepthPredictor:
    """Load a predictor; MLflow calls this by name."""
    return DepthPredictor(Path(path))
