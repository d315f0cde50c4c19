"""What each Ray Train worker executes: the seam between Ray and plain PyTorch.

Shared by ``train`` and ``ablate``. The loop itself is ``densedepth.training.fit``.
"""

import json
import math
import sys
import tempfile
from dataclasses import asdict, replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from cluster.services import Services
from stages.artifacts import EpochRecord
from stages.heartbeat import Heart
from stages.learner_setup import make_learner
from stages.saving import SaveClock, Saver, report
from stages.stored_shards import stored_shards
from stages.trainer import EPOCH_VIEW, TrainJob, opened


def train_worker(config: dict[str, Any]) -> dict[str, Any]:
    """Train on this rank, from the last saved state where there is one.

    Every rank reports after every epoch and whenever the state is saved, rank 0 with the state.

    Returns:
        ``history`` (the epochs' records), ``skipped`` steps and ``num_parameters``.
    """
    import ray.train.torch
    import torch

    from densedepth.precision import set_float32
    from densedepth.training import LOG_EVERY_STEPS, Listeners, fit

    job: TrainJob = TrainJob.model_validate_json(config["job"])
    services: Services = config["services"]
    run = _Run(job, services, ray.train.torch.get_device())
    if run.device.type == "cpu":
        torch.set_num_threads(
            job.scaling.threads_per_worker or max(1, int(job.scaling.cpus_per_worker))
        )
    set_float32(job.recipe.speed.precision)
    run.begin()
    clock = SaveClock(
        job.scaling.checkpoint_every_steps,
        job.scaling.checkpoint_every_s,
        LOG_EVERY_STEPS,
        run.world_size,
    )
    listeners = Listeners(
        on_step=run.on_step,
        on_epoch=run.on_epoch,
        on_skip=run.on_skip,
        on_save=run.on_save,
        on_validated=run.on_validated,
        is_save_due=(lambda step: False) if run.in_own_trial else clock.is_due,
    )
    with run.heart:
        fit(
            run.learner,
            epochs=job.recipe.epochs,
            train=lambda epoch, sample: run.heart.waiting(run.batches(epoch, sample)),
            validation=run.validation(),
            listeners=listeners,
            profiler=run.profiler(),
        )
    return {**run.told, "num_parameters": run.learner.network.num_trainable}


class _Run:
    """One rank's training: its data, its learner, and what it tells whom."""

    def __init__(self, job: TrainJob, services: Services, device: Any) -> None:
        import ray.train

        self.job, self.services, self.device = job, services, device
        self.rank, self.world_size, self.checkpoint = 0, 1, None
        # A trial with no workers of its own: inside Ray Tune, where ray.train does not answer.
        self.in_own_trial = job.scaling.num_workers == 0
        if not self.in_own_trial:
            context = ray.train.get_context()
            self.rank, self.world_size = context.get_world_rank(), context.get_world_size()
            self.checkpoint = ray.train.get_checkpoint()
        self.heart = Heart(services, self.rank, self.world_size)
        store, scratch, splits = services.store, services.scratch, job.shards.splits
        self.train_shards = stored_shards(
            store, splits["train"], scratch, job.scaling.max_train_samples
        )
        self.val_shards = stored_shards(store, splits["val"], scratch) if "val" in splits else None
        # What has been told so far; saved with the state.
        self.told: dict[str, list[dict[str, Any]]] = {"history": [], "skipped": []}

    def begin(self) -> None:
        """Make the learner, and go on where the last saved state was."""
        import torch

        self.learner = make_learner(
            self.job, self.device, self.train_shards.num_used, self.world_size
        )
        if self.rank == 0 and not self.in_own_trial:
            self.saver = Saver(self.services, self.job.recipe)
        if self.checkpoint is not None:
            with opened(self.checkpoint, self.services.store.url_of("ray")) as folder:
                state = torch.load(folder / "state.pt", map_location=self.device, weights_only=True)
            self.learner.load_state(state)
            self.told = {name: state[name] for name in self.told}
        if self.rank == 0:
            self._show(f"{self.world_size} worker{'s' if self.world_size != 1 else ''}")

    def batches(self, epoch: int, next_sample: int) -> Any:
        """Return this rank's batches of an epoch from a sample on."""
        from densedepth.data.batch_plans import TrainBatches
        from densedepth.data.loader import BatchLoader

        return BatchLoader(
            TrainBatches(
                self.train_shards,
                seed=self.job.recipe.seed,
                epoch=epoch,
                rank=self.rank,
                world_size=self.world_size,
                global_batch_size=self.job.recipe.global_batch_size,
                input_size_px=self.job.recipe.input_size_px,
                next_sample=next_sample,
            ),
            loader_processes=self.job.scaling.loader_processes,
            pin_memory=self.device.type == "cuda",
        )

    def validation(self) -> Any:
        """Return the validation split, this rank's part of every round through it."""
        from densedepth.data.batch_plans import ValidationBatches
        from densedepth.data.loader import BatchLoader
        from densedepth.validation import NO_VALIDATION, ValidationSplit

        if self.val_shards is None:
            return NO_VALIDATION
        recipe, protocol = self.job.recipe, self.job.scaling.protocol
        all_of_it = ValidationBatches(
            self.val_shards,
            rank=self.rank,
            world_size=self.world_size,
            batch_size=max(1, recipe.global_batch_size // self.world_size),
            input_size_px=recipe.input_size_px,
        )

        def batches(next_sample: int) -> Any:
            loader = BatchLoader(
                replace(all_of_it, next_sample=next_sample),
                loader_processes=self.job.scaling.loader_processes,
                pin_memory=self.device.type == "cuda",
            )
            return self.heart.waiting(loader)

        split = ValidationSplit(self.val_shards.num_used, all_of_it.round_size, batches)
        if protocol is None:
            return split
        view = import_module(EPOCH_VIEW)

        def scored(next_sample: int) -> Any:
            rest = replace(all_of_it, next_sample=next_sample)
            return view.score_rounds(self.learner, rest, protocol, self.heart.waiting)

        return replace(split, scored=scored, new_table=partial(view.new_table, protocol))

    def on_step(self, record: Any) -> None:
        """Tell the figures of the last steps."""
        if self.rank:
            return
        metrics = {f"step/{name}": value for name, value in record.metrics.items()}
        self.services.log_metrics([(record.step, metrics)])
        m = record.metrics
        words = [f"loss {m['loss']:.3f}"] if "loss" in m else []
        words += [f"{m['images_per_second']:.1f} images/s", f"data {m['data_wait_share']:.0%}"]
        words += [f"{m['skipped_steps']:.0f} steps skipped"] if m["skipped_steps"] else []
        self._show(", ".join(words))

    def on_skip(self, skipped: Any) -> None:
        """Keep which samples gave no number."""
        self.told["skipped"].append(asdict(skipped))
        if self.rank == 0:
            lines = [json.dumps(line) + "\n" for line in self.told["skipped"]]
            self.services.log_bytes("skipped_steps.jsonl", "".join(lines).encode())

    def on_validated(self, num_done: int, num_samples: int) -> None:
        """Show how far a validation is."""
        if self.rank == 0:
            self._show(f"validated {num_done} of {num_samples} frames")

    def on_save(self) -> None:
        """Save the state in the middle of an epoch or of its validation."""
        progress = self.learner.progress
        # Ray ranks by val_loss: a state in mid-epoch is never the best.
        figures = {"epoch": self.learner.epoch, "step": self.learner.step, "val_loss": math.inf}
        figures |= {"next_sample": progress.next_sample, "validated": progress.validated}
        self._report(figures)

    def on_epoch(self, result: Any) -> None:
        """Tell and save what the epoch came to."""
        record = EpochRecord(
            epoch=result.epoch,
            step=result.step,
            train_loss=result.train_loss,
            metrics=result.metrics,
            seconds=result.seconds,
        )
        self.told["history"].append(record.model_dump())
        figures = {"train_loss": result.train_loss} | record.labelled()
        if self.rank == 0:
            told = {f"epoch/{name}": value for name, value in figures.items()}
            self.services.log_metrics([(result.epoch, told)])
            self._draw(result.epoch)
        if not self.in_own_trial:
            self._report({**figures, "epoch": result.epoch, "step": result.step})

    def profiler(self) -> Any:
        """Return what traces some steps of rank 0, where that is asked for."""
        num_steps = self.job.scaling.profile_steps
        if not num_steps or self.rank:
            return None
        from densedepth.profiling import step_profiler

        def keep(path: Path) -> None:
            self.services.log_bytes("trace.json.gz", path.read_bytes())

        folder = Path(tempfile.mkdtemp(dir=self.services.scratch))
        profiler = step_profiler(num_steps, folder / "trace.json.gz", keep)
        profiler.start()
        return profiler

    def _show(self, text: str) -> None:
        num_steps = self.learner.settings.schedule.num_steps
        self.services.progress(self.learner.step, num_steps, "steps", text)

    def _report(self, figures: dict[str, Any]) -> None:
        if not math.isfinite(figures.get("val_loss", 0.0)):
            # Ray keeps figures as JSON without infinity: it could not read its own list again.
            figures["val_loss"] = sys.float_info.max
        if self.rank == 0:
            self.saver.save(self.learner, self.told, figures)
        else:
            report(figures)

    def _draw(self, epoch: int) -> None:
        """Draw the same validation frames after each epoch."""
        scaling = self.job.scaling
        if self.val_shards is None or not scaling.num_panel_frames:
            return
        picture = import_module(EPOCH_VIEW).draw_epoch(
            self.learner,
            self.val_shards,
            scaling.protocol,
            self.job.recipe.input_size_px,
            scaling.num_panel_frames,
        )
        self.services.log_bytes(f"panels/epoch-{epoch:03d}.jpg", picture)
