"""Which stages a driver computes, so that two runs that need the same one compute it once."""

from cluster.storage import ObjectStore
from pipeline.errors import RunHeld
from pipeline.lease import UNKNOWN, Holder, Watch, holder_of, lease_key


class Claims:
    """What this driver claims.

    A claim is written once and never renewed: it holds as long as its run's lease does.

    Args:
        store: where claims lie, under ``claims/``.
        me: this driver.
    """

    def __init__(self, store: ObjectStore, me: Holder) -> None:
        self._store, self._me = store, me
        self._watches: dict[str, Watch] = {}
        self._mine: set[str] = set()

    def try_claim(self, name: str) -> Holder | None:
        """Claim ``NODE/FINGERPRINT``; return None if it is ours, else who has it.

        Raises:
            RunHeld: the claim that is there cannot be read.
        """
        key = f"claims/{name}"
        if key in self._mine or self._store.put_bytes_if_absent(key, self._me.data()):
            self._mine.add(key)
            return None
        holder = holder_of(self._store, key)
        if holder is None:  # released just now
            return self.try_claim(name)
        if holder.owner == UNKNOWN:  # its run is not known, so neither is whether that lives
            raise RunHeld(
                f"{self._store.url_of(key)} cannot be read: a driver of another version of the "
                "project computes this stage, or died doing so. When it has ended, remove what it "
                "left: `python -m pipeline gc --delete`"
            )
        watch = self._watches.setdefault(holder.owner, Watch(self._store, lease_key(holder.run_id)))
        driver, lives = watch.look()
        if driver is not None and driver.owner == holder.owner and lives is not False:
            return holder
        if self._store.replace_bytes(key, self._me.data(), holder.sha256()):
            self._mine.add(key)
            return None
        return holder

    def release(self, name: str) -> None:
        """Give a claim back."""
        key = f"claims/{name}"
        if key in self._mine:
            self._mine.discard(key)
            holder = holder_of(self._store, key)
            if holder is not None and holder.owner == self._me.owner:
                self._store.delete(key)

    def release_all(self) -> None:
        """Give every claim back."""
        for key in sorted(self._mine):
            self.release(key.removeprefix("claims/"))
