"""Raw frames -> ShardSet: read and check frames in parallel tasks, write tars to the store."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from cluster.resources import this_node
from cluster.services import Services
from cluster.storage import ObjectRef, ObjectStore
from densedepth.errors import BadFrameError, DataError, EmptySplitError, MissingDataError
from stages.artifacts import ShardSet, ShardSplit, SkippedFrame
from stages.recipe import Settings, one_of

if TYPE_CHECKING:
    from densedepth.sample import EncodedSample, Frame, Reader, Split

FORMATS = ("nyu_densedepth", "nyu_labeled", "nyu_sync", "kitti_eigen", "image_pairs")
"""Names for checking settings without numpy; ``densedepth.data.formats`` has the readers."""
SPLITS: tuple[Split, ...] = ("train", "val", "test")


class SyntheticConfig(Settings):
    """Scenes to be made, in the raw layout of a real data set, where none is at hand."""

    num_train_scenes: int = Field(24, ge=1, description="rooms, or drives")
    frames_per_scene: int = Field(8, ge=1, description="frames of each")
    num_test: int = Field(24, ge=1, description="test frames, each of a scene of its own")
    size_px: tuple[Annotated[int, Field(ge=16)], Annotated[int, Field(ge=16)]] = Field(
        (480, 640), description="height, width"
    )
    seed: int = Field(0, ge=0, description="another seed, other scenes")


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
        0.02, ge=0, le=1, description="share of unusable frames above which the stage stops"
    )
    max_frames: int | None = Field(None, ge=1, description="frames of each split at most")

    @model_validator(mode="after")
    def _check(self) -> ShardConfig:
        for problem in problems(self.model_dump()):
            raise ValueError(problem)
        return self

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
        DataError: the raw data set is missing or empty, or too many of its frames are bad.
    """
    services.store.check_writable()
    services.log_params(config.model_dump(mode="json"))
    if config.synthetic:
        _make_scenes(config, services)
    reader = _reader(config)
    jobs, skipped = _jobs(config, reader)
    total = sum(len(frames) for _, frames in jobs)
    bad: list[SkippedFrame] = []
    num_bad, done_frames = 0, 0
    results: dict[int, dict[str, Any]] = {}
    for index, result in _in_parallel(config, services.store, reader, jobs):
        results[index] = result
        done_frames += len(jobs[index][1])
        bad += result["skipped"]
        num_bad = len(bad)
        services.progress(done_frames, total, "frames", f"{num_bad} bad" if num_bad else "")
        if num_bad > config.max_bad_share * total:
            first = "; ".join(f"{s.frame}: {s.reason}" for s in bad[:5])
            raise DataError(
                f"{num_bad} of {done_frames} frames cannot be used, more than max_bad_share = "
                f"{config.max_bad_share}: your data or their settings are broken. First: {first}"
            )
    splits: dict[str, ShardSplit] = {}
    dense = True
    for split in dict.fromkeys(name for name, _ in jobs):
        parts = [results[i] for i, (name, _) in enumerate(jobs) if name == split]
        parts = [part for part in parts if part["ref"] is not None]
        if not parts:
            raise DataError(f"{config.root}: no frame of the {split} split can be used")
        splits[split] = _publish_manifest(config, services.store, split, parts)
        if split == "train":
            dense = all(part["dense"] for part in parts)
    skipped += [s for index in sorted(results) for s in results[index]["skipped"]]
    name = services.stage.partition(".")[2]
    artifact = ShardSet(
        dataset=name,
        min_depth_m=config.min_depth_m,
        max_depth_m=config.max_depth_m,
        rendered=config.synthetic is not None,
        ground_truth=reader.truth_kind,
        dense=dense,
        splits=splits,
        skipped=tuple(skipped),
    )
    services.log_metrics([(0, artifact.summary())])
    artifact.log_use(services, splits)
    listing = [s.model_dump() for s in skipped]
    services.log_bytes("skipped.json", json.dumps(listing, indent=1).encode())
    return artifact


def sources(config: ShardConfig) -> dict[str, str]:
    """Say what the stage reads outside the store: file -> a mark that changes when it does.

    The planner calls it; rendered scenes are a function of their settings alone.
    """
    reader = _reader(config)
    if config.synthetic:
        return {}
    marks: dict[str, str] = {}
    for split in SPLITS:
        try:
            listing = reader.list_frames(split)
        except EmptySplitError:
            if split != "val":
                raise
            continue
        for frame in _selected(listing.frames, split, config):
            for path in (frame.image_path, frame.depth_path):
                try:
                    status = path.stat()
                    marks[str(path)] = f"{status.st_size}/{status.st_mtime_ns}"
                except OSError:
                    marks[str(path)] = "missing"
    return marks


def _reader(config: ShardConfig) -> Reader:
    from densedepth.data.formats import make_reader

    return make_reader(config.format, config.root, **config.options)


def _make_scenes(config: ShardConfig, services: Services) -> None:
    """Write the rendered raw data set; the writer leaves one that is there, whole, as it is."""
    from densedepth.data import synthetic

    made = config.synthetic
    assert made is not None
    root = Path(config.root)
    shared: dict[str, Any] = {
        "num_test": made.num_test,
        "size_px": made.size_px,
        "seed": made.seed,
        "on_progress": lambda done, total: services.progress(done, total, "scenes", "rendering"),
    }
    if config.format.startswith("kitti"):
        synthetic.write_kitti_like(
            root,
            num_train_drives=made.num_train_scenes,
            frames_per_drive=made.frames_per_scene,
            **shared,
        )
    else:
        synthetic.write_nyu_like(
            root,
            num_train_scenes=made.num_train_scenes,
            frames_per_scene=made.frames_per_scene,
            **shared,
        )


def _jobs(
    config: ShardConfig, reader: Reader
) -> tuple[list[tuple[Split, tuple[Frame, ...]]], list[SkippedFrame]]:
    """Cut the splits into shards' worth of frames."""
    jobs: list[tuple[Split, tuple[Frame, ...]]] = []
    skipped: list[SkippedFrame] = []
    for split in SPLITS:
        try:
            listing = reader.list_frames(split)
        except EmptySplitError:
            if split != "val":  # val_fraction = 0 asks for none
                raise
            continue
        skipped += [
            SkippedFrame(split=split, frame=s.line, reason=s.reason) for s in listing.skipped
        ]
        frames = _selected(listing.frames, split, config)
        for start in range(0, len(frames), config.samples_per_shard):
            jobs.append((split, tuple(frames[start : start + config.samples_per_shard])))
    return jobs, skipped


def _selected(frames: Sequence[Frame], split: Split, config: ShardConfig) -> list[Frame]:
    """Return the frames that are sharded, in their order; training frames are mixed."""
    chosen = list(frames)
    if split == "train":
        chosen.sort(key=lambda f: hashlib.sha256(f.key.encode()).digest())
    return chosen[: config.max_frames]


def _in_parallel(
    config: ShardConfig,
    store: ObjectStore,
    reader: Reader,
    jobs: Sequence[tuple[Split, tuple[Frame, ...]]],
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Run a Ray task for each shard and yield results as they come.

    Rendered scenes lie on this node, so their tasks stay here, even where it offers no CPU.
    """
    import ray

    here, own_cpus = this_node()
    where = here if config.synthetic else "DEFAULT"
    num_cpus = 0 if config.synthetic and not own_cpus else 1
    task = ray.remote(write_one_shard).options(num_cpus=num_cpus, scheduling_strategy=where)
    reader_ref, store_ref, config_ref = ray.put(reader), ray.put(store), ray.put(config)
    waiting = {
        task.remote(config_ref, store_ref, reader_ref, split, frames): index
        for index, (split, frames) in enumerate(jobs)
    }
    try:
        while waiting:
            done, _ = ray.wait(list(waiting), num_returns=1)
            yield waiting.pop(done[0]), ray.get(done[0])
    finally:
        for handle in waiting:
            ray.cancel(handle)


def write_one_shard(
    config: ShardConfig, store: ObjectStore, reader: Reader, split: Split, frames: Sequence[Frame]
) -> dict[str, Any]:
    """Read frames and publish them as one tar; bad frames are left out and told.

    The key holds the tar's digest: equal content is one object, and no reader sees half of it.
    """
    from densedepth.data.shards import write_shard

    skipped: list[SkippedFrame] = []
    holes = 0

    def usable() -> Iterator[EncodedSample]:
        nonlocal holes
        for frame in frames:
            try:
                sample = reader.read(frame)
            except (BadFrameError, MissingDataError) as error:
                skipped.append(SkippedFrame(split=split, frame=frame.key, reason=str(error)))
                continue
            if config.fill == "colorization" and split == "train":
                sample = fill_holes(sample, config.max_depth_m)
            holes += _has_holes(sample)
            yield sample

    with tempfile.TemporaryDirectory(prefix="shard-") as scratch:
        path = Path(scratch) / "shard.tar"
        count = write_shard(path, usable())
        if count == 0:
            return {"ref": None, "count": 0, "skipped": skipped, "dense": True}
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        key = f"shards/{digest[:2]}/{digest}.tar"
        known = store.stat(key)
        if known is not None and known.size_bytes == path.stat().st_size:
            ref = ObjectRef(key=key, size_bytes=known.size_bytes, sha256=digest)
        else:
            ref = store.put_file(key, path)
    return {"ref": ref, "count": count, "skipped": skipped, "dense": holes == 0}


def fill_holes(sample: EncodedSample, max_depth_m: float) -> EncodedSample:
    """Fill a sample's holes by colorization; steps are fine enough for the filled values."""
    from densedepth.data.colorization import fill_depth
    from densedepth.data.encode import decode, depth_bits, encode_depth_png, quantise_depth

    arrays = decode(sample)
    unit_m = sample.depth_unit_m
    if depth_bits(sample.depth_png) == 8:  # steps of centimetres are too coarse for a smooth fill
        unit_m = 1 / 256 if max_depth_m > 60 else 1e-3
    units = quantise_depth(fill_depth(arrays.image, arrays.depth_m), unit_m, sample.key)
    return dataclasses.replace(
        sample,
        depth_png=encode_depth_png(units),
        depth_unit_m=unit_m,
        info={**sample.info, "filled": "colorization"},
    )


def _has_holes(sample: EncodedSample) -> bool:
    from densedepth.data.encode import decode_depth_m

    return bool((decode_depth_m(sample) == 0).any())


def _publish_manifest(
    config: ShardConfig, store: ObjectStore, split: str, parts: Sequence[dict[str, Any]]
) -> ShardSplit:
    """Write the split's manifest after all its tars; its digest is the split's version."""
    manifest = {
        "format": "depth-shards/1",
        "split": split,
        "min_depth_m": config.min_depth_m,
        "max_depth_m": config.max_depth_m,
        "shards": [{**p["ref"].model_dump(), "num_samples": p["count"]} for p in parts],
        "num_samples": sum(p["count"] for p in parts),
    }
    data = json.dumps(manifest, indent=1, sort_keys=True).encode()
    digest = hashlib.sha256(data).hexdigest()
    return ShardSplit(
        manifest=store.put_bytes(f"manifests/{split}-{digest[:16]}.json", data),
        shards=tuple(p["ref"] for p in parts),
        num_samples_per_shard=tuple(p["count"] for p in parts),
    )
