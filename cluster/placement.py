"""Gives back what dead trainings still hold."""

from typing import Any


def release_orphans() -> int:
    """Remove the placement groups whose maker, a training's controller, has died.

    Ray keeps them until the driver ends, and its own cleaner asks a dashboard, which a Ray of one
    machine does not have: the stage's next try would wait for its own CPUs without end.

    Returns:
        How many there were.
    """
    import ray
    from ray._private.state import state  # no public call names a group's maker
    from ray.core.generated.gcs_pb2 import PlacementGroupTableData
    from ray.util import remove_placement_group
    from ray.util.placement_group import PlacementGroup

    table: Any = state._connect_and_get_accessor().get_placement_group_table()
    groups = [PlacementGroupTableData.FromString(entry) for entry in table]
    orphans = [
        group
        for group in groups
        if group.state != PlacementGroupTableData.REMOVED
        and group.creator_actor_dead
        # Of a task's group, a trial's for one, Ray says the same: it has no actor at all.
        and group.creator_actor_id
        and not ray.ActorID(group.creator_actor_id).is_nil()
    ]
    for group in orphans:
        remove_placement_group(PlacementGroup(ray.PlacementGroupID(group.placement_group_id)))
    return len(orphans)
