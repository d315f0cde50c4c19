"""Who holds a part of the cluster, who asks for one; what room a training has."""

from typing import Any


def _groups() -> list[Any]:
    """Return the placement groups that there are, their makers named; no public call does."""
    from ray._private.state import state
    from ray.core.generated.gcs_pb2 import PlacementGroupTableData

    table: Any = state._connect_and_get_accessor().get_placement_group_table()
    groups = [PlacementGroupTableData.FromString(entry) for entry in table]
    return [group for group in groups if group.state != PlacementGroupTableData.REMOVED]


def _has_actor(group: Any) -> bool:
    import ray

    return bool(group.creator_actor_id) and not ray.ActorID(group.creator_actor_id).is_nil()


def _is_of_a_run(group: Any) -> bool:
    """Say whether it was made in this namespace, which runs have to themselves."""
    import ray

    return bool(group.ray_namespace == ray.get_runtime_context().namespace)


def release_orphans() -> int:
    """Remove the placement groups whose maker, a training's controller, has died.

    Ray keeps them until the driver ends, and its own cleaner asks a dashboard, which a Ray of one
    machine does not have: the stage's next try would wait for its own CPUs without end. What others
    on the cluster made stays: an actor of theirs may have died and left its group to those who use
    it.

    Returns:
        How many there were.
    """
    import ray
    from ray.util import remove_placement_group
    from ray.util.placement_group import PlacementGroup

    orphans = [
        group
        for group in _groups()
        # Of a task's group, a trial's for one, Ray says the same: it has no actor at all.
        if group.creator_actor_dead and _has_actor(group) and _is_of_a_run(group)
    ]
    for group in orphans:
        remove_placement_group(PlacementGroup(ray.PlacementGroupID(group.placement_group_id)))
    return len(orphans)


class Asked:
    """A placement group: as long as it waits for room, an autoscaler adds nodes for it.

    Ray Train's own request, of all that a training wants, is not enough: it counts what others hold
    as room, and the autoscaler adds nothing at all where the sum of all trainings' requests
    is more than the cluster can ever have.
    """

    def __init__(self) -> None:
        self._bundles: list[dict[str, float]] = []
        self._name = ""
        self._group: Any = None

    def ask(self, bundles: list[dict[str, float]], name: str = "") -> bool:
        """Ask for these together, instead of what was asked for before; none = for nothing.

        Args:
            bundles: what each of them needs.
            name: of all actors in Ray's namespace one at a time may use it, until it asks anew.

        Returns:
            False where another uses the name: nothing is asked for then.
        """
        from ray.exceptions import RaySystemError
        from ray.util import placement_group, remove_placement_group

        if (bundles, name) == (self._bundles, self._name):
            return True
        if self._group is not None:
            remove_placement_group(self._group)
        self._bundles, self._name, self._group = [], "", None
        if bundles:
            try:
                self._group = placement_group(bundles, name=name)
            except RaySystemError as error:
                if "already exists" not in str(error):
                    raise
                return False
        self._bundles, self._name = bundles, name
        return True

    def is_held(self, timeout_s: float) -> bool:
        """Say whether there is room for what is asked for, which nobody else can take then."""
        return bool(self._group is not None and self._group.wait(timeout_s))


def _others_groups() -> list[Any]:
    """Return the placement groups of other actors that live."""
    import ray

    me = ray.get_runtime_context().get_actor_id()
    others = [group for group in _groups() if group.creator_actor_id.hex() != me]
    return [group for group in others if _has_actor(group) and not group.creator_actor_dead]


def does_another_use(name: str) -> bool:
    """Say whether another actor asks under this name, or holds what it asked for."""
    return any(group.name == name and _is_of_a_run(group) for group in _others_groups())


def does_another_wait() -> bool:
    """Say whether another actor waits for room, and would take what becomes free."""
    from ray.core.generated.gcs_pb2 import PlacementGroupTableData

    return any(group.state != PlacementGroupTableData.CREATED for group in _others_groups())


def room_by_node() -> list[dict[str, float]]:
    """Return what this actor could have of each node that stays: what is free, and its own.

    Its own is what its placement groups hold. A node that Ray will take away has no room.
    """
    import ray
    from ray._private.state import state

    room = state.available_resources_per_node()
    me = ray.get_runtime_context().get_actor_id()
    for group in _groups():
        if group.creator_actor_id.hex() != me:
            continue
        for bundle in group.bundles:
            node = room.get(bundle.node_id.hex())
            if node is not None:
                for name, amount in bundle.unit_resources.items():
                    node[name] = node.get(name, 0.0) + amount
    leaving = state.get_draining_nodes()
    return [node for name, node in room.items() if name not in leaving]
