"""Fixtures of the tests that load encoders' weights."""

import pytest
import torch
import torchvision

from densedepth.model import DenseDepth
from tests.densedepth.classifiers import randomised


@pytest.fixture
def model():
    """A small network, with the same weights each time."""
    torch.manual_seed(5)
    return DenseDepth("mobilenet_v2", 0.05)


@pytest.fixture(scope="session")
def published(tmp_path_factory):
    """A file as torchvision publishes it, with random weights: (path, the classifier)."""
    path = tmp_path_factory.mktemp("published") / "mobilenet.pth"
    classifier = randomised(torchvision.models.mobilenet_v2())
    torch.save(classifier.state_dict(), path)
    return path, classifier
