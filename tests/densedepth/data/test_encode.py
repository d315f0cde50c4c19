import io
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from densedepth.data import encode
from densedepth.data.depth_codec import pack_depth, unpack_depth
from densedepth.errors import BadFrameError
from densedepth.sample import EncodedSample
from tests.densedepth.data.tiny_frames import file_bytes, picture, ramp


def sample(image: bytes, depth_units: np.ndarray, unit_m: float = 0.001) -> EncodedSample:
    depth = pack_depth(depth_units)
    return EncodedSample("a", image, encode.image_format(image), depth, unit_m, {"n": 1})


def encoded(image: bytes, depth_units: np.ndarray) -> EncodedSample:
    return encode.encode_sample(
        "k", image, depth_units, 0.001, {}, image_name="i.jpg", depth_name="d.png"
    )


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_depth_steps_come_back_exactly(dtype):
    units = ramp(dtype, 1, 255)
    data = encode.encode_depth_png(units)
    assert encode.depth_bits(data) == 8 * units.itemsize
    back = encode.decode_depth_png(data)
    assert back.dtype == dtype
    np.testing.assert_array_equal(back, units)
    # An independent reader sees the same.
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(data))), units)


def test_a_png_picture_comes_back_exactly_and_a_jpeg_nearly():
    image = picture(32, 48)
    np.testing.assert_array_equal(encode.decode_image(encode.encode_image_png(image)), image)
    decoded = encode.decode_image(file_bytes(image, "JPEG")).astype(int)
    assert np.abs(decoded - image).mean() < 12
    assert abs((decoded - image).mean()) < 2  # red and blue are not exchanged


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK"])
def test_other_kinds_of_pictures_become_rgb(mode):
    kind = "JPEG" if mode == "CMYK" else "PNG"
    stream = io.BytesIO()
    Image.fromarray(picture()).convert(mode).save(stream, kind)
    assert encode.decode_image(stream.getvalue()).shape == (16, 24, 3)


@pytest.mark.parametrize("format", ["JPEG", "PNG"])
def test_the_size_is_read_from_the_header_alone(format):
    data = file_bytes(picture(400, 300), format)
    assert encode.decode_size_px(data[: len(data) // 2]) == (400, 300)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"GIF89a......", "neither a JPEG nor a PNG: it starts with b'GIF89a"),
        (file_bytes(picture(), "JPEG")[:20], "broken header"),
        (file_bytes(picture(), "PNG")[:20], "header is cut off"),
    ],
)
def test_a_size_that_cannot_be_read_is_a_bad_frame(data, reason):
    with pytest.raises(BadFrameError, match=rf"x\.jpg: .*{reason}"):
        encode.decode_size_px(data, "x.jpg")


@pytest.mark.parametrize("format", ["JPEG", "PNG"])
@pytest.mark.parametrize("missing", [1, 2, 40, 700])
def test_a_truncated_picture_is_found_however_little_is_missing(format, missing):
    data = file_bytes(picture(64, 96), format)
    encode.decode_image(data)
    with pytest.raises(BadFrameError, match=r"^x: (truncated|corrupt or truncated)"):
        encode.decode_image(data[:-missing], "x")


def test_a_depth_map_is_no_picture_and_a_picture_no_depth_map():
    with pytest.raises(BadFrameError, match="16-bit grey PNG is a depth map"):
        encode.decode_image(file_bytes(ramp(), "PNG"))
    with pytest.raises(BadFrameError, match="this is: 8-bit RGB PNG"):
        encode.decode_depth_png(file_bytes(picture(), "PNG"))
    with pytest.raises(BadFrameError, match="not a PNG"):
        encode.decode_depth_png(file_bytes(picture(), "JPEG"))
    one_bit = io.BytesIO()
    Image.new("1", (8, 8), 1).save(one_bit, "PNG")
    with pytest.raises(BadFrameError, match="this is: 1-bit grey PNG"):
        encode.decode_depth_png(one_bit.getvalue())


def test_decoding_gives_metres_and_keeps_holes():
    units = ramp()
    decoded = encode.decode(sample(file_bytes(picture(), "JPEG"), units))
    assert decoded.key == "a"
    assert decoded.info == {"n": 1}
    assert decoded.depth_m.dtype == np.float32
    assert decoded.depth_m[0, 0] == 0
    np.testing.assert_allclose(decoded.depth_m, units / 1000, rtol=1e-6)


@pytest.mark.parametrize("steps_per_m", [25.5, 256, 1000, 6000])
def test_metres_are_the_floats_nearest_to_the_true_values(steps_per_m):
    units = np.arange(1, 65536, dtype=np.uint16).reshape(5, -1)
    packed = sample(file_bytes(picture(), "PNG"), units, 1 / steps_per_m)
    exact_m = (units.astype(np.float64) / steps_per_m).astype(np.float32)
    np.testing.assert_array_equal(encode.decode_depth_m(packed), exact_m)


def test_a_damaged_sample_is_named_by_its_key():
    with pytest.raises(BadFrameError, match=r"^a\.jpg: corrupt"):
        encode.decode(sample(file_bytes(picture(), "JPEG")[:-5], ramp()))
    whole = sample(file_bytes(picture(), "JPEG"), ramp())
    cut = replace(whole, depth=replace(whole.depth, data=whole.depth.data[:-5]))
    with pytest.raises(BadFrameError, match=r"^a\.depth: damaged"):
        encode.decode(cut)


def test_a_frame_is_packed_with_its_own_picture_and_the_share_that_was_measured():
    image = file_bytes(picture(), "JPEG")
    packed = encoded(image, ramp())
    assert packed.image == image
    assert packed.depth.num_measured == 16 * 24 - 1
    np.testing.assert_array_equal(unpack_depth(packed.depth), ramp())


def test_a_depth_map_of_another_size_is_refused_with_both_sizes():
    with pytest.raises(BadFrameError, match=r"^d\.png: .* is 24x10 .* i\.jpg is 24x16"):
        encoded(file_bytes(picture(16, 24), "JPEG"), ramp()[:10])


def test_a_depth_map_without_a_measurement_is_refused():
    with pytest.raises(BadFrameError, match="no pixel is measured"):
        encoded(file_bytes(picture(), "JPEG"), ramp() * 0)


def test_a_picture_is_decoded_into_an_array_of_its_size_only():
    for kind in ("JPEG", "PNG"):
        data = file_bytes(picture(), kind)
        out = np.empty((16, 24, 3), np.uint8)
        encode.decode_image_into(data, out)
        np.testing.assert_array_equal(out, encode.decode_image(data))
        with pytest.raises(BadFrameError, match="does not have the 24x17 pixels"):
            encode.decode_image_into(data, np.empty((17, 24, 3), np.uint8))
    with pytest.raises(BadFrameError, match="corrupt or truncated"):
        encode.decode_image_into(file_bytes(picture(), "JPEG")[:-9], out)


def test_a_header_that_promises_a_giant_is_not_believed():
    data = bytearray(file_bytes(picture(), "JPEG"))
    size = data.index(b"\xff\xc0") + 5
    data[size : size + 4] = b"\xff\x00\xff\x00"
    with pytest.raises(BadFrameError, match="65280x65280 pixels; at least 1 and at most"):
        encode.decode_image(bytes(data))


@given(
    st.lists(st.floats(0, 10.9, allow_subnormal=False), min_size=1, max_size=9),
    st.sampled_from([1 / 6000, 1 / 5000, 10 / 65535 * 1.1]),
)
def test_rounding_errs_by_half_a_step_and_makes_no_holes(depths_m, unit_m):
    depth_m = np.array([depths_m])
    units = encode.quantise_depth(depth_m, unit_m)
    assert ((units > 0) == (depth_m > 0)).all()
    far = depth_m > unit_m
    assert (np.abs(units * unit_m - depth_m)[far] <= unit_m / 2 + 1e-12).all()


def test_what_is_no_depth_becomes_a_hole_and_what_is_too_far_an_error():
    depth_m = np.array([[np.nan, -1, 0, np.inf, 1e-9, 2]])
    np.testing.assert_array_equal(encode.quantise_depth(depth_m, 0.001), [[0, 0, 0, 0, 1, 2000]])
    with pytest.raises(BadFrameError, match=r"depth 65\.54 m is beyond 65\.53 m"):
        encode.quantise_depth(np.array([[65.536]]), 0.001)
