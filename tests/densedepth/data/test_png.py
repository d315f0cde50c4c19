import numpy as np
import pytest

from densedepth.data import png
from tests.densedepth.data.tiny_frames import file_bytes, picture, ramp


def test_the_header_tells_size_bits_and_kind_of_a_png():
    header = png.read_header(file_bytes(ramp(np.uint16), "PNG"))
    assert header == png.PngHeader((16, 24), 16, png.GREY)
    assert header.is_grey
    assert str(header) == "16-bit grey PNG"
    assert not png.read_header(file_bytes(picture(), "PNG")).is_grey
    assert png.read_header(file_bytes(ramp(np.uint8, 1, 200), "PNG")).bits == 8


@pytest.mark.parametrize(
    ("data", "message"),
    [(b"\xff\xd8\xff\xe0", "not a PNG"), (file_bytes(ramp(), "PNG")[:20], "header is cut off")],
)
def test_bytes_without_a_png_header_are_refused(data, message):
    with pytest.raises(ValueError, match=message):
        png.read_header(data)


def test_whole_files_pass_and_every_cut_is_found():
    data = file_bytes(ramp(), "PNG")
    png.verify_chunks(data)
    for length in range(8, len(data)):
        with pytest.raises(ValueError, match=r"truncated|corrupt"):
            png.verify_chunks(data[:length])


def test_every_flipped_bit_after_the_signature_is_found():
    data = file_bytes(ramp(np.uint8, 1, 200), "PNG")
    for position in range(8, len(data)):
        damaged = bytearray(data)
        damaged[position] ^= 1 << position % 8
        with pytest.raises(ValueError, match=r"truncated|corrupt"):
            png.verify_chunks(bytes(damaged))
