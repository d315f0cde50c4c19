"""Raw frames -> ShardSet: list and check frames, write tars to the store in parallel tasks."""

from __future__ import annotations

import itertools
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from cluster.resources import this_node
from cluster.services import Services
from cluster.storage import ObjectStore
from densedepth.errors import BadFrameError, DataError
from stages.artifacts import ShardSet, ShardSplit, SkippedFrame
from stages.manifest import make_manifest, publish_manifest
from stages.settings import Settings, anchored, one_of
from stages.shard_jobs import JobList, source_marks, write_jobs
from stages.shard_scenes import SyntheticConfig, make_scenes
from stages.shard_tasks import in_parallel
from stages.shard_writer import RawData, ShardResult, ShardWriter

if TYPE_CHECKING:
    from densedepth.data.measured import MeasuredDepth
    from densedepth.sample import Reader, TruthKind

FORMATS = ("nyu_densedepth", "nyu_labeled", "nyu_sync", "kitti_eigen", "image_pairs")
"""Names for checking settings without numpy; ``densedepth.data.formats`` has the readers."""
PATHS = ("train_list", "test_list", "annotated_root")
"""Options of readers that name files or folders."""


class ShardConfig(Settings):
    """Where a data set's raw frames are, and how they become shards."""

    format: str = Field(description="the raw layout, see docs/datasets.md")
    root: str = Field("", description="folder of the raw data set, readable on every node")
    options: dict[str, Any] = Field(
        default_factory=dict, description="further arguments of the format's reader"
    )
    synthetic: SyntheticConfig | None = Field(
        None, description="make the raw data set first, of rendered scenes, in root"
    )
    min_depth_m: float = Field(0.1, gt=0, description="nearest depth the network can say, metres")
    max_depth_m: float = Field(10.0, gt=0, description="farthest depth the network can say, metres")
    fill: Literal["none", "colorization"] = Field(
        "none", description="fill holes of training depth by Levin's colorization"
    )
    samples_per_shard: int = Field(256, ge=1, description="frames in a tar")
    max_bad_share: float = Field(
        0.02,
        ge=0,
        le=1,
        description="share of listed frames that are not there, and of frames that cannot be used, "
        "above which the stage stops",
    )
    min_within_share: float = Field(
        0.5,
        ge=0,
        le=1,
        description="share of measured training depth that must lie from min_depth_m to "
        "max_depth_m; below it the stage stops, as a wrong unit of depth is likely",
    )
    max_frames: int | None = Field(None, ge=1, description="frames of each split at most")

    @model_validator(mode="after")
    def _check(self) -> ShardConfig:
        for problem in problems(self.model_dump()):
            raise ValueError(problem)
        return self

    @field_validator("root")
    @classmethod
    def _anchor_root(cls, root: str) -> str:
        return anchored(root)

    @field_validator("options")
    @classmethod
    def _anchor_options(cls, options: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        """Anchor what is found from here; what lies below the root is looked for there first."""
        root = Path(info.data.get("root", "")).expanduser()
        paths = {name: options[name] for name in PATHS if isinstance(options.get(name), str)}
        here = {n: p for n, p in paths.items() if not (root / p).exists() and Path(p).exists()}
        return options | {name: anchored(path) for name, path in here.items()}

    @field_validator("format")
    @classmethod
    def _check_format(cls, name: str) -> str:
        return one_of(name, FORMATS, "format")


def problems(table: Mapping[str, Any]) -> list[str]:
    """Say what is wrong between the settings of one table, however many others are wrong too."""
    found = []
    near, far = (
        table.get(key, ShardConfig.model_fields[key].default)
        for key in ("min_depth_m", "max_depth_m")
    )
    if isinstance(near, int | float) and isinstance(far, int | float) and near >= far:
        found.append(
            f"the depth range is upside down: min_depth_m = {float(near)} is not below "
            f"max_depth_m = {float(far)}"
        )
    if not table.get("root"):
        found.append(
            "root is not set: give the folder of the raw data set, for instance "
            "shard.NAME.root=/data/nyu (docs/datasets.md says what must be in it)"
        )
    return found


def run(config: ShardConfig, services: Services) -> ShardSet:
    """Shard a data set.

    Raises:
        DataError: the raw data set is missing or empty, too many of its frames are bad, or its
            depth is not in the range that the network is asked for.
    """
    services.store.check_writable()
    services.log_params(config.model_dump(mode="json"))
    if config.synthetic:
        make_scenes(config.synthetic, config.format, Path(config.root), services)
    reader = _reader(config)
    with tempfile.TemporaryDirectory(prefix="frames-") as folder:
        jobs = _list_frames(config, reader, Path(folder) / "frames")
        _check_lines(config, jobs)
        measured = _check_unit(config, reader, jobs)
        results = _write_all(config, services, reader, jobs)
    splits: dict[str, ShardSplit] = {}
    for split in dict.fromkeys(job.split for job in jobs.jobs):
        parts = [r.shard for j, r in zip(jobs.jobs, results, strict=True) if j.split == split]
        entries = [part for part in parts if part is not None]
        if not entries:
            raise DataError(f"{config.root}: no frame of the {split} split can be used")
        depth_range_m = (config.min_depth_m, config.max_depth_m)
        manifest = make_manifest(split, depth_range_m, entries)
        splits[split] = publish_manifest(services.store, manifest)
    training = [r for j, r in zip(jobs.jobs, results, strict=True) if j.split == "train"]
    skipped = (*jobs.skipped, *(s for result in results for s in result.skipped))
    artifact = ShardSet(
        dataset=services.stage.partition(".")[2],
        min_depth_m=config.min_depth_m,
        max_depth_m=config.max_depth_m,
        rendered=config.synthetic is not None,
        ground_truth=reader.truth_kind,
        dense=all(result.is_dense for result in training),
        measured_m=measured and (measured.low_m, measured.median_m, measured.high_m),
        splits=splits,
        skipped=skipped,
    )
    services.log_metrics([(0, artifact.summary())])
    artifact.log_use(services, splits)
    listing = [s.model_dump() for s in skipped]
    services.log_bytes("skipped.json", json.dumps(listing, indent=1).encode())
    return artifact


def _list_frames(config: ShardConfig, reader: Reader, path: Path) -> JobList:
    """Cut the data set into shards, in a process of its own on this node."""
    import ray

    here, _ = this_node()
    # One call a process: what a listing takes is given back before the work begins.
    task = ray.remote(max_calls=1)(write_jobs).options(num_cpus=0, scheduling_strategy=here)
    jobs: JobList = ray.get(task.remote(reader, path, config.samples_per_shard, config.max_frames))
    return jobs


def _check_lines(config: ShardConfig, jobs: JobList) -> None:
    """Stop before the work where too much of what the lists promise is not there."""
    num_bad = len(jobs.bad_lines)
    num_lines = jobs.num_listed + num_bad
    if num_bad > config.max_bad_share * num_lines:
        first = "; ".join(f"{s.frame}: {s.reason}" for s in jobs.bad_lines[:3])
        raise DataError(
            f"{config.root}: {num_bad} of {num_lines} listed frames are not there, more than "
            f"max_bad_share = {config.max_bad_share}: complete the data set, or shorten its lists. "
            f"First: {first}"
        )


def _check_unit(config: ShardConfig, reader: Reader, jobs: JobList) -> MeasuredDepth | None:
    """Stop before the work where depth is mostly out of range, as it is in a wrong unit."""
    from densedepth.data.measured import NUM_FRAMES, measure_depth

    training = (f for job in jobs.jobs if job.split == "train" for f in jobs.frames(job))
    frames = itertools.islice(training, NUM_FRAMES)  # they are mixed: these are as good as any
    try:
        measured = measure_depth(reader, frames, config.min_depth_m, config.max_depth_m)
    except BadFrameError:  # all of these: the writers tell which, up to max_bad_share
        return None
    if measured.within < config.min_within_share:
        raise DataError(f"{config.root}: {unit_doubt(config, measured)}")
    return measured


def unit_doubt(config: ShardConfig, measured: MeasuredDepth) -> str:
    """Say that measured depth is not where the settings have it, and what to do."""
    own = config.format == "image_pairs"
    unit = "options.depth_unit_m" if own else "format"
    doubt = (
        f"{measured}; {measured.within:.0%} of it is from min_depth_m = {config.min_depth_m:g} to "
        f"max_depth_m = {config.max_depth_m:g}, less than min_within_share = "
        f"{config.min_within_share:g}. If these are not the scene's metres, the unit of the depth "
        f"files is wrong: correct {unit}; if they are, correct the range, or lower min_within_share"
    )
    invalid = "; if a value of the files means 'no measurement', name it in options.invalid_values"
    return doubt + (invalid if own else "")


def _write_all(
    config: ShardConfig, services: Services, reader: Reader, jobs: JobList
) -> list[ShardResult]:
    """Write all shards side by side; stop when it is certain that too many frames are bad."""
    writer = ShardWriter(services.store, reader, config.fill, config.max_depth_m)
    results: list[ShardResult | None] = [None] * len(jobs.jobs)
    bad: list[SkippedFrame] = []
    num_done = 0
    services.progress(0, jobs.num_frames, "frames")
    for number, result in in_parallel(writer, jobs, stays_here=config.synthetic is not None):
        results[number] = result
        num_done += jobs.jobs[number].num_frames
        bad += result.skipped
        text = f"{len(bad)} bad" if bad else ""
        services.progress(num_done, jobs.num_frames, "frames", text)
        # Of all frames, not of those so far: bad ones at the beginning are no verdict.
        if len(bad) > config.max_bad_share * jobs.num_frames:
            first = "; ".join(f"{s.frame}: {s.reason}" for s in bad[:5])
            raise DataError(
                f"{len(bad)} of the first {num_done} frames ({jobs.num_frames} in all) cannot be "
                f"used, more than max_bad_share = {config.max_bad_share}: your data or their "
                f"settings are broken. First: {first}"
            )
    return [result for result in results if result is not None]


def sources(config: ShardConfig) -> dict[str, str]:
    """Say what the stage reads outside the store: file -> a mark that changes when it does.

    The planner calls it; rendered scenes are a function of their settings alone.
    """
    reader = _reader(config)
    return {} if config.synthetic else source_marks(reader, config.max_frames)


def truth_kind(config: ShardConfig) -> TruthKind:
    """Say what a data set's depth is, by its settings alone.

    Raises:
        DataError: an option of the reader does not exist.
    """
    return _reader(config).truth_kind


def raw_data(config: ShardConfig, store: ObjectStore) -> RawData:
    """Return what a data set's shards were made from, to make some of them anew.

    Raises:
        DataError: an option of the reader does not exist.
    """
    writer = ShardWriter(store, _reader(config), config.fill, config.max_depth_m)
    return RawData(writer, config.samples_per_shard, config.max_frames)


def _reader(config: ShardConfig) -> Reader:
    from densedepth.data.formats import make_reader

    return make_reader(config.format, config.root, **config.options)
