"""The Ray trainer that ``train`` and ``ablate`` start: its size, its place, its restarts."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from cluster.errors import ClusterError, StoreUnavailable, from_os_error
from cluster.placement import release_orphans
from cluster.services import Services
from cluster.storage import ObjectStore
from densedepth.errors import DepthError
from stages.artifacts import ShardSet
from stages.recipe import Recipe
from stages.scaling import ScalingSettings, check_cpus, use_gpu
from stages.settings import Settings
from stages.worker_count import WorkerCount, counted_trainer

EPOCH_VIEW = "stages.epoch_view"
"""Loaded by name: what it shows decides no weights, and makes no training stale; but an ablation
whose table it makes (``ablate.loads``)."""


PATIENCE_S = 300.0
"""How long a training waits for a store that does not answer."""
WORKED_S = 120.0
"""A try that lasted so long had the store: if it is gone now, the wait begins anew."""
NAMED = (ValueError, DepthError, ClusterError)
"""Errors that say what was wrong; others may only be its consequence on another rank."""


class TrainJob(Settings):
    """All that a worker must know; travels as JSON."""

    recipe: Recipe
    scaling: ScalingSettings
    shards: ShardSet

    @property
    def keeps_best(self) -> bool:
        """Whether the best validation loss chooses the network; else the last is kept."""
        return self.recipe.keep == "best" and "val" in self.shards.splits


def make_trainer(
    worker: Callable[[dict[str, Any]], Any],
    job: TrainJob,
    services: Services,
) -> Any:
    """Return a ``TorchTrainer`` that runs the job, or goes on with it after a restart.

    Ray's folder for it is named by ``services.key``: the same job after a driver's death finds
    its checkpoints, another job never does. With no workers ``fit`` trains in the calling process
    (Ray Train's local mode), on what that process was given, and keeps no checkpoint.
    """
    import ray.train
    from ray.train.torch import TorchConfig

    release_orphans()  # of this training's last try, if its controller died
    scaling = job.scaling
    least = scaling.min_workers or scaling.num_workers
    check_cpus(least * scaling.cpus_per_worker, f"{least} workers")
    gpu = use_gpu(scaling)
    location, filesystem = services.store.ray_location("ray")
    score = "val_loss" if job.keeps_best else None
    each = {"CPU": scaling.cpus_per_worker, **({"GPU": 1} if gpu else {})}
    max_wait_s = None if scaling.max_wait_min is None else 60 * scaling.max_wait_min
    return counted_trainer(
        WorkerCount(least, scaling.num_workers, each, max_wait_s, services.stage),
        partial(say_waiting, services, scaling.num_workers),
        train_loop_per_worker=worker,
        train_loop_config={"job": job.model_dump_json(), "services": services},
        scaling_config=ray.train.ScalingConfig(
            num_workers=(least, scaling.num_workers) if scaling.min_workers else least,
            use_gpu=gpu,
            resources_per_worker=each,
        ),
        torch_config=TorchConfig(timeout_s=int(60 * scaling.max_step_min)),
        run_config=ray.train.RunConfig(
            name=services.key.replace("/", "-"),
            storage_path=location,
            storage_filesystem=filesystem,
            failure_config=ray.train.FailureConfig(max_failures=scaling.max_failures),
            checkpoint_config=ray.train.CheckpointConfig(
                num_to_keep=1,
                checkpoint_score_attribute=score,
                checkpoint_score_order="min" if score else "max",
            ),
            callbacks=[_after_failures(services, scaling.num_workers)],
        ),
    )


def say_waiting(services: Services, num_workers: int, text: str) -> None:
    """Say that a training waits for workers; those that it had do not hang, but are gone."""
    _forget_ranks(services, num_workers)
    services.say(text)


def _forget_ranks(services: Services, num_workers: int) -> None:
    for rank in range(num_workers):
        services.end_beats(rank)


def is_curable(error: Exception) -> bool:
    """Say whether a training whose worker raised this may do better in new processes."""
    if isinstance(error, ClusterError):
        return error.retryable
    return not isinstance(error, ValueError | DepthError)


def _after_failures(services: Services, num_workers: int) -> Any:
    """Return what Ray's controller calls when workers have failed, before it starts others."""
    import ray.train

    class AfterFailures(ray.train.UserCallback):
        def after_exception(
            self, run_context: Any, worker_exceptions: dict[int, Exception]
        ) -> None:
            _forget_ranks(services, num_workers)
            for _, error in sorted(worker_exceptions.items()):
                cause = getattr(error, "_base_exc", error)
                if not is_curable(cause):
                    raise cause

    return AfterFailures()


def run_trainer(make: Callable[[], Any], store: ObjectStore) -> Any:
    """Make a trainer and run it to its end; a worker's own error comes out as itself.

    Ray would show a traceback of its own. Of several ranks' errors the one that names a cause is
    raised: the others often just lost the connection to the rank that failed. Ray's controller
    does not survive a store that is gone; the training then goes on as soon as it is back.

    Args:
        make: as ``make_trainer``.
        store: where Ray keeps the training.

    Raises:
        StoreUnavailable: the store did not answer for ``PATIENCE_S``.
    """
    gone_since_s, pause_s = time.monotonic(), 1.0
    while True:
        began_s = time.monotonic()
        try:
            store.stat("ray")  # a moment; a controller that fails for it takes many
            return _fit(make(), store.url_of("ray"))
        except StoreUnavailable:
            now_s = time.monotonic()
            if now_s - began_s > WORKED_S:
                gone_since_s, pause_s = now_s, 1.0
            if now_s - gone_since_s > PATIENCE_S:
                raise
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, 15.0)


def _fit(trainer: Any, store_url: str) -> Any:
    import ray.exceptions
    import ray.train

    try:
        return trainer.fit()
    except ray.train.WorkerGroupError as error:
        failures = [error.worker_failures[rank] for rank in sorted(error.worker_failures)]
        causes = [getattr(failure, "_base_exc", failure) for failure in failures]
        named = [cause for cause in causes if isinstance(cause, NAMED)]
        raise _of_store([*named, *causes][0], store_url) from error
    except ray.train.ControllerError as error:
        cause = error.controller_failure
        raise (
            _of_store(cause, store_url) if isinstance(cause, (*NAMED, OSError)) else error
        ) from None
    except ray.exceptions.ActorDiedError as error:
        release_orphans()  # what the controller asked for, and others could have
        # A controller begins by reading what an earlier one kept; Ray tells why it could not as
        # text only, whose last line is the error.
        reason = str(error).strip().rpartition("\n")[2]
        if not error.actor_init_failed or "AWS Error" not in reason:
            raise
        raise from_os_error(OSError(reason), store_url, writing=False) from error
    except OSError as error:
        raise _of_store(error, store_url) from error


@contextmanager
def opened(checkpoint: Any, store_url: str) -> Iterator[Path]:
    """Open one of Ray's checkpoints as a folder.

    Raises:
        StorageError: the store does not give it.
    """
    with ExitStack() as stack:
        try:
            folder = stack.enter_context(checkpoint.as_directory())
        except OSError as error:
            raise from_os_error(error, store_url, writing=False) from error
        yield Path(folder)


def _of_store(error: Exception, store_url: str) -> Exception:
    """Name an error of Ray's own reading and writing in the store."""
    is_network = isinstance(error, ConnectionError | TimeoutError)
    if not isinstance(error, OSError) or is_network:
        return error
    return from_os_error(error, store_url, writing=True)
