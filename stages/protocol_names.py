"""The protocols' names, for checking settings without torch or numpy."""

import re

from stages.settings import one_of

PROTOCOL_NAMES = (
    "nyu_densedepth",
    "nyu_eigen",
    "kitti_eigen_garg",
    "kitti_eigen_garg_kb",
    "kitti_eigen_crop",
    "kitti_raw_lidar",
    "kitti_raw_lidar_camera_z",
    "kitti_benchmark",
    "whole_image",
)
"""For the hint of a misspelt name; ``densedepth.protocols`` has them, with variants."""


def checked_protocol(name: str) -> str:
    """Return a protocol's name, its variants' marks included.

    Raises:
        ValueError: there is no such protocol; the message has the nearest name.
    """
    number = r"\d+(?:\.\d+)?"
    form = rf"(\w+?)(?:-({number})-({number})m)?(?:-median|-flip|-noflip)*"
    parts = re.fullmatch(form, name)
    base = one_of(parts[1] if parts else name, PROTOCOL_NAMES, "protocol")
    limits_m = [float(text) for text in (parts[2], parts[3]) if text] if parts else []
    if limits_m and (base != "whole_image" or not 0 < limits_m[0] < limits_m[1]):
        raise ValueError(
            f"{name!r}: only whole_image has limits, near before far, as whole_image-0.5-20m"
        )
    return name
