"""When a training saves its state, and how it gets into the store while training goes on."""

import shutil
import tempfile
import threading
import time
from copy import deepcopy
from pathlib import Path
from typing import Any

from cluster.errors import from_os_error
from cluster.services import Services
from stages.recipe import Recipe

PATIENCE_S = 300.0
"""How long an upload is tried again while the store does not answer."""
MAX_HELD = 2
"""States in memory or on the node's disk that are not in the store yet; a further save waits."""
LOOK_EVERY_S = 5.0
"""Seconds between two looks at the clock, where steps are not longer."""


class SaveClock:
    """Says after which steps the state is saved; every rank comes to the same answer.

    The time, and whether a node will be taken, are looked at about every ``LOOK_EVERY_S``: ranks
    meet for it, which short steps must not pay for each time.

    Args:
        every_steps: save after each so many steps.
        every_s: save when so much time has passed.
        look_every_steps: steps between two looks, at most.
        world_size: ranks in all; rank 0's clock decides.
    """

    def __init__(
        self,
        every_steps: int | None,
        every_s: float | None,
        look_every_steps: int,
        world_size: int,
    ) -> None:
        self.every_steps = every_steps
        self.every_s = every_s
        self.look_every_steps = look_every_steps
        self.world_size = world_size
        self.saved = self.looked = time.monotonic()
        self.steps, self.steps_to_look = 0, 1
        self.answer: Any = None  # an ``OnItsWay``
        self.is_warned = False
        # GPUs would stand still for an answer that is read at once.
        self.is_ahead = world_size > 1 and _meets_on_gpus()
        self.device = "cuda" if self.is_ahead else "cpu"

    def is_due(self, step: int | None) -> bool:
        """Say whether to save after this step; None = in a validation, where none is done."""
        is_due = bool(self.every_steps and step is not None and step % self.every_steps == 0)
        self.steps += 1
        if self.answer is None and self.steps >= self.steps_to_look:
            is_due = self._is_warned_anew() or is_due
            self.answer = self._ask()
        if self.answer is not None and not (self.is_ahead and self.steps == 0):
            is_late, steps_to_look = self.answer.arrived().tolist()
            self.answer, self.steps_to_look = None, int(steps_to_look)
            is_due = bool(is_late) or is_due
        if is_due:
            self.saved = time.monotonic()
        return is_due

    def _ask(self) -> Any:
        """Let rank 0 say whether it is time, and how many steps it is to the next look."""
        import torch
        import torch.distributed as dist

        from densedepth.on_its_way import OnItsWay

        now = time.monotonic()
        step_s = max(1e-9, (now - self.looked) / self.steps)
        steps_to_look = max(1, min(self.look_every_steps, int(LOOK_EVERY_S / step_s)))
        is_late = self.every_s is not None and now - self.saved >= self.every_s
        # Filled, not copied: for a copy the host would wait.
        answer = torch.zeros(2, device=self.device)
        answer[0].fill_(is_late)
        answer[1].fill_(steps_to_look)
        if self.world_size > 1:
            dist.broadcast(answer, src=0)
        self.looked, self.steps = now, 0
        return OnItsWay(answer)

    def _is_warned_anew(self) -> bool:
        """Say whether Ray has just learnt that a node will be taken away; ranks agree on it."""
        import ray.train

        is_warned = ray.train.get_preemption_info() is not None
        is_new = is_warned and not self.is_warned
        self.is_warned = is_warned
        return is_new


class Saver:
    """Rank 0's checkpoints: copied, then written to the node's disk and uploaded in the background.

    Args:
        services: names the folder for what waits to be uploaded.
        recipe: goes beside the network.
    """

    def __init__(self, services: Services, recipe: Recipe) -> None:
        self.services = services
        self.recipe = recipe
        self.waiting = services.scratch / "saving" / services.key.replace("/", "-")
        shutil.rmtree(self.waiting, ignore_errors=True)  # of a process that died
        self._room = threading.Semaphore(MAX_HELD)

    def save(self, learner: Any, history: dict[str, Any], figures: dict[str, float]) -> None:
        """Report figures and everything that a restart needs; it is written in the background.

        Raises:
            StorageError: no folder can be made on the node's disk.
        """
        from ray.train import Checkpoint

        self._room.acquire()  # else a slow store would fill memory and disk with states
        try:
            self.waiting.mkdir(parents=True, exist_ok=True)
            folder = Path(tempfile.mkdtemp(dir=self.waiting))
        except OSError as error:
            raise from_os_error(error, str(self.waiting), writing=True) from error
        state = {**learner.snapshot(), **deepcopy(history)}
        failed: list[Exception] = []

        def keep(checkpoint: Any, name: str) -> Any:
            if failed:  # Ray tries again what S3 may only fail at for a moment: done here already
                raise failed[0]
            try:
                self._write(learner, state, folder)
                state.clear()
                return self._upload(checkpoint, name)
            except Exception as error:
                failed.append(error)
                raise
            finally:
                state.clear()
                shutil.rmtree(folder, ignore_errors=True)  # the disk may be full of it
                self._room.release()

        report(figures, Checkpoint.from_directory(folder), keep)

    def _write(self, learner: Any, state: dict[str, Any], folder: Path) -> None:
        """Write a state, and the network that is in it, to the node's disk.

        Raises:
            StorageError: the disk is full, or does not take it.
        """
        import torch

        from densedepth.checkpoint import save_network

        weights = state["network"] if state["ema"] is None else state["ema"]
        extra = {"input_size_px": list(self.recipe.input_size_px)}
        path = folder / "network.safetensors"
        try:
            with open(folder / "state.pt", "wb") as file:
                torch.save(state, file)
            save_network(learner.network, learner.depth_range, path, extra, weights=weights)
        except (OSError, RuntimeError) as error:
            # Where a write fails, torch raises an "unexpected pos" of its own on top of it.
            cause = error.__context__ if isinstance(error, RuntimeError) else error
            if not isinstance(cause, OSError):
                raise
            raise from_os_error(cause, str(folder), writing=True) from error

    def _upload(self, checkpoint: Any, name: str) -> Any:
        """Copy a checkpoint into Ray's folder in the store, and again while that is in vain.

        Raises:
            StorageError: the store is full, refuses, or did not answer for ``PATIENCE_S``.
        """
        import ray.train

        storage = ray.train.get_context().get_storage()
        began, pause_s = time.monotonic(), 1.0
        while True:
            try:
                return storage.persist_current_checkpoint(checkpoint, name)
            except OSError as error:
                named = from_os_error(error, self.services.store.url_of("ray"), writing=True)
                if not named.retryable or time.monotonic() - began > PATIENCE_S:
                    raise named from error
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, 15.0)


def _meets_on_gpus() -> bool:
    import torch.distributed as dist

    return bool(dist.get_backend() == "nccl")


def report(figures: dict[str, Any], checkpoint: Any = None, upload: Any = None) -> None:
    """Tell Ray; every rank calls it equally often. What is uploaded goes on in the background."""
    import ray.train
    from ray.train import CheckpointUploadMode

    ray.train.report(
        figures,
        checkpoint=checkpoint,
        checkpoint_upload_mode=CheckpointUploadMode.ASYNC,
        delete_local_checkpoint_after_upload=False,
        checkpoint_upload_fn=upload,
    )
