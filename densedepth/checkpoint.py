"""A trained network in one file: weights as safetensors, and in the header what their use takes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor, nn

from densedepth.depth_range import DepthRange
from densedepth.errors import WeightsError
from densedepth.model import DenseDepth
from densedepth.network_header import NetworkHeader, parse_network_header
from densedepth.whole_file import write_whole


@runtime_checkable
class WritableFile(Protocol):
    """A binary file open for writing."""

    def write(self, content: bytes, /) -> Any:
        """Write all bytes."""
        ...


@runtime_checkable
class ReadableFile(Protocol):
    """A binary file open for reading."""

    def read(self) -> bytes:
        """Read all bytes."""
        ...


def save_network(
    model: nn.Module,
    depth_range: DepthRange,
    path_or_file: str | Path | WritableFile,
    extra: dict[str, Any] | None = None,
    *,
    weights: Mapping[str, Tensor] | None = None,
) -> None:
    """Write a network file; the same network gives the same bytes.

    Args:
        model: the DenseDepth itself, out of any wrapper (DDP, ``torch.compile``).
        depth_range: the range that it was trained for.
        path_or_file: where to; a path is replaced as a whole, or not at all.
        extra: JSON-ready facts to keep with it (metrics, the run's id).
        weights: a copy of the model's ``state_dict``, where it trains on meanwhile.

    Raises:
        TypeError: ``model`` is wrapped, or ``extra`` holds what JSON cannot.
        ValueError: ``extra`` holds NaN or infinity, which JSON cannot.
    """
    if not isinstance(model, DenseDepth):
        raise TypeError(
            f"save_network got a {type(model).__name__}: pass the DenseDepth inside it "
            "(model.module of DDP, model._orig_mod of torch.compile)"
        )
    header = NetworkHeader(model.settings(), depth_range.min_m, depth_range.max_m, extra or {})
    found = model.state_dict() if weights is None else weights
    tensors = {name: value.contiguous() for name, value in found.items()}
    content = safetensors.torch.save(tensors, header.to_metadata())
    if isinstance(path_or_file, str | Path):
        write_whole(Path(path_or_file), content)
    else:
        path_or_file.write(content)


def load_network(
    path_or_file: str | Path | ReadableFile,
) -> tuple[DenseDepth, DepthRange, dict[str, Any]]:
    """Rebuild a network from its file, on the CPU and in evaluation mode.

    Returns:
        The network, the depth range it was trained for, and the extra facts saved with it.

    Raises:
        WeightsError: there is no such file, or it is damaged or not a network file of this project.
    """
    if isinstance(path_or_file, str | Path):
        name = str(path_or_file)
        if not Path(path_or_file).is_file():
            raise WeightsError(f"no network file at {name}: correct the path")
        content = Path(path_or_file).read_bytes()
    else:
        name = getattr(path_or_file, "name", None) or "the file given"
        content = path_or_file.read()
    header = parse_network_header(content, str(name))
    try:
        model = DenseDepth(**header.settings)
        depth_range = DepthRange(header.min_m, header.max_m)
        model.load_state_dict(safetensors.torch.load(content))
    except (SafetensorError, RuntimeError, TypeError, ValueError) as error:
        raise WeightsError(f"{name} is damaged or of another version: {error}") from error
    return model.eval(), depth_range, header.extra
