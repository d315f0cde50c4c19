"""The evaluation protocols of the field, by name.

``nyu_densedepth``       the paper's: dense in-painted depth, 440x592, mirror averaging
``nyu_eigen``            BTS and later: measured depth with holes, 426x560
``kitti_eigen_garg``     annotated depth, Garg crop of the full map
``kitti_eigen_garg_kb``  the same, Garg crop of the 352x1216 map: another region
``kitti_eigen_crop``     annotated depth, Eigen's crop
``kitti_raw_lidar``      projected velodyne scans, 697 frames
``kitti_benchmark``      annotated depth, no crop, no cap on the ground truth
``whole_image``          a user's own data
"""

import re
from dataclasses import replace
from difflib import get_close_matches

import numpy as np

from densedepth.protocol import Protocol

__all__ = ["PROTOCOLS", "Protocol", "get_protocol", "whole_image"]


def whole_image(min_m: float = 0.001, max_m: float = 100.0) -> Protocol:
    """Make the protocol for a user's own data: every measured pixel in [min_m, max_m]."""
    limits = "-".join(np.format_float_positional(limit, trim="-") for limit in (min_m, max_m))
    return Protocol(
        name="whole_image" if (min_m, max_m) == (0.001, 100.0) else f"whole_image-{limits}m",
        ground_truth="the data set's own depth",
        min_m=min_m,
        max_m=max_m,
        bounds="inclusive",
        crop="none",
        crop_on="full",
        flip_average=False,
        scaling="none",
        num_official_images=None,
        range_edges_m=(0.0, max_m / 8, max_m / 4, max_m / 2, max_m),
        source="generic",
    )


_NYU_RANGES_M = (0.0, 1.0, 2.0, 4.0, 6.0, 10.0)
_KITTI_RANGES_M = (0.0, 10.0, 20.0, 40.0, 80.0)

_KITTI_EIGEN_GARG = Protocol(
    name="kitti_eigen_garg",
    ground_truth="KITTI annotated depth (value / 256 m, 0 = none), Eigen test list",
    min_m=0.001,
    max_m=80.0,
    bounds="strict",
    crop="garg",
    crop_on="full",
    flip_average=False,
    scaling="none",
    num_official_images=652,
    range_edges_m=_KITTI_RANGES_M,
    source="BTS utils/eval_with_pngs.py; crop of Garg et al. 2016",
    truth_kinds=("kitti_annotated",),
)

_KITTI_RAW_LIDAR = replace(
    _KITTI_EIGEN_GARG,
    name="kitti_raw_lidar",
    ground_truth="raw velodyne scan projected into the image, depth along the velodyne's x axis, "
    "Eigen test list",
    num_official_images=697,
    source="monodepth2 evaluate_depth.py, split `eigen`; -median for monocular models",
    truth_kinds=("kitti_velodyne_x",),
)

_ALL = (
    Protocol(
        name="nyu_densedepth",
        ground_truth="the in-painted, dense field `depths` of the labelled NYU Depth v2 set",
        min_m=0.1,
        max_m=10.0,
        bounds="none",
        crop="nyu_densedepth",
        crop_on="full",
        flip_average=True,
        scaling="none",
        num_official_images=654,
        range_edges_m=_NYU_RANGES_M,
        source="DenseDepth evaluate.py, eigen_test_crop [20, 459, 24, 615] inclusive",
        truth_kinds=("nyu_depths",),
    ),
    Protocol(
        name="nyu_eigen",
        ground_truth="the field `rawDepths` (with holes) of the labelled NYU Depth v2 set",
        min_m=0.001,
        max_m=10.0,
        bounds="strict",
        crop="nyu_eigen",
        crop_on="full",
        flip_average=False,
        scaling="none",
        num_official_images=654,
        range_edges_m=_NYU_RANGES_M,
        source="BTS, AdaBins, ZoeDepth: [45:471, 41:601]",
        truth_kinds=("nyu_raw_depths",),
    ),
    _KITTI_EIGEN_GARG,
    replace(
        _KITTI_EIGEN_GARG,
        name="kitti_eigen_garg_kb",
        crop_on="kb",
        flip_average=True,
        source="AdaBins evaluate.py, ZoeDepth evaluate.py: Garg crop taken of the 352x1216 map",
    ),
    replace(
        _KITTI_EIGEN_GARG,
        name="kitti_eigen_crop",
        crop="kitti_eigen",
        source="Eigen et al. 2014, indices of Monodepth utils/evaluate_kitti.py",
    ),
    _KITTI_RAW_LIDAR,
    replace(
        _KITTI_RAW_LIDAR,
        name="kitti_raw_lidar_camera_z",
        ground_truth="raw velodyne scan projected into the image, depth along the camera's axis, "
        "Eigen test list",
        truth_kinds=("kitti_camera_z",),
    ),
    replace(
        _KITTI_EIGEN_GARG,
        name="kitti_benchmark",
        bounds="positive",
        crop="none",
        range_edges_m=(*_KITTI_RANGES_M, 256.0),
        source="monodepth2 evaluate_depth.py, split `eigen_benchmark`: no crop, no 80 m cap on "
        "ground truth",
    ),
    whole_image(),
)
PROTOCOLS: dict[str, Protocol] = {protocol.name: protocol for protocol in _ALL}


def get_protocol(name: str) -> Protocol:
    """Find a protocol by name; ``-median``, ``-flip`` and ``-noflip`` may follow.

    ``whole_image-0.5-20m`` is ``whole_image(0.5, 20.0)``.

    Raises:
        ValueError: there is none; the message gives the nearest name and the list.
    """
    limits = re.fullmatch(r"(whole_image-([\d.]+)-([\d.]+)m)(-.*)?", name)
    if limits:
        protocol: Protocol | None = whole_image(float(limits[2]), float(limits[3]))
        parts = name.removeprefix(limits[1]).split("-")[1:]
    else:
        base, *parts = name.split("-")
        protocol = PROTOCOLS.get(base)
    for part in parts:
        if protocol is not None and part == "median":
            protocol = protocol.with_median_scaling()
        elif protocol is not None and part in ("flip", "noflip"):
            protocol = protocol.with_flip_average(part == "flip")
        else:
            protocol = None
    if protocol is None:
        near = get_close_matches(name, PROTOCOLS, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ValueError(
            f"no evaluation protocol {name!r}; {hint}there are {', '.join(PROTOCOLS)}, and "
            "-median, -flip, -noflip after a name"
        )
    return protocol
