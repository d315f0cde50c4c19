"""Samples read by their places and decoded straight into a batch's memory."""

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import UInt8
from torch import Tensor

from densedepth.data.batch import PackedBatch, resize_depth
from densedepth.data.depth_codec import unpack_depth_into
from densedepth.data.encode import decode_depth_m, decode_image, decode_image_into
from densedepth.data.order import Places
from densedepth.data.shard_source import OpenShard, ShardList
from densedepth.errors import BadFrameError, CorruptShardError
from densedepth.sample import EncodedSample

MAX_OPEN_SHARDS = 64
"""Shards that a reader keeps open: more than a block of the epoch's order usually touches."""


@dataclass(frozen=True)
class BatchPlan:
    """Which samples make a batch, and what each one's augmentation is drawn from."""

    places: Places
    sample_seeds: tuple[int, ...]


class BatchReader:
    """Reads and decodes batches; one a process. Keeps the shards open that it used last."""

    def __init__(self, shards: ShardList, input_size_px: tuple[int, int]) -> None:
        self.shards = shards
        self.input_size_px = input_size_px
        self._open: OrderedDict[int, OpenShard] = OrderedDict()
        self._announced: set[int] = set()

    def announce(self, plan: BatchPlan) -> None:
        """Have the shards of a coming batch fetched, if they are not open or announced."""
        wanted = dict.fromkeys(int(shard) for shard in plan.places.shards)
        new = [n for n in wanted if n not in self._announced and n not in self._open]
        if new:
            self._announced.update(new)
            self.shards.source.prefetch(new)

    def read(self, shard: int, number: int) -> EncodedSample:
        """Read one sample's bytes.

        Raises:
            CorruptShardError: as ``ShardList.open_shard`` and ``read_sample``.
        """
        opened = self._shard(shard)
        try:
            return opened.read(number)
        except CorruptShardError:
            # What was whole when it came may have rotted on this node's disk since.
            self._open.pop(shard).file.close()
            return self._shard(shard).read(number)

    def read_batch(self, plan: BatchPlan, memory: UInt8[Tensor, " n"]) -> PackedBatch:
        """Read a batch and decode it into memory of at least ``num_bytes``.

        Raises:
            CorruptShardError: a sample is not what was written; names shard and key.
        """
        places = list(zip(*plan.places, strict=True))
        encoded = [self.read(int(shard), int(number)) for shard, number in places]
        is_native = all(e.depth.size_px == self.input_size_px for e in encoded)
        batch = view_batch(
            memory,
            tuple(e.key for e in encoded),
            tuple(1 / e.depth_unit_m for e in encoded),
            plan.sample_seeds,
            self.input_size_px,
            is_native,
            any(e.depth.has_holes for e in encoded),
        )
        pixels = batch.image.permute(0, 2, 3, 1).numpy()
        for i, sample in enumerate(encoded):
            try:
                if is_native:
                    decode_image_into(sample.image, pixels[i], sample.key)
                    assert batch.depth_units is not None
                    unpack_depth_into(sample.depth, batch.depth_units[i].numpy(), sample.key)
                else:
                    assert batch.depth_m is not None
                    picture = decode_image(sample.image, sample.key)
                    batch.image[i] = resize_image(picture, self.input_size_px)
                    depth_m = torch.from_numpy(decode_depth_m(sample))
                    batch.depth_m[i] = resize_depth(depth_m[None], batch.target_size_px)
            except BadFrameError as error:
                name = self._shard(int(places[i][0])).name
                raise CorruptShardError(
                    f"{name}: sample {sample.key} cannot be decoded: {error}; "
                    "shard the data set again"
                ) from error
        return batch

    def close(self) -> None:
        """Close the shards."""
        while self._open:
            self._open.popitem()[1].file.close()

    def _shard(self, number: int) -> OpenShard:
        if number in self._open:
            self._open.move_to_end(number)
        else:
            if len(self._open) == MAX_OPEN_SHARDS:
                self._open.popitem(last=False)[1].file.close()
            self._open[number] = self.shards.open_shard(number)
            self._announced.discard(number)
        return self._open[number]


def num_bytes(batch_size: int, input_size_px: tuple[int, int]) -> int:
    """Memory of a batch: three bytes of colour and two of depth for each pixel."""
    return batch_size * input_size_px[0] * input_size_px[1] * 5


def view_batch(
    memory: UInt8[Tensor, " n"],
    keys: tuple[str, ...],
    steps_per_m: Iterable[float],
    sample_seeds: Iterable[int],
    input_size_px: tuple[int, int],
    is_native: bool,
    has_holes: bool,
) -> PackedBatch:
    """See memory of ``num_bytes`` as a batch: pictures, then depth.

    Args:
        memory: at least ``num_bytes``.
        keys: the samples' keys.
        steps_per_m: of each sample.
        sample_seeds: of each sample.
        input_size_px: height and width of the pictures.
        is_native: depth comes in steps at the input's size, else in metres at the target's.
        has_holes: whether a step may be 0.
    """
    (height_px, width_px), count = input_size_px, len(keys)
    target_size_px = (height_px // 2, width_px // 2)
    num_pixels = count * height_px * width_px
    image = memory[: 3 * num_pixels].view(count, height_px, width_px, 3).permute(0, 3, 1, 2)
    depth = memory[3 * num_pixels : 5 * num_pixels]
    units = depth.view(torch.uint16).view(count, height_px, width_px) if is_native else None
    depth_m = None
    if not is_native:
        size_bytes = 4 * count * target_size_px[0] * target_size_px[1]
        depth_m = depth[:size_bytes].view(torch.float32).view(count, 1, *target_size_px)
    return PackedBatch(
        keys=keys,
        image=image,
        depth_units=units,
        has_holes=has_holes,
        steps_per_m=torch.tensor(list(steps_per_m), dtype=torch.float32),
        depth_m=depth_m,
        sample_seeds=torch.tensor(list(sample_seeds), dtype=torch.int64),
        target_size_px=target_size_px,
    )


def resize_image(
    image: UInt8[np.ndarray, "h w 3"], size_px: tuple[int, int]
) -> UInt8[Tensor, "3 h2 w2"]:
    """Resize a picture to (height, width), anti-aliased."""
    writable = image if image.flags.writeable else image.copy()  # PNGs come read-only
    tensor = torch.from_numpy(writable).permute(2, 0, 1)
    if tuple(tensor.shape[1:]) == size_px:
        return tensor
    return F.interpolate(tensor[None].contiguous(), size=size_px, mode="bilinear", antialias=True)[
        0
    ]
