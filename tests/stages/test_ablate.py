"""Ablations: what is refused, what decides the table, and what is in it."""

import os
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import ray
import ray.tune
from pydantic import ValidationError

from cluster.local_store import LocalStore
from densedepth.errors import WeightsError
from stages import ablate, train
from stages.artifacts import ShardSet
from stages.recipe import Recipe
from stages.study import Study, changed_recipe
from stages.trainer import EPOCH_VIEW
from tests.stages.report_artifacts import make_shards
from tests.stages.trained_here import RECIPE, make_services, small_shards, without_ray

SHARDS = ShardSet(
    dataset="nyu",
    min_depth_m=0.1,
    max_depth_m=10.0,
    rendered=False,
    ground_truth="nyu_depths",
    dense=True,
    splits={},
)


@pytest.mark.parametrize(
    ("run", "config"),
    [
        (train.run, train.TrainConfig(protocol="kitti_eigen_garg")),
        (ablate.run, ablate.AblateConfig(protocol="kitti_eigen_garg")),
    ],
)
def test_a_protocol_for_another_kind_of_depth_is_refused_before_anything_is_trained(run, config):
    with pytest.raises(ValueError, match=r"protocol kitti_eigen_garg is scored against .* nyu_dep"):
        run(config, cast(Any, None), SHARDS)


@pytest.mark.parametrize(
    ("run", "config", "of"),
    [
        (train.run, train.TrainConfig(recipe=Recipe(global_batch_size=500)), "487"),
        (ablate.run, ablate.AblateConfig(max_train_samples=7), "7"),
    ],
)
def test_fewer_frames_than_a_batch_are_refused_before_workers_are_waited_for(run, config, of):
    with pytest.raises(ValueError, match=rf"^{of} training samples do not fill one batch of "):
        run(config, cast(Any, None), make_shards())


def test_what_scores_by_protocol_decides_the_table_where_a_protocol_is_set():
    assert ablate.loads(ablate.AblateConfig()) == ()
    assert ablate.loads(ablate.AblateConfig(protocol="nyu_eigen")) == (EPOCH_VIEW,)


def test_files_of_weights_are_known_by_their_place_and_their_content(tmp_path: Path, monkeypatch):
    """The baseline's and each study's; a URL's content cannot change, for it has a digest."""
    monkeypatch.chdir(tmp_path)
    names = ("base.pth", "deep.pth")
    for name in names:
        (tmp_path / name).write_bytes(b"1234")
    config = ablate.AblateConfig.model_validate(
        {
            "recipe": {"network": {"weights": "base.pth"}},
            "studies": {
                "deep": {"set": {"network.encoder": "densenet201", "network.weights": "deep.pth"}},
                "online": {"set": {"network.weights": "https://there/w.pth"}},
            },
        }
    )
    before = ablate.sources(config)
    assert set(before) == {str(tmp_path / name) for name in names}
    assert config.studies["deep"].set["network.weights"] == str(tmp_path / "deep.pth")
    for name in names:
        os.utime(tmp_path / name, ns=(1, 1))  # other bytes, as many
    assert all(before[path] != mark for path, mark in ablate.sources(config).items())
    (tmp_path / "deep.pth").unlink()
    with pytest.raises(WeightsError, match=r"deep\.pth.*no such file.*densenet201"):
        ablate.sources(config)


def test_a_study_with_another_encoder_may_not_load_the_baselines_weights():
    recipe = changed_recipe(Recipe(), {"network.weights": "/data/densenet169.pth"})
    with pytest.raises(ValidationError, match="study densenet201 changes the encoder, but weights"):
        ablate.AblateConfig(recipe=recipe)
    own = Study(set={"network.encoder": "densenet201", "network.weights": "/data/201.pth"})
    assert ablate.AblateConfig(recipe=recipe, studies={"deep": own})


class Tuner:
    """Stands for Ray Tune's: runs the trials here, one after another; errors are text as Ray's."""

    def __init__(self, trainable, *, param_space, tune_config, run_config) -> None:
        self.trainable, self.trials = trainable, param_space["trial"]["grid_search"]

    def fit(self) -> list[SimpleNamespace]:
        results = []
        for trial in self.trials:
            config, error = {"trial": trial}, None
            reported: dict[str, Any] = {}
            ray.tune.report = reported.update
            try:
                self.trainable(config)
            except ValueError as raised:
                error = RuntimeError(f"ray::run_trial() (pid=1)\n  File ...\nValueError: {raised}")
            results.append(SimpleNamespace(config=config, metrics=reported, error=error))
        return results


def test_the_table_has_every_study_with_every_seed(tmp_path: Path):
    """Trained in this process."""
    asked: list[Any] = []
    with without_ray() as patch:
        patch.setattr(ray.tune, "Tuner", Tuner)
        patch.setattr(ray.tune, "report", None)
        patch.setattr(ray.tune, "with_parameters", partial)
        patch.setattr(ray.tune, "with_resources", lambda run, share: asked.append(share) or run)
        store = LocalStore(tmp_path / "store")
        services, told = make_services(store, tmp_path)
        config = ablate.AblateConfig.model_validate(
            {
                "recipe": RECIPE,
                "studies": {
                    "quick": {"scale": {"optimiser.learning_rate": 100}},
                    "broken": {"set": {"network.decoder_width": 0.001}},
                },
                "seeds": [3, 4],
                "num_workers": 0,
                "max_train_samples": 4,
                "num_panel_frames": 0,
                "cpus_per_worker": 1.5,
            }
        )
        table = ablate.run(config, services, small_shards(store, tmp_path))
    assert asked[0].bundles == [{"CPU": 1.5}]
    rows = {(trial.study, trial.seed): trial for trial in table.trials}
    assert list(rows) == [
        (name, seed) for name in ("baseline", "quick", "broken") for seed in (3, 4)
    ]
    finished = {key: trial for key, trial in rows.items() if key[0] != "broken"}
    assert all(len(t.curve) == 2 and t.curve[-1] == t.metrics["loss"] for t in finished.values())
    assert len({trial.curve for trial in finished.values()}) == 4
    assert rows["quick", 3].changes == {"optimiser.learning_rate": pytest.approx(0.01)}
    assert rows["baseline", 4].changes == {}
    assert rows["broken", 3].reason.startswith("ValueError: ")
    statuses = {("broken" in run): status for run, status in told.statuses.items()}
    assert (len(told.statuses), statuses) == (6, {True: "FAILED", False: "FINISHED"})


def test_a_trial_that_waits_for_its_workers_holds_no_cpu_and_one_of_its_own_has_what_they_would():
    def share(**settings: Any) -> list[dict[str, float]]:
        return ablate._trial_share(ablate.AblateConfig(**settings)).bundles

    with without_ray() as patch:
        assert not any("CPU" in bundle or "GPU" in bundle for bundle in share(num_workers=2))
        patch.setattr(ray, "cluster_resources", lambda: {"CPU": 8, "GPU": 1})
        assert share(num_workers=0, cpus_per_worker=3.0) == [{"CPU": 3.0, "GPU": 1}]
