"""The files of one raw frame: read them, check them, pack them as shards hold them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from densedepth.data.encode import decode_depth_png, depth_bits, encode_sample
from densedepth.errors import BadFrameError
from densedepth.sample import EncodedSample, Frame


def read_bytes(path: Path) -> bytes:
    """Read a frame's file.

    Raises:
        BadFrameError: it is missing, unreadable or empty.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise BadFrameError(str(path), "no such file") from None
    except OSError as error:
        raise BadFrameError(str(path), f"cannot be read: {error.strerror}") from error
    if not data:
        raise BadFrameError(str(path), "the file is empty")
    return data


def encode_pair(
    frame: Frame,
    unit_m_by_bits: Mapping[int, float],
    info: dict[str, Any],
    invalid_values: Sequence[int] = (),
) -> EncodedSample:
    """Read a colour file and its depth PNG, check both and pack the depth.

    Args:
        frame: the two files.
        unit_m_by_bits: metres per step for each bit depth that the data set has.
        info: facts to keep beside the sample.
        invalid_values: steps other than 0 that mean "no measurement"; they become 0.

    Raises:
        BadFrameError: as ``encode_sample``; or the PNG is damaged, or has a bit depth that the
            data set does not have.
    """
    image_name, depth_name = str(frame.image_path), str(frame.depth_path)
    image, depth_png = read_bytes(frame.image_path), read_bytes(frame.depth_path)
    bits = depth_bits(depth_png, depth_name)
    if bits not in unit_m_by_bits:
        wanted = " or ".join(str(b) for b in sorted(unit_m_by_bits))
        raise BadFrameError(depth_name, f"{bits}-bit depth; this data set has {wanted}-bit depth")
    units = decode_depth_png(depth_png, depth_name)
    if len(invalid_values):
        units = np.where(np.isin(units, invalid_values), 0, units).astype(units.dtype)
    return encode_sample(
        frame.key,
        image,
        units,
        unit_m_by_bits[bits],
        info,
        image_name=image_name,
        depth_name=depth_name,
    )


def source_name(path: Path, root: Path) -> str:
    """A file's path below its root, as it is written into a sample's facts."""
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name
