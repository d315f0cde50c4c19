"""Calibration: where the camera and the scanner of a synthetic car sit, in KITTI's own text.

The numbers are like those of KITTI's car without being them. They are rounded as the files
hold them before anything is computed, so that a reader of the files gets the same geometry.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from densedepth.data.synthetic.views import PinholeView

FULL_SIZE_PX = (375, 1242)
FOCAL_PX = 721.5377  # at full size
LIDAR_HEIGHT_M = 1.73
_CENTER_PX = (609.5, 172.8)
_CAMERA_2_M = np.array([0.06, 0.0003, 0.0027])  # shift of colour camera 2 against camera 0
_LIDAR_TO_CAMERA_M = np.array([-0.004, -0.075, -0.27])
_LIDAR_AXES = np.array([[0.0, -1.0, 0.0], [0.0, 0.0, -1.0], [1.0, 0.0, 0.0]])


@dataclass(frozen=True)
class Calibration:
    """How a lidar point gets into camera 2's picture: ``P (R_rect (R x + T))``.

    Pixels are counted from 1, as the usual code that reads KITTI takes them: the first column of
    the picture is at u = 1.

    Attributes:
        size_px: height and width of the picture.
        projection: P_rect_02.
        rectification: R_rect_00.
        rotation: R of ``calib_velo_to_cam.txt``.
        translation_m: T of the same.
    """

    size_px: tuple[int, int]
    projection: Float64[np.ndarray, "3 4"]
    rectification: Float64[np.ndarray, "3 3"]
    rotation: Float64[np.ndarray, "3 3"]
    translation_m: Float64[np.ndarray, "3"]

    @property
    def focal_px(self) -> float:
        """Horizontal focal length."""
        return float(self.projection[0, 0])

    def camera(
        self, lidar_m: Float64[np.ndarray, "3"], world_from_lidar: Float64[np.ndarray, "3 3"]
    ) -> PinholeView:
        """Give the camera's view when the scanner is at a place in the world."""
        intrinsics = self.projection[:, :3]
        camera_2 = np.linalg.solve(intrinsics, self.projection[:, 3])
        camera_from_lidar = self.rectification @ self.rotation
        center = -camera_from_lidar.T @ (self.rectification @ self.translation_m + camera_2)
        return PinholeView(
            lidar_m + world_from_lidar @ center,
            world_from_lidar @ camera_from_lidar.T,
            (float(intrinsics[0, 0]), float(intrinsics[1, 1])),
            (float(intrinsics[0, 2]) - 1, float(intrinsics[1, 2]) - 1),
            self.size_px,
        )

    def cam_to_cam_text(self) -> str:
        """Write ``calib_cam_to_cam.txt``: camera 2, and camera 0, which it refers to."""
        height, width = self.size_px
        lines = ["calib_time: 01-Jan-2011 12:00:00", "corner_dist: 9.950000e-02"]
        camera_0 = self.projection.copy()
        camera_0[:, 3] = 0.0
        for name, projection in (("00", camera_0), ("02", self.projection)):
            lines += [
                _line(f"S_{name}", np.array([width, height])),
                _line(f"K_{name}", self.projection[:, :3]),
                _line(f"D_{name}", np.zeros(5)),
                _line(f"R_{name}", np.eye(3)),
                _line(f"T_{name}", np.zeros(3) if name == "00" else _CAMERA_2_M),
                _line(f"S_rect_{name}", np.array([width, height])),
                _line(f"R_rect_{name}", self.rectification),
                _line(f"P_rect_{name}", projection),
            ]
        return "\n".join(lines) + "\n"

    def velo_to_cam_text(self) -> str:
        """Write ``calib_velo_to_cam.txt``."""
        lines = [
            "calib_time: 01-Jan-2011 12:00:00",
            _line("R", self.rotation),
            _line("T", self.translation_m),
            _line("delta_f", np.zeros(2)),
            _line("delta_c", np.zeros(2)),
        ]
        return "\n".join(lines) + "\n"


def calibration_for(size_px: tuple[int, int]) -> Calibration:
    """Give the calibration for pictures of a size: the full-size camera, scaled."""
    scale_y, scale_x = (size / full for size, full in zip(size_px, FULL_SIZE_PX, strict=True))
    intrinsics = np.array(
        [
            [FOCAL_PX * scale_x, 0.0, _CENTER_PX[0] * scale_x],
            [0.0, FOCAL_PX * scale_y, _CENTER_PX[1] * scale_y],
            [0.0, 0.0, 1.0],
        ]
    )
    projection = np.column_stack([intrinsics, intrinsics @ _CAMERA_2_M])
    return Calibration(
        size_px,
        _as_written(projection),
        _as_written(_turn(0.004, 0.0075, -0.0098)),
        _as_written(_turn(0.0008, -0.0147, -0.0075) @ _LIDAR_AXES),
        _as_written(_LIDAR_TO_CAMERA_M),
    )


def _turn(about_x: float, about_y: float, about_z: float) -> np.ndarray:
    out = np.eye(3)
    for axis, angle in enumerate((about_x, about_y, about_z)):
        i, j = [k for k in range(3) if k != axis]
        one = np.eye(3)
        one[i, i] = one[j, j] = np.cos(angle)
        one[i, j], one[j, i] = -np.sin(angle), np.sin(angle)
        out = one @ out
    return out


def _format(value: float) -> str:
    return f"{value:.6e}"


def _as_written(values: np.ndarray) -> np.ndarray:
    return np.array([float(_format(v)) for v in values.ravel()]).reshape(values.shape)


def _line(name: str, values: np.ndarray) -> str:
    return f"{name}: " + " ".join(_format(float(v)) for v in values.ravel())
