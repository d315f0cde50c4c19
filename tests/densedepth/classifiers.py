"""Classifiers whose weights encoders start from, with random numbers in them."""

import hashlib
from pathlib import Path

import torch
import torchvision
from torch import nn

from densedepth.model import DenseDepth


def randomised(network: nn.Module, seed: int = 0) -> nn.Module:
    """Make every entry of the state dict differ from a fresh network's, batch norms included."""
    generator = torch.Generator().manual_seed(seed)
    for value in network.state_dict().values():
        if value.is_floating_point():
            value.copy_(torch.rand(value.shape, generator=generator) * 0.1 + 0.05)
    return network.eval()


def same_top_features(model: DenseDepth, classifier: nn.Module) -> bool:
    """Compare the encoder's last map with torchvision's own; both in evaluation mode."""
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = classifier.features(image)
        if isinstance(classifier, torchvision.models.DenseNet):
            expected = expected.relu()
        return torch.equal(model.eval().encoder(image)[-1], expected)


def sha256_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
