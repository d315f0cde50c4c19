"""Pretrained weights for the encoder: found, checked by hash, and fitted without a remainder."""

import hashlib
import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

import safetensors.torch
import torch
import torchvision
from safetensors import SafetensorError
from torch import Tensor, nn

from densedepth.encoders import TIMM_PREFIX, build_encoder
from densedepth.errors import WeightsError
from densedepth.model import DenseDepth

# Files of 2017 name DenseNet's layers "norm.1"; a module's name may no longer have a dot.
_OLD_DENSENET_NAME = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.([12]\.)")
_HASH_IN_NAME = re.compile(r"-([0-9a-f]{8,})\.")
_OFFLINE_HINT = "set the encoder's weights to a path, or to 'none' to start from random weights"


def load_encoder_weights(model: DenseDepth, weights: str, sha256: str | None = None) -> None:
    """Load pretrained weights into the encoder, all of them or none.

    Args:
        model: the network; its decoder is left as it is.
        weights: ``imagenet``: torchvision's file (IMAGENET1K_V1), taken from torch hub's cache or
            downloaded into it, and checked against the hash in its name; ``none``: leave the
            encoder as it is; else a path, or a ``file``, ``http`` or ``https`` URL. The file is a
            state dict of torchvision's or timm's classifier or of this project's network, in
            PyTorch's format or as safetensors.
        sha256: the file's digest in hexadecimal; required for a URL, optional for a path.

    Raises:
        WeightsError: the file cannot be had, read or trusted, or does not fit the encoder.
    """
    encoder = model.settings()["encoder"]
    found = find_encoder_weights(encoder, weights, sha256)
    if found is None:
        return
    path = found.fetch() if isinstance(found, Download) else found
    features = model.encoder.features
    features.load_state_dict(_fitting(features, encoder, _read(path), path), strict=False)


@dataclass(frozen=True)
class Download:
    """A file of weights that is still to be downloaded into torch hub's cache.

    Attributes:
        url: where it is.
        name: its name in the cache.
        hash_prefix: what its SHA-256 begins with.
        shown: the URL without what must not be shown.
    """

    url: str
    name: str
    hash_prefix: str
    shown: str

    @property
    def path(self) -> Path:
        """Where it is put."""
        return Path(torch.hub.get_dir()) / "checkpoints" / self.name

    def fetch(self) -> Path:
        """Download it; return where it is.

        Raises:
            WeightsError: it cannot be had, or is not the file that is meant.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(
                self.url, str(self.path), self.hash_prefix, progress=False
            )
        except (OSError, HTTPException) as error:
            raise WeightsError(
                f"cannot download {self.shown} ({error}): put the file at {self.path}, or "
                f"{_OFFLINE_HINT}"
            ) from error
        except RuntimeError as error:
            raise WeightsError(
                f"what {self.shown} serves does not have the SHA-256 {self.hash_prefix} ({error}): "
                "correct sha256, or do not use this file"
            ) from error
        return self.path


def find_encoder_weights(
    encoder: str, weights: str, sha256: str | None = None
) -> Path | Download | None:
    """Find an encoder's file of weights; nothing is downloaded.

    Args:
        encoder: the encoder's name.
        weights: as ``load_encoder_weights`` takes it.
        sha256: the same.

    Returns:
        The file, its hash checked; what is still to be downloaded; None for random weights.

    Raises:
        WeightsError: there is no such file, or it cannot be trusted.
    """
    if weights in ("none", "imagenet") and sha256 is not None:
        raise WeightsError(f"sha256 belongs to a path or URL; remove it where weights={weights!r}")
    if weights == "none":
        return None
    found = _imagenet_file(encoder) if weights == "imagenet" else _named_file(weights, sha256)
    if isinstance(found, Download) and found.path.exists():
        advice = "the cached file is damaged: delete it and run again"
        _check_hash(found.path, found.hash_prefix, advice)
        return found.path
    return found


def check_encoder_weights(
    encoder: str, weights: str, sha256: str | None = None
) -> Path | Download | None:
    """Make sure that ``load_encoder_weights`` will work; but nothing is downloaded.

    Args:
        encoder: the encoder's name.
        weights: as ``load_encoder_weights`` takes it.
        sha256: the same.

    Returns:
        As ``find_encoder_weights``; a file that is here fits the encoder.

    Raises:
        WeightsError: there is no such encoder here, or its weights cannot be loaded.
    """
    try:
        features = build_encoder(encoder).features
    except (ModuleNotFoundError, ValueError) as error:  # of timm; others are known by their names
        raise WeightsError(str(error)) from error
    found = find_encoder_weights(encoder, weights, sha256)
    if isinstance(found, Path):
        _fitting(features, encoder, _read(found), found)
    return found


def _imagenet_file(encoder: str) -> Download:
    if encoder.startswith(TIMM_PREFIX):
        raise WeightsError(
            f"weights='imagenet' means torchvision's file, and there is none for {encoder}: "
            "give the path or the URL and sha256 of a state dict of this timm network, or 'none'"
        )
    url = torchvision.models.get_model_weights(encoder)["IMAGENET1K_V1"].url
    name = url.rsplit("/", 1)[-1]
    prefix = _HASH_IN_NAME.search(name)
    if prefix is None:
        raise WeightsError(
            f"torchvision's file for {encoder} has no hash in its name ({name}), so it cannot be "
            "checked: download it and give its path and sha256"
        )
    return Download(url, name, prefix[1], url)


def _named_file(weights: str, sha256: str | None) -> Path | Download:
    if sha256 is not None:
        sha256 = sha256.lower()
        if not re.fullmatch(r"[0-9a-f]{64}", sha256):
            raise WeightsError(f"sha256={sha256!r} is no SHA-256: it has 64 hexadecimal digits")
    if "://" not in weights:
        path = Path(weights).expanduser()
    else:
        url = urlsplit(weights)
        shown = f"{url.scheme}://{url.hostname or ''}{url.path}"  # neither credentials nor query
        if url.scheme not in ("file", "http", "https"):
            raise WeightsError(
                f"{shown}: weights are read from file, http and https URLs; "
                f"download the file and {_OFFLINE_HINT}"
            )
        if url.username is not None or url.password is not None:
            raise WeightsError(
                f"{shown}: a URL with a user name or password cannot be read; "
                f"use a signed URL, or download the file and {_OFFLINE_HINT}"
            )
        if sha256 is None:
            raise WeightsError(f"{shown}: set sha256, so that the file can be trusted")
        if url.scheme != "file":
            name = Path(url.path)
            cached = f"{name.stem}-{sha256[:16]}{name.suffix}"
            return Download(weights, cached, sha256, shown)
        path = Path(url2pathname(url.path))
    if not path.is_file():
        raise WeightsError(f"no file of weights at {path}: correct the path, or {_OFFLINE_HINT}")
    if sha256 is not None:
        _check_hash(path, sha256, "the file is not the one meant: correct the path or sha256")
    return path


def _check_hash(path: Path, hash_prefix: str, advice: str) -> None:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if not digest.startswith(hash_prefix):
        raise WeightsError(
            f"{path} has the SHA-256 {digest}, which does not begin with {hash_prefix}: {advice}"
        )


def _read(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, SafetensorError) as error:
        # PyTorch wraps its reason in a page of advice that does not fit here.
        reason = str(error).partition("WeightsUnpickler error:")[2] or str(error)
        why = (reason.strip().splitlines() or [type(error).__name__])[0].strip()
        raise WeightsError(
            f"{path} cannot be read as weights alone ({why}): save it again on a machine that "
            "may run its code, torch.save(network.state_dict(), path), and give that file"
        ) from error
    for wrapper in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    if not isinstance(content, Mapping) or not any(isinstance(v, Tensor) for v in content.values()):
        raise WeightsError(f"{path} holds no state dict (names with tensors): give another file")
    return {str(k).removeprefix("module."): v for k, v in content.items() if isinstance(v, Tensor)}


def _fitting(
    features: nn.Module, encoder: str, published: dict[str, Tensor], path: Path
) -> dict[str, Tensor]:
    """Return a file's layers by the encoder's names, all that it needs.

    Raises:
        WeightsError: the file lacks some, or holds others.
    """
    published = {_OLD_DENSENET_NAME.sub(r"\1\2", name): v for name, v in published.items()}
    own = features.state_dict()
    sources = {name: _source_of(name, published) for name in own}
    # Files of 2017 do not count batches.
    missing = [n for n, s in sources.items() if s is None and not n.endswith("num_batches_tracked")]
    fitting = {name: published[source] for name, source in sources.items() if source is not None}
    wrong_shape = [
        f"{name} {tuple(value.shape)} instead of {tuple(own[name].shape)}"
        for name, value in fitting.items()
        if value.shape != own[name].shape
    ]
    # A head or decoder may be left over, but no layer of a part that is used: resnet101 has every
    # layer of resnet50, and more.
    used = set(sources.values())
    parts = {source.partition(".")[0] for source in used if source is not None}
    left_over = [n for n in published if n not in used and n.partition(".")[0] in parts]
    problems = [
        f"{len(names)} {what} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
        for what, names in (
            ("missing", missing),
            ("of another shape", wrong_shape),
            ("left over", left_over),
        )
        if names
    ]
    if problems:
        raise WeightsError(
            f"{path} does not fit the encoder {encoder}: {'; '.join(problems)}. "
            "Give the file of this encoder, or name the file's encoder"
        )
    return fitting


def _source_of(name: str, published: dict[str, Tensor]) -> str | None:
    """Find a layer of ``encoder.features`` under the name that a file gives it."""
    first, _, rest = name.partition(".")
    flattened_by_timm = f"{first.replace('_', '.', 1)}.{rest}"
    for candidate in (f"encoder.features.{name}", f"features.{name}", name, flattened_by_timm):
        if candidate in published:
            return candidate
    return None
