"""Memory of sharding's processes while it runs, for ``bench_sharding``."""

import os
import threading
from pathlib import Path

LISTING, TASK = "ray::write_jobs", "ray::write_shard"


class Sampled:
    """Keeps the largest memory of the stage, a task and the listing while a block runs, MB.

    It is the proportional size (PSS): what processes share counts by parts.
    """

    def __init__(self) -> None:
        self.peaks_mb = {"stage": 0.0, "task": 0.0, "listing": 0.0}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample)

    def __enter__(self) -> "Sampled":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._stop.wait(0.5):
            for name, size_mb in memory_mb(os.getpid()).items():
                self.peaks_mb[name] = max(self.peaks_mb[name], size_mb)


def memory_mb(parent: int) -> dict[str, float]:
    """PSS in MB: of the stage's own process, of the largest task's, of the process that lists."""
    found = {"stage": _pss_mb(parent), "task": 0.0, "listing": 0.0}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            title = (process / "cmdline").read_bytes().decode(errors="replace")
            if not title.startswith((LISTING, TASK)) or not _is_below(int(process.name), parent):
                continue
        except (FileNotFoundError, ProcessLookupError):
            continue
        name = "listing" if title.startswith(LISTING) else "task"
        found[name] = max(found[name], _pss_mb(int(process.name)))
    return found


def _is_below(process: int, ancestor: int) -> bool:
    """Whether a process was started by another, or by one that was."""
    while process > 1:
        stat = Path(f"/proc/{process}/stat").read_text()
        process = int(stat.rpartition(")")[2].split()[1])
        if process == ancestor:
            return True
    return False


def _pss_mb(process: int) -> float:
    try:
        text = Path(f"/proc/{process}/smaps_rollup").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return next(int(line.split()[1]) for line in text.splitlines() if line[:4] == "Pss:") / 1024
