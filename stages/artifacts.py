"""The values on the DAG's edges: small, frozen, saved as JSON; bytes stay in the object store."""

from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from cluster.services import Services
from cluster.storage import ObjectRef


class Value(BaseModel):
    """An artifact, or a part of one; numbers that are none, as of a diverged loss, are kept."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")


class Artifact(Value):
    """What a stage hands on."""

    def objects(self) -> tuple[ObjectRef, ...]:
        """Every object in the store that must be there, whole, for this artifact to hold."""
        return ()

    def summary(self) -> dict[str, float]:
        """The few numbers that a person compares between runs."""
        return {}


class ShardSplit(Value):
    """One split of a sharded data set.

    Attributes:
        manifest: the JSON object that lists the shards; its digest is the split's version.
        shards: the tars, in the manifest's order.
        indexes: where each tar's samples lie, in the same order.
        num_samples_per_shard: frames of each shard, in the same order.
    """

    manifest: ObjectRef
    shards: tuple[ObjectRef, ...]
    indexes: tuple[ObjectRef, ...]
    num_samples_per_shard: tuple[int, ...]

    @property
    def num_samples(self) -> int:
        """Frames in all shards."""
        return sum(self.num_samples_per_shard)


class SkippedFrame(Value):
    """A frame that sharding left out, and why."""

    split: str
    frame: str
    reason: str


class ShardSet(Artifact):
    """A data set in the object store, ready to be streamed.

    Attributes:
        dataset: the branch's name, ``nyu`` or ``kitti``.
        min_depth_m: nearest depth that the network is asked for.
        max_depth_m: farthest depth that the network is asked for.
        rendered: whether the frames are made-up scenes in the data set's layout.
        ground_truth: what its test depth is (``densedepth.sample.TruthKind``).
        dense: whether every training pixel has a depth (in-painted); if not, losses are masked.
        measured_m: of the measured depth of a few training frames, what 1 % is nearer than, half,
            and 99 %, in metres; None where none could be read.
        splits: ``train``, ``val`` and ``test``.
        skipped: frames that were left out.
    """

    kind: Literal["shard_set"] = "shard_set"
    dataset: str
    min_depth_m: float
    max_depth_m: float
    rendered: bool
    ground_truth: str
    dense: bool
    measured_m: tuple[float, float, float] | None = None
    splits: dict[str, ShardSplit]
    skipped: tuple[SkippedFrame, ...] = ()

    def objects(self) -> tuple[ObjectRef, ...]:
        """Manifests, tars and indexes of all splits."""
        return tuple(
            ref
            for split in self.splits.values()
            for ref in (split.manifest, *split.shards, *split.indexes)
        )

    def log_use(self, services: Services, splits: Iterable[str]) -> None:
        """Say in a stage's MLflow run which data it uses: each split's manifest and digest."""
        for split in splits:
            if split in self.splits:
                manifest = self.splits[split].manifest
                services.log_dataset(f"{self.dataset}-{split}", manifest, split)

    def summary(self) -> dict[str, float]:
        """Frames by split, frames left out, and the middle of measured depth in metres."""
        counts = {f"num_{name}": float(s.num_samples) for name, s in self.splits.items()}
        median = {"median_depth_m": self.measured_m[1]} if self.measured_m else {}
        return {**counts, "num_skipped": float(len(self.skipped)), **median}


class EpochRecord(Value):
    """What one epoch of training came to.

    Attributes:
        epoch: counted from 0.
        step: steps taken since the training began.
        train_loss: mean over the epoch's steps.
        metrics: of the validation frames: ``loss``, and the per-image mean of each metric.
        seconds: what the epoch took, validation included.
    """

    epoch: int
    step: int
    train_loss: float
    metrics: dict[str, float]
    seconds: float

    def labelled(self) -> dict[str, float]:
        """The validation's figures as they are shown: a metric's name says how it was averaged."""
        return {
            "val_loss" if name == "loss" else f"val_per_image_{name}": value
            for name, value in self.metrics.items()
        }


class Checkpoint(Artifact):
    """A trained network.

    Attributes:
        network: the safetensors file with settings and depth range in its header.
        recipe: the recipe it was trained by, JSON-ready.
        best_epoch: the epoch that the network is from.
        epochs: the curve, one record an epoch.
        num_parameters: trainable parameters.
        train_seconds: wall time from the first step to the last.
        num_workers: DDP ranks, at most.
        num_skipped_steps: steps whose loss or gradient was no number.
    """

    kind: Literal["checkpoint"] = "checkpoint"
    dataset: str
    network: ObjectRef
    recipe: dict[str, object]
    best_epoch: int
    epochs: tuple[EpochRecord, ...]
    num_parameters: int
    train_seconds: float
    num_workers: int
    num_skipped_steps: int = 0

    def objects(self) -> tuple[ObjectRef, ...]:
        """The network's file."""
        return (self.network,)

    def summary(self) -> dict[str, float]:
        """The kept epoch's validation metrics."""
        best = next(r for r in self.epochs if r.epoch == self.best_epoch)
        return {
            "best_epoch": float(self.best_epoch),
            "train_seconds": self.train_seconds,
            "skipped_steps": float(self.num_skipped_steps),
            **best.labelled(),
        }


class Trial(Value):
    """One trial of an ablation: a study with one seed.

    Attributes:
        study: ``baseline`` or the study's name.
        changes: what differs from the baseline's recipe.
        status: ``finished`` or ``failed``.
        metrics: validation metrics after the last epoch; empty for a failed trial.
        curve: validation loss after each epoch.
    """

    study: str
    seed: int
    changes: dict[str, object]
    status: Literal["finished", "failed"]
    reason: str = ""
    metrics: dict[str, float] = Field(default_factory=dict)
    curve: tuple[float, ...] = ()
    num_parameters: int = 0
    seconds: float = 0.0


class AblationTable(Artifact):
    """Studies beside their baseline, all trained by the same shortened recipe."""

    kind: Literal["ablation_table"] = "ablation_table"
    dataset: str
    recipe: dict[str, object]
    trials: tuple[Trial, ...]

    def studies(self) -> dict[str, tuple[Trial, ...]]:
        """Trials by study, the baseline first."""
        names = list(dict.fromkeys(t.study for t in self.trials))
        names.sort(key=lambda name: name != "baseline")
        return {n: tuple(t for t in self.trials if t.study == n) for n in names}

    def mean_metric(self, study: str, metric: str) -> float | None:
        """Mean of a metric over the study's finished seeds; None without one."""
        values = [t.metrics[metric] for t in self.studies()[study] if metric in t.metrics]
        return sum(values) / len(values) if values else None

    def summary(self) -> dict[str, float]:
        """Validation delta1 of each study: the mean of its seeds' per-image means."""
        means = {name: self.mean_metric(name, "delta1") for name in self.studies()}
        return {f"{name}_per_image_delta1": v for name, v in means.items() if v is not None}


class Picture(Value):
    """A picture in the store, with what stands under it."""

    image: ObjectRef
    caption: str


class EvalReport(Artifact):
    """A network's figures on a split, under a named protocol.

    Attributes:
        frames_sha256: digest of the split's manifest: which frames were scored.
        protocol: the protocol's settings, as printed in the report.
        protocol_text: the same as a paragraph.
        per_image_mean: the mean of the images' own values: the field's convention.
        pooled: over all pixels at once: DenseDepth's later code.
        constant_baseline: the best constant prediction's per-image means.
        intervals: 95 % bootstrap intervals over images of the per-image means.
        by_depth: metrics pooled within ranges of ground-truth depth.
        pictures: panels of input, ground truth, prediction, error.
    """

    kind: Literal["eval_report"] = "eval_report"
    dataset: str
    split: str
    frames_sha256: str = ""
    protocol: dict[str, object]
    protocol_text: str
    num_images: int
    num_skipped: int
    per_image_mean: dict[str, float]
    pooled: dict[str, float]
    constant_baseline: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    by_depth: tuple[dict[str, float], ...]
    pictures: tuple[Picture, ...]
    seconds_per_image: float

    def objects(self) -> tuple[ObjectRef, ...]:
        """The pictures."""
        return tuple(picture.image for picture in self.pictures)

    def summary(self) -> dict[str, float]:
        """The per-image means, and the constant's delta1 beside them."""
        means = {**self.per_image_mean, "constant_delta1": self.constant_baseline["delta1"]}
        return {f"per_image_{name}": value for name, value in means.items()}


class ReportFiles(Artifact):
    """The report in its three forms."""

    kind: Literal["report_files"] = "report_files"
    html: ObjectRef
    markdown: ObjectRef
    data: ObjectRef

    def objects(self) -> tuple[ObjectRef, ...]:
        """The three files."""
        return (self.html, self.markdown, self.data)


class RegisteredModel(Value):
    """One version in the model registry."""

    dataset: str
    name: str
    version: int
    alias: str
    uri: str
    reason: str = ""


class Registration(Artifact):
    """What was put into the model registry, and what a gate kept out (version 0)."""

    kind: Literal["registration"] = "registration"
    models: tuple[RegisteredModel, ...]


AnyArtifact = Annotated[
    ShardSet | Checkpoint | AblationTable | EvalReport | ReportFiles | Registration,
    Field(discriminator="kind"),
]
