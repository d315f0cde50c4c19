"""The lines of KITTI lists, in the forms that the field uses."""

import re
from dataclasses import dataclass

_PICTURE = re.compile(
    r"^/?(?P<date>\d{4}_\d\d_\d\d)/(?P<drive>\w+_sync)/image_0(?P<camera>[23])/data/"
    r"(?P<frame>\d+)\.(?:png|jpg)$"
)
_DRIVE = re.compile(r"^/?(?P<date>\d{4}_\d\d_\d\d)/(?P<drive>\w+_sync)$")
_CAMERAS = {"l": 2, "r": 3}


@dataclass(frozen=True)
class KittiLine:
    """What a line says about a frame.

    Attributes:
        date: the day's folder, ``2011_09_26``.
        drive: the drive's folder, ``2011_09_26_drive_0002_sync``.
        camera: 2 = left colour, 3 = right colour.
        frame: its number in the drive.
        annotated: the annotated depth map below ``train/`` or ``val/``; None when the list says
            that KITTI has none.
        focal_px: where the list has it.
    """

    date: str
    drive: str
    camera: int
    frame: int
    annotated: str | None
    focal_px: float | None = None

    @property
    def name(self) -> str:
        """Drive, camera and frame in one word."""
        return f"{self.drive}_{self.camera:02d}_{self.frame:010d}"

    @property
    def picture(self) -> str:
        """The colour picture below the raw root, without its extension."""
        return f"{self.date}/{self.drive}/image_{self.camera:02d}/data/{self.frame:010d}"

    @property
    def scan(self) -> str:
        """The velodyne scan below the raw root."""
        return f"{self.date}/{self.drive}/velodyne_points/data/{self.frame:010d}.bin"


def parse_kitti_line(line: str) -> KittiLine:
    """Parse a line of BTS's and AdaBins' lists or of monodepth2's.

    The forms are ``picture depth focal``, where depth may be ``None``, with or without leading
    slashes; and ``date/drive frame side``, the frame number padded or not, side ``l`` or ``r``.

    Raises:
        ValueError: the line has neither form.
    """
    cells = line.split()
    if len(cells) == 3 and cells[1].isdecimal() and cells[2] in _CAMERAS:
        drive = _DRIVE.match(cells[0])
        if drive is not None:
            camera, frame = _CAMERAS[cells[2]], int(cells[1])
            annotated = _annotated(drive["drive"], camera, frame)
            return KittiLine(drive["date"], drive["drive"], camera, frame, annotated)
    picture = _PICTURE.match(cells[0]) if cells else None
    if picture is None or len(cells) not in (2, 3):
        raise ValueError("neither 'picture depth focal' nor 'date/drive frame l|r'")
    camera, frame = int(picture["camera"]), int(picture["frame"])
    has_depth = cells[1] != "None"
    return KittiLine(
        picture["date"],
        picture["drive"],
        camera,
        frame,
        _annotated(picture["drive"], camera, frame) if has_depth else None,
        float(cells[2]) if len(cells) == 3 else None,
    )


def _annotated(drive: str, camera: int, frame: int) -> str:
    return f"{drive}/proj_depth/groundtruth/image_{camera:02d}/{frame:010d}.png"
