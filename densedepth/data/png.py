"""A PNG file's header and checksums, read without decoding its pixels.

Pillow does not look at the checksum of pixel data; a file damaged on its way is found here.
"""

import struct
import zlib
from dataclasses import dataclass

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_HEADER_END = 8 + 8 + 13  # signature, the chunk's length and name, IHDR's fields
GREY = 0
_COLOUR_TYPES = {0: "grey", 2: "RGB", 3: "palette", 4: "grey with alpha", 6: "RGB with alpha"}


@dataclass(frozen=True)
class PngHeader:
    """What a PNG says about itself.

    Attributes:
        size_px: height and width.
        bits: per channel: 1, 2, 4, 8 or 16.
        colour_type: PNG's own number; 0 is grey.
    """

    size_px: tuple[int, int]
    bits: int
    colour_type: int

    @property
    def is_grey(self) -> bool:
        """One channel, no palette, no alpha."""
        return self.colour_type == GREY

    def __str__(self) -> str:
        kind = _COLOUR_TYPES.get(self.colour_type, f"colour type {self.colour_type}")
        return f"{self.bits}-bit {kind} PNG"


def read_header(data: bytes) -> PngHeader:
    """Read the first chunk of a PNG.

    Raises:
        ValueError: the bytes are not the beginning of a PNG.
    """
    if not data.startswith(SIGNATURE):
        raise ValueError(f"not a PNG: it starts with {data[:8]!r}")
    if len(data) < _HEADER_END or data[12:16] != b"IHDR":
        raise ValueError("truncated PNG: the header is cut off")
    width_px, height_px, bits, colour_type = struct.unpack(">IIBB", data[16:26])
    return PngHeader((height_px, width_px), bits, colour_type)


def verify_chunks(data: bytes) -> None:
    """Compare every chunk of a PNG with its checksum, up to the end mark.

    Raises:
        ValueError: a chunk is cut off or damaged, or there is no end mark.
    """
    view = memoryview(data)
    start = len(SIGNATURE)
    while start + 12 <= len(data):
        length = int.from_bytes(view[start : start + 4], "big")
        name = bytes(view[start + 4 : start + 8])
        end = start + 8 + length
        if end + 4 > len(data):
            break
        if zlib.crc32(view[start + 4 : end]) != int.from_bytes(view[end : end + 4], "big"):
            raise ValueError(f"corrupt PNG: the checksum of chunk {name!r} at {start} is wrong")
        if name == b"IEND":
            return
        start = end + 4
    raise ValueError(f"truncated PNG: {len(data)} bytes and no end mark")
