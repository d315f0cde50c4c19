"""ShardSet -> AblationTable: Ray Tune runs each study beside the baseline, for every seed.

A study is the baseline's recipe with a few settings changed; the slides' three are the default.
"""

from importlib import import_module
from typing import Any

from pydantic import Field, field_validator, model_validator

from cluster.services import Services
from stages.artifacts import AblationTable, EpochRecord, ShardSet, Trial
from stages.heartbeat import watched
from stages.recipe import NetworkConfig, Recipe, weights_mark
from stages.scaling import ScalingSettings, check_batch, check_cpus, check_samples, use_gpu
from stages.study import SLIDES, Study, changed_recipe
from stages.trainer import EPOCH_VIEW, TrainJob, make_trainer, run_trainer
from stages.worker import train_worker


class AblateConfig(ScalingSettings):
    """The ablation of a data set."""

    recipe: Recipe = Field(
        default_factory=Recipe, description="the baseline's; starts from train's recipe"
    )
    studies: dict[str, Study] = Field(
        default_factory=lambda: dict(SLIDES), description="what is compared with the baseline"
    )
    seeds: tuple[int, ...] = Field((0,), min_length=1, description="each study runs with each seed")
    num_workers: int = Field(
        1,
        ge=0,
        description="DDP ranks of each trial; 0 = trains in the trial's own process, which starts "
        "sooner but is not restarted",
    )
    max_concurrent_trials: int = Field(1, ge=1, description="trials side by side")

    @field_validator("studies")
    @classmethod
    def _check_studies(cls, studies: dict[str, Study]) -> dict[str, Study]:
        for name, study in studies.items():
            if name == "baseline":
                raise ValueError("'baseline' is the recipe itself; give the study another name")
            try:
                changed_recipe(Recipe(), study.changes(Recipe()))
            except ValueError as error:
                raise ValueError(f"study {name!r}: {error}") from None
        return studies

    @model_validator(mode="after")
    def _check_weights(self) -> "AblateConfig":
        check_batch(self.recipe, self.num_workers)
        network = self.recipe.network
        if network.weights in ("imagenet", "none"):
            return self
        for name, study in self.studies.items():
            changed = study.changes(self.recipe)
            if "network.encoder" in changed and "network.weights" not in changed:
                raise ValueError(
                    f"study {name} changes the encoder, but weights = {network.weights!r} is a "
                    f"file of {network.encoder}: set recipe.network.weights to imagenet or none, "
                    'or give the study its own "network.weights"'
                )
        return self


def sources(config: AblateConfig) -> dict[str, str]:
    """Say what the stage reads outside the store: the encoders' weights."""
    marks: dict[str, str] = {}
    for recipe in _recipes(config):
        marks |= weights_mark(recipe)
    return marks


def networks(config: AblateConfig) -> tuple[NetworkConfig, ...]:
    """Name the networks that are trained, whose encoders' weights must be there."""
    return tuple(recipe.network for recipe in _recipes(config))


def loads(config: AblateConfig) -> tuple[str, ...]:
    """Name what decides the table and no import shows: the scoring by a protocol, if one is set."""
    return () if config.protocol is None else (EPOCH_VIEW,)


def _recipes(config: AblateConfig) -> list[Recipe]:
    """Return the baseline's recipe and every study's."""
    base = config.recipe
    return [base, *(changed_recipe(base, s.changes(base)) for s in config.studies.values())]


def run(config: AblateConfig, services: Services, shards: ShardSet) -> AblationTable:
    """Train every study with every seed and put their validation figures side by side.

    Raises:
        ValueError: the settings ask for what the cluster does not have, the protocol refers to
            another kind of depth, or there are fewer frames than a batch has.
    """
    import ray.tune

    if config.protocol is not None:
        import_module(EPOCH_VIEW).require_truth(config.protocol, shards.ground_truth)
    if "val" not in shards.splits:
        raise ValueError(
            f"{shards.dataset} has no validation split to compare studies on: set val_fraction "
            "above 0 in the reader's options"
        )
    check_samples(config.recipe, config, shards)
    trials = [
        (name, seed, {**study.changes(config.recipe), "seed": seed})
        for name, study in {"baseline": Study(), **config.studies}.items()
        for seed in config.seeds
    ]
    services.log_params({"recipe": config.recipe.model_dump(), "studies": list(config.studies)})
    shards.log_use(services, ("train", "val"))
    services.progress(0, len(trials), "trials", "starting")
    location, filesystem = services.store.ray_location("ray")
    payload = {"config": config.model_dump_json(), "shards": shards, "services": services}
    tuner = ray.tune.Tuner(
        ray.tune.with_resources(
            ray.tune.with_parameters(run_trial, payload=payload), _trial_share(config)
        ),
        param_space={"trial": ray.tune.grid_search(trials)},
        tune_config=ray.tune.TuneConfig(
            max_concurrent_trials=config.max_concurrent_trials,
            reuse_actors=True,  # a process for each concurrent trial, not for each trial
            trial_dirname_creator=_trial_name,
            trial_name_creator=_trial_name,
        ),
        run_config=ray.tune.RunConfig(
            name=services.key.replace("/", "-"),
            storage_path=location,
            storage_filesystem=filesystem,
            callbacks=[_progress_callback(services, len(trials))],
            verbose=0,
        ),
    )
    results = {_trial_key(r.config["trial"]): r for r in tuner.fit()}
    table = AblationTable(
        dataset=shards.dataset,
        recipe=config.recipe.model_dump(mode="json"),
        trials=tuple(_row(trial, results.get(_trial_key(trial))) for trial in trials),
    )
    if all(trial.status == "failed" for trial in table.trials):
        raise RuntimeError(f"every trial failed; the first: {table.trials[0].reason}")
    services.log_metrics([(0, table.summary())])
    return table


def run_trial(config: dict[str, Any], payload: dict[str, Any]) -> None:
    """Train one study with one seed: the body of a Tune trial, with a trainer of its own."""
    import ray.tune

    name, seed, changes = config["trial"]
    ablate = AblateConfig.model_validate_json(payload["config"])
    recipe = changed_recipe(ablate.recipe, changes)
    job = TrainJob(recipe=recipe, scaling=ablate.scaling, shards=payload["shards"])
    services: Services = payload["services"].child(f"{name}-seed{seed}")
    services.monitor.set_tags(services.run_id, {"depth.study": name, "depth.seed": str(seed)})
    services.log_params({"study": name, "seed": seed, "recipe": recipe.model_dump()})
    try:
        with watched(services, ablate.stalled_after_s):
            trained = run_trainer(
                lambda: make_trainer(train_worker, job, services), services.store
            ).return_value
    except Exception:
        services.monitor.finish(services.run_id, "FAILED")
        raise
    history = [EpochRecord.model_validate(record) for record in trained["history"]]
    outcome = {
        "metrics": history[-1].metrics,
        "curve": [record.metrics["loss"] for record in history],
        "num_parameters": trained["num_parameters"],
        "seconds": sum(record.seconds for record in history),
    }
    services.log_metrics([(0, history[-1].labelled())])
    services.monitor.finish(services.run_id, "FINISHED")
    ray.tune.report({"outcome": outcome})


def _trial_share(config: AblateConfig) -> Any:
    """Return what each trial's own process is given."""
    import ray.tune

    if config.num_workers:
        # It only waits: a share of a CPU would keep workers that need all CPUs out for ever, and
        # Tune refuses a request for nothing, so it asks for one byte of memory.
        return ray.tune.PlacementGroupFactory([{"memory": 1}])
    check_cpus(config.cpus_per_worker, "a trial")
    gpus = {"GPU": 1} if use_gpu(config) else {}
    return ray.tune.PlacementGroupFactory([{"CPU": config.cpus_per_worker, **gpus}])


def _row(trial: tuple[str, int, dict[str, Any]], result: Any) -> Trial:
    name, seed, changes = trial
    outcome = (result.metrics or {}).get("outcome") if result is not None else None
    shown = {key: value for key, value in changes.items() if key != "seed"}
    if outcome is None:
        error = getattr(result, "error", None)
        reason = str(error).strip().splitlines()[-1] if error else "the trial did not end"
        return Trial(study=name, seed=seed, changes=shown, status="failed", reason=reason)
    return Trial(study=name, seed=seed, changes=shown, status="finished", **outcome)


def _trial_key(trial: Any) -> str:
    return f"{trial[0]}-seed{trial[1]}"


def _trial_name(trial: Any) -> str:
    return _trial_key(trial.config["trial"])


def _progress_callback(services: Services, total: int) -> Any:
    """Return a Tune callback that counts the trials that ended."""
    import ray.tune

    class CountTrials(ray.tune.Callback):
        def __init__(self) -> None:
            self.ended = 0

        def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
            self.ended += 1
            services.progress(self.ended, total, "trials", f"{trial} finished")

        def on_trial_error(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
            self.ended += 1
            services.progress(self.ended, total, "trials", f"{trial} FAILED")

    return CountTrials()
