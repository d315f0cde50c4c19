"""A velodyne scan projected into a KITTI camera, by the field's exact rounding.

Method: Eigen et al. 2014 as the evaluations of monodepth and monodepth2 carry it out.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float32, Float64

from densedepth.data.frame_files import read_bytes
from densedepth.errors import BadFrameError, DataError, MissingDataError

DepthAxis = Literal["camera_z", "velodyne_x"]

CAMERA_FILE = "calib_cam_to_cam.txt"
VELODYNE_FILE = "calib_velo_to_cam.txt"


@dataclass(frozen=True, eq=False)
class Calibration:
    """How a rectified camera of one recording day sees the velodyne's points.

    Attributes:
        velodyne_to_image: takes (x, y, z, 1) in metres to (u z, v z, z), z the depth in metres.
        size_px: height and width of the rectified picture.
        focal_px: horizontal and vertical focal length.
        centre_px: where the optical axis meets the picture, from the left and from the top.
    """

    velodyne_to_image: Float64[np.ndarray, "3 4"]
    size_px: tuple[int, int]
    focal_px: tuple[float, float]
    centre_px: tuple[float, float]


def read_calibration(folder: Path, camera: int) -> Calibration:
    """Read the two calibration files of a recording day.

    Args:
        folder: the day's folder (``2011_09_26``).
        camera: 2 = left colour, 3 = right colour.

    Raises:
        MissingDataError: a file is not there.
        DataError: a file cannot be read or lacks a matrix.
    """
    cameras, velodyne = folder / CAMERA_FILE, folder / VELODYNE_FILE
    camera_rows, velodyne_rows = _read_rows(cameras), _read_rows(velodyne)
    projection = _matrix(camera_rows, f"P_rect_{camera:02d}", (3, 4), cameras)
    rectification = np.eye(4)
    rectification[:3, :3] = _matrix(camera_rows, "R_rect_00", (3, 3), cameras)
    pose = np.eye(4)
    pose[:3, :3] = _matrix(velodyne_rows, "R", (3, 3), velodyne)
    pose[:3, 3:] = _matrix(velodyne_rows, "T", (3, 1), velodyne)
    width_px, height_px = _matrix(camera_rows, f"S_rect_{camera:02d}", (2,), cameras)
    return Calibration(
        velodyne_to_image=projection @ rectification @ pose,
        size_px=(int(height_px), int(width_px)),
        focal_px=(float(projection[0, 0]), float(projection[1, 1])),
        centre_px=(float(projection[0, 2]), float(projection[1, 2])),
    )


def read_scan(path: Path) -> Float32[np.ndarray, "n 4"]:
    """Read a scan: x forward, y left, z up in metres, and the reflectance.

    Raises:
        BadFrameError: it is missing, cut off, empty, or holds what is no number.
    """
    data = read_bytes(path)
    if len(data) % 16:
        raise BadFrameError(
            str(path), f"{len(data)} bytes; a scan has 16 per point (4 float32): it is cut off"
        )
    points_xyzr = np.frombuffer(data, dtype="<f4").reshape(-1, 4)
    if not np.isfinite(points_xyzr).all():
        raise BadFrameError(str(path), "the scan holds NaN or infinity")
    return points_xyzr


def project_velodyne(
    points_xyzr: Float32[np.ndarray, "n 4"],
    calibration: Calibration,
    size_px: tuple[int, int],
    depth_axis: DepthAxis = "camera_z",
) -> Float32[np.ndarray, "h w"]:
    """Project a scan to a sparse depth map.

    The steps: drop points behind the velodyne (x < 0), project, round to the nearest pixel (half
    to even) and subtract 1, drop what is outside, keep the least depth of each pixel, set negative
    depth to 0. The subtraction follows KITTI's MATLAB code, which counts pixels from 1.

    The usual code finds points of one pixel by ``row * (width - 1) + column - 1``, which also
    takes the last pixel of a row and the first of the next but one place for the same. Here they
    are two; only columns 0 and ``width - 1`` can differ, which every evaluation crop excludes.

    Args:
        points_xyzr: as ``read_scan`` gives it.
        calibration: of the picture's day and camera.
        size_px: height and width of the picture.
        depth_axis: ``camera_z``, the depth that a camera has; or ``velodyne_x``, the forward
            distance from the velodyne, which the original evaluation wrote by mistake and
            monodepth2 keeps for ``eigen`` so that figures stay comparable.

    Returns:
        Metres; 0 = no measurement.
    """
    height_px, width_px = size_px
    # compress, not a boolean index: seven times as fast on rows of four.
    ahead = points_xyzr.compress(points_xyzr[:, 0] >= 0, axis=0)
    homogeneous = np.ones((4, len(ahead)))
    homogeneous[:3] = ahead[:, :3].T
    u_z, v_z, z_m = calibration.velodyne_to_image @ homogeneous
    with np.errstate(divide="ignore", invalid="ignore"):
        column, row = np.rint(u_z / z_m) - 1, np.rint(v_z / z_m) - 1
    inside = (column >= 0) & (row >= 0) & (column < width_px) & (row < height_px)
    pixel = row[inside].astype(np.int64) * width_px + column[inside].astype(np.int64)
    depth_m = z_m[inside] if depth_axis == "camera_z" else homogeneous[0, inside]
    nearest_m = np.zeros(height_px * width_px, dtype=np.float32)
    nearest_m[pixel] = np.inf
    np.minimum.at(nearest_m, pixel, depth_m.astype(np.float32))
    nearest_m[pixel] = np.maximum(nearest_m[pixel], 0)
    return nearest_m.reshape(height_px, width_px)


def _read_rows(path: Path) -> dict[str, str]:
    try:
        lines = path.read_text().splitlines()
    except FileNotFoundError:
        raise MissingDataError(
            f"no calibration {path}; KITTI has it in <date>_calib.zip, unpack it into the root"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    return dict(line.split(":", 1) for line in lines if ":" in line)


def _matrix(
    rows: dict[str, str], name: str, shape: tuple[int, ...], path: Path
) -> Float64[np.ndarray, "..."]:
    try:
        matrix = np.array(rows[name].split(), dtype=np.float64).reshape(shape)
    except KeyError:
        raise DataError(f"{path} has no line {name!r}") from None
    except ValueError as error:
        raise DataError(f"{path}: line {name!r} is no {shape} matrix: {error}") from error
    if not np.isfinite(matrix).all():
        raise DataError(f"{path}: line {name!r} holds NaN or infinity")
    return matrix
