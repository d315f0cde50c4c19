"""A store whose objects must be brought to the node, and what the node's cache has of them."""

import time
from collections.abc import Callable
from pathlib import Path

from cluster.cache import NodeCache
from cluster.local_store import LocalStore
from cluster.storage import ObjectRef, ObjectStore
from tests.cluster.objects import files_below


class RemoteStore(LocalStore):
    """A store as if on another machine: its objects must be brought; every download is noted."""

    def own_file(self, key: str) -> None:
        return None

    def download(self, ref: ObjectRef, file) -> None:
        with (self.root.parent / "downloads.txt").open("a") as log:
            log.write(f"{ref.key}\n")
        super().download(ref, file)

    @property
    def downloads(self) -> list[str]:
        log = self.root.parent / "downloads.txt"
        return log.read_text().split() if log.exists() else []


def put(store: ObjectStore, *names: str, size_bytes: int = 1000) -> list[ObjectRef]:
    return [store.put_bytes(name, (name * size_bytes)[:size_bytes].encode()) for name in names]


def content(cache: NodeCache, ref: ObjectRef) -> bytes:
    with cache.open(ref) as file:
        return file.read()


def kept(folder: Path) -> set[str]:
    return {name for name in files_below(folder) if len(name) == 64}


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)
