"""Shards written side by side: a Ray task for each, as many at once as keep the cluster busy."""

import itertools
from collections.abc import Iterator
from typing import Any

from cluster.resources import cluster_resources, this_node
from stages.shard_jobs import JobList
from stages.shard_writer import ShardResult, ShardWriter

LOOK_AGAIN_S = 10.0
"""Seconds after which the cluster is looked at again while no shard is done: it may have grown."""
MAX_THREADS = 8
"""Threads of one shard's task, at most: Python's own part of the work does not share."""


def in_parallel(
    writer: ShardWriter, jobs: JobList, *, stays_here: bool
) -> Iterator[tuple[int, ShardResult]]:
    """Write shards and yield each one's number and result, as they come.

    As many tasks wait as keep the cluster busy, and let one that grows see that more is wanted;
    the frames of the others stay on the disk.

    Args:
        writer: what each task does.
        jobs: the shards.
        stays_here: whether the frames lie on this node, as rendered scenes do; then tasks stay
            here, even where the node offers no CPU.
    """
    import ray

    here, own_cpus = this_node()
    num_cpus = 0 if stays_here and not own_cpus else cpus_per_task(len(jobs.jobs))
    task = ray.remote(ShardWriter.write).options(
        name="write_shard",
        num_cpus=num_cpus,
        scheduling_strategy=here if stays_here else "DEFAULT",
    )
    writer_ref, rest = ray.put(writer), iter(enumerate(jobs.jobs))
    waiting: dict[Any, int] = {}
    try:
        while True:
            window = max(4, 2 * int(cluster_resources().num_cpus))
            for number, job in itertools.islice(rest, max(0, window - len(waiting))):
                frames = jobs.frames(job)
                waiting[task.remote(writer_ref, job.split, frames, max(1, num_cpus))] = number
            if not waiting:
                return
            done, _ = ray.wait(list(waiting), num_returns=1, timeout=LOOK_AGAIN_S)
            for handle in done:
                yield waiting.pop(handle), ray.get(handle)
    finally:
        for handle in waiting:
            ray.cancel(handle)


def cpus_per_task(num_shards: int) -> int:
    """Return the CPUs, and threads, of a task: more than one where CPUs outnumber the shards."""
    has = cluster_resources()
    share = int(has.num_cpus) // max(1, num_shards)
    return max(1, min(share, int(has.cpus_of_smallest), MAX_THREADS))
