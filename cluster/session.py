"""A connection to Ray: a cluster that is there, or one started on this machine for the run."""

import contextlib
import importlib
import os
import re
import shutil
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

from cluster.errors import RayUnavailable
from cluster.monitor import Monitor, MonitorHandle
from cluster.resources import this_node
from cluster.tracking import TrackingConfig
from cluster.tracking_process import Address, tracking_process

PROJECT_ROOT = Path(__file__).resolve().parent.parent
_HOST_AND_PORT = re.compile(r"([\w.-]+|\[[0-9a-fA-F:]+\]):(\d{1,5})")
NAMESPACE = "depth"
"""Of all runs on a cluster: what one names (``placement.Asked``) no other can name meanwhile."""
PACKAGES = ("pipeline", "stages", "cluster", "densedepth")
"""The code that workers are given a copy of."""


class SessionConfig(BaseModel):
    """Which Ray to use."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    address: str | None = Field(
        None, description="auto, or HOST:PORT of a running cluster; none = start one here"
    )
    num_cpus: int | None = Field(
        None, ge=1, description="logical CPUs of a Ray started here; none = the machine's"
    )
    object_store_mb: int = Field(
        300, ge=80, description="shared memory of a Ray started here; bulk data does not pass it"
    )

    @field_validator("address")
    @classmethod
    def _check_address(cls, address: str | None) -> str | None:
        if address and address != "auto" and not _HOST_AND_PORT.fullmatch(address):
            raise ValueError("give auto, or HOST:PORT of a cluster's GCS, such as head:6379")
        return address


class Session:
    """An open connection; stages run as its tasks, on the driver's node."""

    def __init__(
        self, tracking: TrackingConfig, artifact_root: Path | None, process: Address | None
    ) -> None:
        import ray

        here, _ = this_node()
        # A thread each: calls of a caller are done in their order, and MLflow never holds up
        # the display.
        groups = ray.remote(concurrency_groups={"track": 1, "show": 1})(Monitor)
        actor = groups.options(num_cpus=0, scheduling_strategy=here, max_restarts=0)
        self._here = here
        self._tasks: dict[Any, Any] = {}
        self.monitor = MonitorHandle(actor.remote(tracking, artifact_root, process), remote=True)

    def prepare(self, module: str) -> None:
        """Start a process for the first task, and import a module there, without waiting."""
        self._prepared = self.submit(_import, module)

    def submit(self, function: Callable[..., Any], *args: Any) -> Any:
        """Start a function as a task on this node, without claiming a CPU; returns its handle."""
        import ray

        if function not in self._tasks:  # each one made is sent to the cluster, and to its workers
            self._tasks[function] = ray.remote(function).options(
                num_cpus=0, max_retries=0, scheduling_strategy=self._here
            )
        return self._tasks[function].remote(*args)

    def wait(self, handles: Sequence[Any], timeout_s: float) -> list[Any]:
        """Return handles that are done, as soon as there is one, after at most ``timeout_s``."""
        import ray

        done, _ = ray.wait(list(handles), num_returns=1, timeout=timeout_s)
        return list(done)

    def result(self, handle: Any) -> Any:
        """Return what the function returned, or raise what it raised (its own error, not Ray's)."""
        import ray
        from ray.exceptions import RayTaskError

        try:
            return ray.get(handle)
        except RayTaskError as error:
            cause = error.cause
            if isinstance(cause, Exception):
                raise cause from error
            raise

    def cancel(self, handle: Any, force: bool = False) -> None:
        """Stop a task and the tasks that it started; by force its process is killed."""
        import ray

        ray.cancel(handle, force=force, recursive=True)


def cluster_address(config: SessionConfig) -> str | None:
    """Return the address of the cluster that a session uses; None = one is started here."""
    if is_job():
        return "auto"
    return config.address or os.environ.get("RAY_ADDRESS")


def is_job() -> bool:
    """Say whether this process is a Ray job's, whose code is the copy that the job brought."""
    return "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ


@contextlib.contextmanager
def open_session(
    config: SessionConfig,
    tracking: TrackingConfig,
    artifact_root: Path | None = None,
    module: str | None = None,
) -> Iterator[Session]:
    """Connect to Ray, or start it; leave it as it was found.

    Inside a Ray job the job's cluster is used whatever the configuration says.

    Args:
        config: which Ray.
        tracking: MLflow's server and experiment; without an address nothing is tracked yet.
        artifact_root: where MLflow's files go with an sqlite URI.
        module: whose functions will be submitted: what the first task needs is made ready.

    Raises:
        RayUnavailable: nothing can be reached there, or it turns this process away.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # Many small processes on few cores are meant here; Ray would warn of them on the terminal.
    os.environ.setdefault("RAY_worker_maximum_startup_concurrency", "8")
    with contextlib.ExitStack() as stack:
        process = None
        if tracking.uri:  # starts now, for importing Ray takes a while, too
            process = stack.enter_context(tracking_process(tracking, artifact_root))
        import ray

        if not ray.is_initialized():
            address = cluster_address(config)
            if address:
                check_address(address)
            with _own_signals():
                try:
                    _connect(config, address)
                except Exception as error:  # of many kinds, Ray's and the system's, even ValueError
                    ray.shutdown()
                    reason = f"{type(error).__name__}: {str(error).strip() or 'without a word'}"
                    raise RayUnavailable(address or "a Ray started here", reason) from error
            stack.callback(ray.shutdown)
        session = Session(tracking, artifact_root, process)
        if module is not None:
            session.prepare(module)
        yield session


def _import(module: str) -> None:
    importlib.import_module(module)


def check_address(address: str, attempts: int = 3) -> None:
    """Make sure that something listens at ``HOST:PORT``; Ray itself would try for minutes.

    Raises:
        RayUnavailable: nothing does.
    """
    match = _HOST_AND_PORT.fullmatch(address)
    if match is None:  # auto: Ray looks for one on this machine, and says at once if there is none
        return
    for attempt in range(1, attempts + 1):
        try:
            socket.create_connection((match[1].strip("[]"), int(match[2])), timeout=5).close()
            return
        except (OSError, OverflowError) as error:
            if attempt == attempts:
                raise RayUnavailable(address, f"no Ray answers ({error})") from error
        time.sleep(attempt)


def _connect(config: SessionConfig, address: str | None) -> None:
    """Connect to Ray with a copy of the code: what is edited from now on changes no worker's."""
    import ray

    variables = {"MLFLOW_DISABLE_TELEMETRY": "true", "PYTHONWARNINGS": "ignore"}
    said: dict[str, Any] = {"log_to_driver": False, "logging_level": "warning"}
    if is_job():
        ray.init(namespace=NAMESPACE, runtime_env={"env_vars": variables}, **said)
        return
    with tempfile.TemporaryDirectory() as folder:  # Ray packs it and keeps the package
        _copy_code(Path(folder))
        environment: dict[str, Any] = {"working_dir": folder, "env_vars": variables}
        if address:
            ray.init(address=address, namespace=NAMESPACE, runtime_env=environment, **said)
            return
        paths = [str(PROJECT_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        variables["PYTHONPATH"] = os.pathsep.join(paths)  # behind the copy
        # No one takes this machine away: save each training the process that watches for it.
        variables["RAY_TRAIN_ENABLE_PREEMPTION_WATCHER"] = "0"
        _start_here(
            address="local",  # else Ray joins whatever somebody else started on this machine
            num_cpus=config.num_cpus,
            include_dashboard=False,
            object_store_memory=config.object_store_mb * 2**20,
            runtime_env=environment,
            log_to_driver=False,
            logging_level="error",
        )


def _copy_code(folder: Path) -> None:
    """Copy what workers import, and nothing else that may lie beside it."""
    for package in PACKAGES:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(PROJECT_ROOT / package, folder / package, ignore=ignored)


@contextlib.contextmanager
def _own_signals() -> Iterator[None]:
    """Keep this process's answer to SIGTERM: Ray puts one in its place that kills its processes.

    The monitor among them, before it could mark the runs as KILLED, and it exits with 1. While Ray
    starts, its answer comes first, for it ends what was started, and then this process's own.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    except SystemExit:  # nothing but Ray's answers to SIGTERM exits in there
        signal.signal(signal.SIGTERM, before)
        signal.raise_signal(signal.SIGTERM)
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


def _start_here(attempts: int = 3, **arguments: Any) -> None:
    """Start Ray on this machine; a busy one can need more than the 30 s that Ray gives itself."""
    import ray

    for attempt in range(1, attempts + 1):
        try:
            ray.init(**arguments)
            return
        except Exception as error:
            ray.shutdown()
            if attempt == attempts or "timed out during startup" not in str(error):
                raise
