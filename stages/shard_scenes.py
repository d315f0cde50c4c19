"""Rendered scenes as a raw data set, where no real one is at hand."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from cluster.services import Services
from stages.settings import Settings


class SyntheticConfig(Settings):
    """Scenes to be made, in the raw layout of a real data set, where none is at hand."""

    num_train_scenes: int = Field(24, ge=1, description="rooms, or drives")
    frames_per_scene: int = Field(8, ge=1, description="frames of each")
    num_test: int = Field(24, ge=1, description="test frames, each of a scene of its own")
    size_px: tuple[Annotated[int, Field(ge=16)], Annotated[int, Field(ge=16)]] = Field(
        (480, 640), description="height, width"
    )
    seed: int = Field(0, ge=0, description="another seed, other scenes")


def make_scenes(made: SyntheticConfig, raw_format: str, root: Path, services: Services) -> None:
    """Write the raw data set; the writer leaves one that is there, whole, as it is.

    Args:
        made: the scenes.
        raw_format: the raw layout; streets for KITTI's, rooms for the others.
        root: its folder.
        services: is told how far it is.
    """
    from densedepth.data import synthetic

    shared: dict[str, Any] = {
        "num_test": made.num_test,
        "size_px": made.size_px,
        "seed": made.seed,
        "on_progress": lambda done, total: services.progress(done, total, "scenes", "rendering"),
    }
    if raw_format.startswith("kitti"):
        synthetic.write_kitti_like(
            root,
            num_train_drives=made.num_train_scenes,
            frames_per_drive=made.frames_per_scene,
            **shared,
        )
    else:
        synthetic.write_nyu_like(
            root,
            num_train_scenes=made.num_train_scenes,
            frames_per_scene=made.frames_per_scene,
            **shared,
        )
