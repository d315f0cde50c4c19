"""From shards to batches: decode, resize, collate; training in the epoch's order, or in sequence.

Pictures stay uint8 until they are on the device.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float32, Int64, UInt8
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from densedepth.augment import sample_seed
from densedepth.data.encode import decode
from densedepth.data.order import epoch_shards, num_batches, rank_slice, shuffled
from densedepth.data.shards import read_shard
from densedepth.sample import EncodedSample, Sample


@dataclass(frozen=True)
class LocalShard:
    """A tar on this node.

    Attributes:
        path: the tar.
        num_samples: how many samples its manifest promises.
        at_most: how many of them are used; None = all.
    """

    path: Path
    num_samples: int
    at_most: int | None = None

    @property
    def num_used(self) -> int:
        """How many samples reading yields."""
        return self.num_samples if self.at_most is None else min(self.num_samples, self.at_most)

    def read(self) -> Iterator[EncodedSample]:
        """Stream the samples that are used; see ``read_shard``."""
        samples = read_shard(self.path, self.num_samples)
        return samples if self.at_most is None else itertools.islice(samples, self.num_used)


@dataclass(frozen=True)
class Batch:
    """Samples of one size.

    Attributes:
        keys: the samples' keys.
        image: colour, 0..255.
        depth_m: metres at the network's output size; 0 = no measurement. Where pixels are
            merged their inverse depths are averaged, as the paper's target is.
        valid: where ``depth_m`` is a measurement.
        sample_seeds: what each sample's augmentation is drawn from.
    """

    keys: tuple[str, ...]
    image: UInt8[Tensor, "b 3 h w"]
    depth_m: Float32[Tensor, "b 1 h2 w2"]
    valid: Bool[Tensor, "b 1 h2 w2"]
    sample_seeds: Int64[Tensor, "b"]

    def to(self, device: torch.device) -> "Batch":
        """Copy to a device, asynchronously from pinned memory."""
        return replace(
            self,
            image=self.image.to(device, non_blocking=True),
            depth_m=self.depth_m.to(device, non_blocking=True),
            valid=self.valid.to(device, non_blocking=True),
            sample_seeds=self.sample_seeds.to(device, non_blocking=True),
        )

    def pin_memory(self) -> "Batch":
        """Page-lock the tensors, so that copies to a GPU overlap with its work."""
        return replace(
            self,
            image=self.image.pin_memory(),
            depth_m=self.depth_m.pin_memory(),
            valid=self.valid.pin_memory(),
            sample_seeds=self.sample_seeds.pin_memory(),
        )


def resize_image(
    image: UInt8[np.ndarray, "h w 3"], size_px: tuple[int, int]
) -> UInt8[Tensor, "3 h2 w2"]:
    """Resize a picture to (height, width), anti-aliased."""
    writable = image if image.flags.writeable else image.copy()  # PNGs come read-only
    tensor = torch.from_numpy(writable).permute(2, 0, 1)
    if tuple(tensor.shape[1:]) == size_px:
        return tensor.contiguous()
    resized = F.interpolate(
        tensor[None].contiguous(), size=size_px, mode="bilinear", antialias=True
    )
    return resized[0]


def resize_depth(
    depth_m: Float32[np.ndarray, "h w"], size_px: tuple[int, int]
) -> Float32[Tensor, "1 h2 w2"]:
    """Resize a depth map to (height, width), averaging the inverse depths that were measured.

    Returns:
        Metres; 0 where no measurement falls into the pixel.
    """
    depth = torch.from_numpy(depth_m)
    if tuple(depth.shape) == size_px:
        return depth[None]
    measured = (depth > 0).float()
    inverse = torch.where(depth > 0, 1.0 / depth.clamp_min(1e-6), 0.0)
    planes = torch.stack([inverse, measured])[None]
    inverse, share = F.interpolate(planes, size=size_px, mode="bilinear", antialias=True)[0]
    enough = share > 1e-3
    return torch.where(enough, share / inverse.clamp_min(1e-9), 0.0)[None]


def collate(
    samples: Sequence[Sample],
    sample_seeds: Sequence[int],
    input_size_px: tuple[int, int],
    target_size_px: tuple[int, int],
) -> Batch:
    """Resize samples and stack them."""
    depth_m = torch.stack([resize_depth(s.depth_m, target_size_px) for s in samples])
    return Batch(
        keys=tuple(s.key for s in samples),
        image=torch.stack([resize_image(s.image, input_size_px) for s in samples]),
        depth_m=depth_m,
        valid=depth_m > 0,
        sample_seeds=torch.tensor(sample_seeds, dtype=torch.int64),
    )


class TrainBatches(IterableDataset[Batch]):
    """One rank's part of every global batch of an epoch, in the epoch's order.

    The stream is the same on every rank; each decodes only what is its own. With several loader
    processes, process ``p`` of ``n`` makes every n-th batch, and torch puts them back in order.
    """

    def __init__(
        self,
        shards: Sequence[LocalShard],
        *,
        seed: int,
        epoch: int,
        rank: int,
        world_size: int,
        global_batch_size: int,
        input_size_px: tuple[int, int],
    ) -> None:
        self.shards = tuple(shards)
        self.seed = seed
        self.epoch = epoch
        self.mine = rank_slice(global_batch_size, rank, world_size)
        self.global_batch_size = global_batch_size
        self.input_size_px = input_size_px
        self.num_batches = num_batches(sum(s.num_used for s in shards), global_batch_size)

    def __len__(self) -> int:
        return self.num_batches

    def _stream(self) -> Iterator[EncodedSample]:
        for shard in epoch_shards(self.shards, self.seed, self.epoch):
            yield from shard.read()

    def __iter__(self) -> Iterator[Batch]:
        """Yield this rank's batches."""
        worker = get_worker_info()
        process, num_processes = (worker.id, worker.num_workers) if worker else (0, 1)
        target_size_px = (self.input_size_px[0] // 2, self.input_size_px[1] // 2)
        stream = shuffled(self._stream(), self.seed, self.epoch)
        for index in range(self.num_batches):
            encoded = [next(stream) for _ in range(self.global_batch_size)][self.mine]
            if index % num_processes != process:
                continue
            first = index * self.global_batch_size + self.mine.start
            seeds = [sample_seed(self.seed, self.epoch, first + i) for i in range(len(encoded))]
            samples = [decode(e) for e in encoded]
            yield collate(samples, seeds, self.input_size_px, target_size_px)


def train_batches(
    dataset: TrainBatches, *, loader_processes: int = 0, pin_memory: bool = False
) -> DataLoader[Batch]:
    """Load an epoch's batches in this process (0) or in others, ahead of use."""
    return DataLoader(
        dataset,
        batch_size=None,
        num_workers=loader_processes,
        pin_memory=pin_memory,
        prefetch_factor=4 if loader_processes else None,
    )


def read_samples(
    shards: Sequence[LocalShard], *, rank: int = 0, world_size: int = 1
) -> Iterator[Sample]:
    """Decode each sample exactly once over all ranks, at its own size, in the shards' order."""
    index = 0
    for shard in shards:
        for encoded in shard.read():
            if index % world_size == rank:
                yield decode(encoded)
            index += 1


def validation_batches(
    shards: Sequence[LocalShard],
    *,
    rank: int,
    world_size: int,
    batch_size: int,
    input_size_px: tuple[int, int],
) -> Iterator[Batch]:
    """Yield this rank's share of a split; every sample once, the last batch as long as it comes."""
    target_size_px = (input_size_px[0] // 2, input_size_px[1] // 2)
    samples: list[Sample] = []
    for sample in read_samples(shards, rank=rank, world_size=world_size):
        samples.append(sample)
        if len(samples) == batch_size:
            yield collate(samples, [0] * len(samples), input_size_px, target_size_px)
            samples = []
    if samples:
        yield collate(samples, [0] * len(samples), input_size_px, target_size_px)
