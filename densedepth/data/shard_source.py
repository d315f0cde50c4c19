"""Where a reader's shards come from: a value that opens them by number and fetches ahead."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol, runtime_checkable

from densedepth.data.shard_index import ShardIndex
from densedepth.data.shards import index_shard, read_sample
from densedepth.errors import CorruptShardError
from densedepth.sample import EncodedSample


@dataclass(frozen=True)
class OpenShard:
    """A shard that can be read from.

    Attributes:
        name: what errors name: the tar's key or path.
        file: the tar. It stays readable if its name is deleted meanwhile.
        index: where each sample lies.
        distrust: has the shard checked again when it is opened next.
    """

    name: str
    file: BinaryIO
    index: ShardIndex
    distrust: Callable[[], None] = lambda: None

    def read(self, number: int) -> EncodedSample:
        """Read a sample by its place in the shard; see ``read_sample``."""
        try:
            return read_sample(self.file, self.index.entries[number], self.name)
        except CorruptShardError:
            self.distrust()
            raise


@runtime_checkable
class ShardSource(Protocol):
    """A numbered list of shards; a picklable value, used by several processes at once."""

    def open_shard(self, number: int) -> OpenShard:
        """Return a shard once it is here, whole and checked.

        Raises:
            CorruptShardError: it is not what its manifest promises.
        """
        ...

    def prefetch(self, numbers: Sequence[int]) -> None:
        """Begin to fetch shards, in the order in which they will be opened; returns at once.

        Mistakes are told by ``open_shard`` alone.
        """
        ...


@dataclass(frozen=True)
class LocalShards:
    """Tars on this node, each with its index in ``PATH.index.json`` or made anew on opening."""

    paths: tuple[Path, ...]

    def open_shard(self, number: int) -> OpenShard:
        """Open a tar; see ``ShardSource``."""
        path = self.paths[number]
        beside = path.with_name(path.name + ".index.json")
        if beside.exists():
            index = ShardIndex.from_bytes(beside.read_bytes(), str(beside))
        else:
            index = index_shard(path)
        return OpenShard(str(path), path.open("rb", buffering=0), index)

    def prefetch(self, numbers: Sequence[int]) -> None:
        """Do nothing: they are here."""


@dataclass(frozen=True)
class ShardList:
    """The shards of a split, or the first samples of it.

    Attributes:
        num_samples_per_shard: what the manifest promises of each shard.
        source: opens them; its numbers are places in ``num_samples_per_shard``.
        at_most: samples that are used, the first ones; None = all.
    """

    num_samples_per_shard: tuple[int, ...]
    source: ShardSource
    at_most: int | None = None

    @property
    def num_used(self) -> int:
        """How many samples reading yields."""
        total = sum(self.num_samples_per_shard)
        return total if self.at_most is None else min(total, self.at_most)

    @property
    def num_used_per_shard(self) -> tuple[int, ...]:
        """How many samples of each shard are used; shards of which none is are left out."""
        used, left = [], self.num_used
        for count in self.num_samples_per_shard:
            if not left:
                break
            used.append(min(count, left))
            left -= used[-1]
        return tuple(used)

    def open_shard(self, number: int) -> OpenShard:
        """Open a shard and compare its index with the manifest's count.

        Raises:
            CorruptShardError: it has another number of samples, or as ``ShardSource`` says.
        """
        shard = self.source.open_shard(number)
        promised = self.num_samples_per_shard[number]
        if len(shard.index) != promised:
            raise CorruptShardError(
                f"{shard.name}: {len(shard.index)} samples where the manifest says {promised}; "
                "shard the data set again"
            )
        return shard
