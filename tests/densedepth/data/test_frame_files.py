import numpy as np
import pytest

from densedepth.data.depth_codec import unpack_depth
from densedepth.data.encode import decode
from densedepth.data.frame_files import encode_pair, source_name
from densedepth.errors import BadFrameError
from densedepth.sample import Frame
from tests.densedepth.data.tiny_frames import ramp, write_depth, write_image, write_pair

MM = {16: 0.001}


@pytest.fixture
def frame(tmp_path):
    frame = Frame("k", "s", tmp_path / "i.jpg", tmp_path / "d.png")
    write_pair(frame.image_path, frame.depth_path, ramp())
    return frame


def test_the_picture_passes_untouched_and_depth_without_loss(frame):
    encoded = encode_pair(frame, MM, {"a": 1}, invalid_values=(65535,))
    assert encoded.image == frame.image_path.read_bytes()
    np.testing.assert_array_equal(unpack_depth(encoded.depth), ramp())
    assert encoded.depth.num_measured == ramp().size - 1
    assert (encoded.key, encoded.image_format, encoded.depth_unit_m) == ("k", "jpg", 0.001)
    assert encoded.info == {"a": 1}


def test_the_format_is_told_by_the_bytes_and_not_by_the_name(frame, tmp_path):
    write_image(tmp_path / "p.png")
    (tmp_path / "p.png").rename(frame.image_path)
    assert encode_pair(frame, MM, {}).image_format == "png"


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_values_that_mean_nothing_become_holes_and_all_else_stays(frame, dtype):
    units = ramp(dtype, 1, 200)
    units[3, 4:8] = 255
    write_depth(frame.depth_path, units)
    encoded = encode_pair(frame, {8: 0.5, 16: 0.5}, {}, invalid_values=(255,))
    expected = np.where(units == 255, 0, units) * 0.5
    np.testing.assert_array_equal(decode(encoded).depth_m, expected.astype(np.float32))


def test_a_bit_depth_that_the_data_set_does_not_have_is_refused(frame):
    write_depth(frame.depth_path, ramp(np.uint8, 1, 200))
    with pytest.raises(BadFrameError, match="8-bit depth; this data set has 16-bit depth"):
        encode_pair(frame, MM, {})


def test_missing_empty_and_cut_files_are_named_with_the_reason(frame):
    whole = frame.image_path.read_bytes()
    frame.image_path.write_bytes(whole[:-20])
    with pytest.raises(BadFrameError, match=r"i\.jpg: corrupt or truncated JPEG: Premature end"):
        encode_pair(frame, MM, {})
    frame.image_path.write_bytes(b"")
    with pytest.raises(BadFrameError, match=r"i\.jpg: the file is empty"):
        encode_pair(frame, MM, {})
    frame.image_path.unlink()
    with pytest.raises(BadFrameError, match=r"i\.jpg: no such file"):
        encode_pair(frame, MM, {})
    frame.image_path.mkdir()
    with pytest.raises(BadFrameError, match=r"i\.jpg: cannot be read: Is a directory"):
        encode_pair(frame, MM, {})


def test_a_source_is_named_below_its_root(tmp_path):
    assert source_name(tmp_path / "a" / "b.png", tmp_path) == "a/b.png"
    assert source_name(tmp_path / "a" / "b.png", tmp_path / "c") == "b.png"
