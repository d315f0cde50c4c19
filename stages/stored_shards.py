"""A split's shards as the reader takes them: opened out of the node's cache, by number."""

import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cluster.cache import NodeCache
from cluster.cache_space import limit_from_environment
from cluster.storage import ObjectRef, ObjectStore
from stages.artifacts import ShardSplit

if TYPE_CHECKING:
    from densedepth.data.shard_source import OpenShard, ShardList


@dataclass(frozen=True)
class StoredShards:
    """The reader's ``ShardSource``: tars and indexes in the store, brought here when needed.

    Attributes:
        cache: the node's cache.
        tars: the shards.
        indexes: where the samples of each lie.
    """

    cache: NodeCache
    tars: tuple[ObjectRef, ...]
    indexes: tuple[ObjectRef, ...]

    def open_shard(self, number: int) -> "OpenShard":
        """Open a shard whose bytes have been checked on this node.

        Raises:
            StorageError: it cannot be had, or its bytes are others.
            CorruptShardError: its index cannot be read.
        """
        from densedepth.data.shard_index import ShardIndex
        from densedepth.data.shard_source import OpenShard

        name = self.cache.store.url_of(self.indexes[number].key)
        index = ShardIndex.from_bytes(self._whole(self.indexes[number]), name)
        tar = self.tars[number]
        return OpenShard(
            self.cache.store.url_of(tar.key),
            self.cache.open(tar),
            index,
            distrust=functools.partial(self.cache.distrust, tar),
        )

    def _whole(self, ref: ObjectRef) -> bytes:
        """Read a small object; its copy is brought again if it rotted since it was checked."""
        with self.cache.open(ref) as file:
            data = file.readall()
        if hashlib.sha256(data).hexdigest() == ref.sha256:
            return data
        self.cache.distrust(ref)
        with self.cache.open(ref) as file:
            return file.readall()

    def prefetch(self, numbers: Sequence[int]) -> None:
        """Have shards brought in the background, in this order."""
        for number in numbers:
            self.cache.prefetch(self.indexes[number])
            self.cache.prefetch(self.tars[number])


def stored_shards(
    store: ObjectStore, split: ShardSplit, scratch: Path, at_most: int | None = None
) -> "ShardList":
    """Return a split as the reader takes it; nothing is read yet.

    Args:
        store: where it is.
        split: the split.
        scratch: this node's folder; the cache is in ``scratch/cache``, bounded by the node's
            ``$DEPTH_CACHE_GB``.
        at_most: samples that are used, the first ones; None = all.
    """
    from densedepth.data.shard_source import ShardList

    cache = NodeCache(store, scratch / "cache", limit_from_environment())
    source = StoredShards(cache, split.shards, split.indexes)
    return ShardList(split.num_samples_per_shard, source, at_most)
