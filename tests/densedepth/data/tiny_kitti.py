"""A tiny KITTI raw folder: one camera of 40x24 pixels, a few points per scan."""

from pathlib import Path

import numpy as np

from tests.densedepth.data.tiny_frames import write_depth, write_image

HEIGHT_PX, WIDTH_PX, FOCAL_PX = 24, 40, 30.0
DATE = "2011_09_26"

# The velodyne's x, y, z (forward, left, up) are the camera's z, -x, -y; it stands 0.27 m behind.
CAMERAS = f"""calib_time: 09-Jan-2012 13:57:47
corner_dist: 9.950000e-02
S_rect_00: 99 99
R_rect_00: 1 0 0 0 1 0 0 0 1
S_rect_02: {WIDTH_PX:e} {HEIGHT_PX:e}
P_rect_02: {FOCAL_PX} 0 20 0 0 {FOCAL_PX} 12 0 0 0 1 0
S_rect_03: {WIDTH_PX:e} {HEIGHT_PX:e}
P_rect_03: {FOCAL_PX} 0 20 -16 0 {FOCAL_PX} 12 0 0 0 1 0
"""
VELODYNE = """calib_time: 15-Mar-2012 11:37:16
R: 0 -1 0 0 0 -1 1 0 0
T: 0 0 -0.27
"""


def write_calibration(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "calib_cam_to_cam.txt").write_text(CAMERAS)
    (folder / "calib_velo_to_cam.txt").write_text(VELODYNE)


def scan(seed: int, num_points: int = 400) -> np.ndarray:
    """Points in front of and behind the velodyne."""
    rng = np.random.default_rng(seed)
    points = rng.uniform([-20, -10, -3, 0], [40, 10, 1, 1], (num_points, 4))
    return points.astype(np.float32)


def drive_name(drive: int) -> str:
    return f"{DATE}_drive_{drive:04d}_sync"


def write_frame(
    root: Path, drive: int, frame: int, *, ending: str = ".png", tree: str = "train"
) -> None:
    """Write picture, scan and annotated depth of a frame; drive and frame give the seed."""
    folder, number = root / DATE / drive_name(drive), f"{frame:010d}"
    image = folder / "image_02" / "data" / f"{number}{ending}"
    write_image(image, 100 * drive + frame, (HEIGHT_PX, WIDTH_PX))
    points = folder / "velodyne_points" / "data" / f"{number}.bin"
    points.parent.mkdir(parents=True, exist_ok=True)
    points.write_bytes(scan(100 * drive + frame).tobytes())
    units = np.zeros((HEIGHT_PX, WIDTH_PX), np.uint16)
    units[10:20, 5:30] = 256 * (5 + frame)
    annotated = root / "data_depth_annotated" / tree / drive_name(drive)
    write_depth(annotated / "proj_depth" / "groundtruth" / "image_02" / f"{number}.png", units)


def bts_line(drive: int, frame: int, slash: str = "") -> str:
    name, number = drive_name(drive), f"{frame:010d}"
    return (
        f"{slash}{DATE}/{name}/image_02/data/{number}.png "
        f"{slash}{name}/proj_depth/groundtruth/image_02/{number}.png 721.5377"
    )
