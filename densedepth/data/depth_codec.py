"""Depth maps packed without loss: a pco file of the pixels' steps, row after row.

pcodec's numbers beside PNG and others: docs/shard_format.md. A pco file says neither the map's
shape nor whether its bytes are whole; ``EncodedDepth`` carries both.
"""

import zlib

import numpy as np
import pcodec.standalone as pco
from jaxtyping import UInt8, UInt16
from pcodec import ChunkConfig

from densedepth.errors import BadFrameError
from densedepth.sample import EncodedDepth

MAX_PIXELS = 2**26
"""The most that a map or picture may have: a header that promises more is not believed."""
_LEVEL = 8  # levels above take longer and save under 2 %
_DTYPES = {8: np.uint8, 16: np.uint16}


def pack_depth(
    depth_units: UInt8[np.ndarray, "h w"] | UInt16[np.ndarray, "h w"],
) -> EncodedDepth:
    """Pack depth steps (0 = no measurement) in the array's own 8 or 16 bits.

    Equal maps give equal bytes, as long as pcodec's version is the same.
    """
    config = ChunkConfig(compression_level=_LEVEL, enable_8_bit=True)
    data = pco.simple_compress(np.ascontiguousarray(depth_units).reshape(-1), config)
    height_px, width_px = depth_units.shape
    return EncodedDepth(
        data=data,
        size_px=(height_px, width_px),
        bits=8 * depth_units.itemsize,
        crc32=zlib.crc32(data),
        num_measured=int(np.count_nonzero(depth_units)),
    )


def unpack_depth(
    depth: EncodedDepth, name: str = "depth"
) -> UInt8[np.ndarray, "h w"] | UInt16[np.ndarray, "h w"]:
    """Unpack a map to its steps.

    Args:
        depth: the packed map.
        name: what an error names.

    Raises:
        BadFrameError: the bytes are damaged, or do not hold a map of the size they should.
    """
    units = np.empty(checked_size(depth.size_px, name), _DTYPES[depth.bits])
    unpack_depth_into(depth, units, name)
    return units


def unpack_depth_into(
    depth: EncodedDepth,
    out: UInt8[np.ndarray, "h w"] | UInt16[np.ndarray, "h w"],
    name: str = "depth",
) -> None:
    """Unpack a map into an array of its size; 8 bits go into 16 too.

    Raises:
        BadFrameError: as ``unpack_depth``.
    """
    if out.shape != depth.size_px:
        raise ValueError(f"{name}: a map of {depth.size_px} pixels for an array of {out.shape}")
    if out.itemsize * 8 != depth.bits:
        out[...] = unpack_depth(depth, name)
        return
    if zlib.crc32(depth.data) != depth.crc32:
        raise BadFrameError(name, "damaged depth: its checksum is not the one written with it")
    try:
        progress = pco.simple_decompress_into(depth.data, out.reshape(-1))
    except RuntimeError as error:  # all that pcodec raises
        raise BadFrameError(name, f"damaged depth: {error}") from error
    if not progress.finished or progress.n_processed != out.size:
        raise BadFrameError(
            name, f"damaged depth: not the {out.size} pixels that its facts promise"
        )


def checked_size(size_px: tuple[int, int], name: str) -> tuple[int, int]:
    """Return a header's size if it can be believed; memory is taken after this only.

    Raises:
        BadFrameError: no pixel, or more than ``MAX_PIXELS``.
    """
    height_px, width_px = size_px
    if height_px < 1 or width_px < 1 or height_px * width_px > MAX_PIXELS:
        raise BadFrameError(
            name, f"{width_px}x{height_px} pixels; at least 1 and at most {MAX_PIXELS} can be read"
        )
    return size_px
