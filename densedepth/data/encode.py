"""A picture with its depth as bytes and back: encode, decode, and check that both fit."""

import io
from typing import Any, Literal

import numpy as np
import simplejpeg
from jaxtyping import Float32, UInt8, UInt16
from PIL import Image

from densedepth.data import png
from densedepth.data.depth_codec import checked_size, pack_depth, unpack_depth
from densedepth.errors import BadFrameError
from densedepth.sample import EncodedSample, Sample

_JPEG_START = b"\xff\xd8\xff"
_PILLOW_ERRORS = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)


def image_format(data: bytes, name: str = "image") -> Literal["jpg", "png"]:
    """Tell JPEG from PNG by the first bytes, whatever the file is called.

    Raises:
        BadFrameError: it is neither; ``name`` is the file that the error names.
    """
    if data.startswith(_JPEG_START):
        return "jpg"
    if data.startswith(png.SIGNATURE):
        return "png"
    raise BadFrameError(name, f"neither a JPEG nor a PNG: it starts with {data[:8]!r}")


def decode_size_px(data: bytes, name: str = "image") -> tuple[int, int]:
    """Height and width in pixels of a JPEG or PNG, from its header alone.

    Raises:
        BadFrameError: the header cannot be read.
    """
    try:
        if image_format(data, name) == "png":
            return png.read_header(data).size_px
        height_px, width_px, *_ = simplejpeg.decode_jpeg_header(data)
    except ValueError as error:
        if isinstance(error, BadFrameError):
            raise
        raise BadFrameError(name, f"truncated or broken header: {error}") from error
    return height_px, width_px


def decode_image(data: bytes, name: str = "image") -> UInt8[np.ndarray, "h w 3"]:
    """Decode a colour picture, JPEG or PNG, to RGB 0..255.

    A JPEG's turn mark (EXIF) is not applied: depth maps carry none.

    Raises:
        BadFrameError: the file is truncated or corrupt, or 16-bit grey (a depth map).
    """
    checked_size(decode_size_px(data, name), name)
    if image_format(data, name) == "jpg":
        try:
            # Strict: libjpeg fills what is missing with grey and only warns; here that is an error.
            return simplejpeg.decode_jpeg(data, colorspace="RGB", strict=True)
        except ValueError as error:
            raise BadFrameError(name, f"corrupt or truncated JPEG: {error}") from error
    picture = _open_png(data, name)
    if picture.mode.startswith("I"):
        raise BadFrameError(name, "a 16-bit grey PNG is a depth map and no colour picture")
    return np.asarray(picture.convert("RGB"))


def decode_image_into(data: bytes, out: UInt8[np.ndarray, "h w 3"], name: str = "image") -> None:
    """Decode a colour picture into an array of its size, a JPEG without another copy.

    Raises:
        BadFrameError: as ``decode_image``; or the picture has another size.
    """
    if decode_size_px(data, name) != out.shape[:2]:
        raise BadFrameError(name, f"the picture does not have the {_size(out)} pixels of its depth")
    if image_format(data, name) == "png":
        out[...] = decode_image(data, name)
        return
    try:
        simplejpeg.decode_jpeg(data, colorspace="RGB", strict=True, buffer=out)
    except ValueError as error:
        raise BadFrameError(name, f"corrupt or truncated JPEG: {error}") from error


def decode_depth_png(
    data: bytes, name: str = "depth"
) -> UInt8[np.ndarray, "h w"] | UInt16[np.ndarray, "h w"]:
    """Decode a grey PNG of 8 or 16 bits, a raw data set's depth map, to its stored steps.

    Raises:
        BadFrameError: it is truncated, corrupt, or of another kind.
    """
    bits = depth_bits(data, name)
    checked_size(png.read_header(data).size_px, name)
    units = np.asarray(_open_png(data, name))
    return units.astype(np.uint8 if bits == 8 else np.uint16, copy=False)


def depth_bits(data: bytes, name: str = "depth") -> int:
    """Bits per pixel of a grey depth PNG, from its header: 8 or 16.

    Raises:
        BadFrameError: it is no PNG, or neither 8- nor 16-bit grey.
    """
    try:
        header = png.read_header(data)
    except ValueError as error:
        raise BadFrameError(name, str(error)) from error
    if not header.is_grey or header.bits not in (8, 16):
        raise BadFrameError(name, f"a depth map is an 8- or 16-bit grey PNG; this is: {header}")
    return header.bits


def decode_depth_m(encoded: EncodedSample) -> Float32[np.ndarray, "h w"]:
    """Decode a sample's depth to metres; 0 = no measurement.

    Steps are divided by steps per metre, not multiplied by metres per step: 1000 and 256 are
    exact numbers and 1/1000 is none, so 10 m in a file are 10 m and not the float next to it,
    which a protocol's ``depth < 10`` would take in.

    Raises:
        BadFrameError: the bytes are damaged; the error names the sample's key.
    """
    units = unpack_depth(encoded.depth, f"{encoded.key}.depth")
    return units.astype(np.float32) / np.float32(1 / encoded.depth_unit_m)


def encode_depth_png(
    depth_units: UInt8[np.ndarray, "h w"] | UInt16[np.ndarray, "h w"],
) -> bytes:
    """Encode depth steps (0 = no measurement) as a grey PNG of the array's own 8 or 16 bits.

    This is how a shard's depth is exported: ``encode_depth_png(unpack_depth(sample.depth))``.
    """
    return _encode_png(depth_units)


def encode_image_png(image: UInt8[np.ndarray, "h w 3"]) -> bytes:
    """Encode a colour picture without loss."""
    return _encode_png(image)


def quantise_depth(
    depth_m: np.ndarray, depth_unit_m: float, name: str = "depth"
) -> UInt16[np.ndarray, "h w"]:
    """Round metres to 16-bit steps; what is measured stays measured, NaN and <= 0 become 0.

    Raises:
        BadFrameError: a depth is beyond the last step.
    """
    measured = np.isfinite(depth_m) & (depth_m > 0)
    steps = np.where(measured, depth_m, 0).astype(np.float64) / depth_unit_m
    if steps.max(initial=0) >= 65535.5:
        raise BadFrameError(
            name,
            f"depth {depth_m[measured].max():.2f} m is beyond {65535 * depth_unit_m:.2f} m, "
            f"the most that 16 bits hold in steps of {depth_unit_m * 1000:.3f} mm",
        )
    return np.where(measured, np.maximum(np.rint(steps), 1), 0).astype(np.uint16)


def decode(encoded: EncodedSample) -> Sample:
    """Decode a sample's bytes to arrays.

    Raises:
        BadFrameError: the bytes are damaged; the error names the sample's key.
    """
    return Sample(
        key=encoded.key,
        image=decode_image(encoded.image, f"{encoded.key}.{encoded.image_format}"),
        depth_m=decode_depth_m(encoded),
        info=encoded.info,
    )


def encode_sample(
    key: str,
    image: bytes,
    depth_units: UInt8[np.ndarray, "h w"] | UInt16[np.ndarray, "h w"],
    depth_unit_m: float,
    info: dict[str, Any],
    *,
    image_name: str,
    depth_name: str,
) -> EncodedSample:
    """Make sure that a raw frame can be used, and pack it as shards hold it.

    Args:
        key: as in ``Frame``.
        image: the colour picture's file, kept as it is.
        depth_units: depth steps; 0 = no measurement.
        depth_unit_m: metres per step.
        info: facts to keep beside the sample.
        image_name: the file that an error about the picture names.
        depth_name: the file that an error about the depth names.

    Raises:
        BadFrameError: the picture is damaged, the sizes differ, or no pixel is measured.
    """
    picture = decode_image(image, image_name)
    if picture.shape[:2] != depth_units.shape:
        raise BadFrameError(
            depth_name,
            f"the depth map is {_size(depth_units)} pixels, its picture {image_name} is "
            f"{_size(picture)}",
        )
    depth = pack_depth(depth_units)
    if not depth.num_measured:
        raise BadFrameError(depth_name, "no pixel is measured: every value means 'nothing here'")
    return EncodedSample(key, image, image_format(image, image_name), depth, depth_unit_m, info)


def _open_png(data: bytes, name: str) -> Image.Image:
    try:
        png.verify_chunks(data)
        picture = Image.open(io.BytesIO(data), formats=["PNG"])
        picture.load()
    except _PILLOW_ERRORS as error:
        raise BadFrameError(name, str(error)) from error
    return picture


def _encode_png(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    # Level 4 takes half the time of Pillow's default (6) and makes files at most 3 % larger.
    Image.fromarray(np.ascontiguousarray(array)).save(stream, format="PNG", compress_level=4)
    return stream.getvalue()


def _size(array: np.ndarray) -> str:
    return f"{array.shape[1]}x{array.shape[0]}"
