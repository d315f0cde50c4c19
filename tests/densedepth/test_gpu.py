"""How busy and how full a GPU is, also where the driver does not say."""

import pynvml
import pytest
import torch

from densedepth.gpu import gpu_figures

GPU = torch.device("cuda", 0)


def test_there_is_nothing_to_say_of_a_cpu():
    assert gpu_figures(torch.device("cpu")) == {}


@pytest.fixture
def _two_gib(monkeypatch):
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 2 * 2**30)


@pytest.mark.usefixtures("_two_gib")
def test_memory_is_in_gib_and_utilisation_a_share(monkeypatch):
    monkeypatch.setattr(torch.cuda, "utilization", lambda device: 87)
    assert gpu_figures(GPU) == {"gpu_memory_gib": 2.0, "gpu_utilisation": 0.87}


@pytest.mark.usefixtures("_two_gib")
@pytest.mark.parametrize(
    "error",
    [
        pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED),  # one part of a divided GPU
        pynvml.NVMLError(pynvml.NVML_ERROR_NO_PERMISSION),
        RuntimeError("cuda driver can't be loaded, is cuda enabled?"),
    ],
)
def test_a_driver_that_does_not_say_is_no_reason_to_end_a_training(monkeypatch, error):
    def refuse(device):
        raise error

    monkeypatch.setattr(torch.cuda, "utilization", refuse)
    assert gpu_figures(GPU) == {"gpu_memory_gib": 2.0}


@pytest.mark.gpu
def test_a_gpu_says_both():
    kept = torch.zeros(2**28, dtype=torch.uint8, device="cuda")
    figures = gpu_figures(kept.device)
    assert figures["gpu_memory_gib"] >= 0.25
    assert 0 <= figures["gpu_utilisation"] <= 1
