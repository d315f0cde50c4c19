"""Which networks are registered, and what a version is told apart by."""

from pathlib import Path
from typing import Any

import pytest

from cluster.monitor import MonitorHandle
from cluster.services import Services
from cluster.storage import open_store
from stages import register
from stages.artifacts import ReportFiles
from stages.register import RegisterConfig
from tests.stages.report_artifacts import make_checkpoint, make_evaluation, make_ref


class Registry:
    """Stands where the monitor's actor is; keeps what is registered."""

    def __init__(self) -> None:
        self.registered: list[tuple[Any, ...]] = []

    def progress(self, *args: Any) -> None:
        """Progress is not what is tested here."""

    def track(self, method: str, *args: Any) -> Any:
        if method == "register_model":
            self.registered.append(args)
            return 3, "champion"
        assert method == "log_params"
        return None


def run(folder: Path, **settings: Any):
    store = open_store(str(folder / "store"))
    network = store.put_bytes("networks/x.safetensors", b"weights")
    registry = Registry()
    services = Services(
        store, MonitorHandle(registry, remote=False), "register", "r/register/0", "run", folder
    )
    report = ReportFiles(html=make_ref("r.html"), markdown=make_ref("r.md"), data=make_ref("r.js"))
    result = register.run(
        RegisterConfig(**settings),
        services,
        checkpoints={"nyu": make_checkpoint(network=network)},
        evaluations={"nyu": make_evaluation()},
        report=report,
    )
    return result.models[0], registry.registered


def test_a_network_is_registered_with_what_its_figures_refer_to(tmp_path: Path):
    model, registered = run(tmp_path)
    assert (model.version, model.alias) == (3, "champion")
    assert model.uri == "models:/densedepth-nyu@champion"
    ((_, name, path, tags, metric, comparable, _),) = registered
    assert name == "densedepth-nyu"
    assert Path(path).read_bytes() == b"weights"
    assert tags["depth.protocol"] == "nyu_densedepth"
    assert float(tags["depth.per_image_delta1"]) == pytest.approx(0.8127)
    assert metric in tags
    assert set(comparable) <= set(tags)


def test_a_network_too_close_to_the_best_constant_is_kept_out_with_both_numbers(tmp_path: Path):
    model, registered = run(tmp_path, min_ratio_to_constant=2.0)
    assert registered == []
    assert (model.version, model.alias, model.uri) == (0, "", "")
    assert "delta1 is 1.92 times the best constant prediction's" in model.reason
    assert "min_ratio_to_constant is 2.0" in model.reason
