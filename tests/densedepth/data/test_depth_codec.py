"""Packed depth: nothing is lost, and damage is never taken for depth."""

import contextlib
from dataclasses import replace
from zlib import crc32

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from densedepth.data.depth_codec import MAX_PIXELS, pack_depth, unpack_depth, unpack_depth_into
from densedepth.errors import BadFrameError
from tests.densedepth.data.tiny_frames import ramp

maps = st.one_of(
    arrays(dtype, array_shapes(min_dims=2, max_dims=2, max_side=40))
    for dtype in (np.uint8, np.uint16)
)


@given(maps)
def test_every_map_comes_back_exactly(units: np.ndarray):
    depth = pack_depth(units)
    back = unpack_depth(depth)
    assert back.dtype == units.dtype
    np.testing.assert_array_equal(back, units)
    assert depth.num_measured == np.count_nonzero(units)
    assert depth.has_holes == bool((units == 0).any())


def test_equal_maps_give_equal_bytes_however_they_lie_in_memory():
    units = ramp()
    assert pack_depth(units) == pack_depth(np.asfortranarray(units)) == pack_depth(units.copy())


def test_eight_bits_are_unpacked_into_sixteen():
    units = ramp(np.uint8, 1, 200)
    out = np.empty(units.shape, np.uint16)
    unpack_depth_into(pack_depth(units), out)
    np.testing.assert_array_equal(out, units)


@given(st.integers(0, 10**6), st.integers(1, 255))
def test_a_changed_byte_is_found_wherever_it_is(place: int, change: int):
    depth = pack_depth(ramp())
    data = bytearray(depth.data)
    data[place % len(data)] ^= change
    with pytest.raises(BadFrameError, match=r"^k: damaged depth"):
        unpack_depth(replace(depth, data=bytes(data)), "k")


@given(st.binary(max_size=300))
def test_a_stream_that_lies_is_an_error_or_a_map_of_the_promised_size(data: bytes):
    """Whoever makes a stream can make its checksum too."""
    start = pack_depth(ramp()).data[:12]
    for lie in (data, start + data):
        depth = replace(pack_depth(ramp()), data=lie, crc32=crc32(lie))
        with contextlib.suppress(BadFrameError):
            assert unpack_depth(depth).shape == ramp().shape


@pytest.mark.parametrize("size_px", [(16, 23), (16, 25), (384, 1)])
def test_a_stream_of_another_length_is_refused(size_px):
    depth = replace(pack_depth(ramp()), size_px=size_px)
    if size_px == (384, 1):
        assert unpack_depth(depth).shape == size_px  # as many pixels: the size is a fact beside it
        return
    with pytest.raises(BadFrameError, match="damaged depth"):
        unpack_depth(depth)


@pytest.mark.parametrize("size_px", [(2**40, 2**40), (MAX_PIXELS + 1, 1), (0, 5), (-1, -1)])
def test_a_size_that_cannot_be_is_refused_before_memory_is_taken(size_px):
    with pytest.raises(BadFrameError, match="pixels; at least 1 and at most 67108864"):
        unpack_depth(replace(pack_depth(ramp()), size_px=size_px))


@pytest.mark.parametrize(
    ("packed", "dtype", "step"),
    [
        ("70636f21030003030401070b0000c12b100101800040000100000000000000", np.uint16, 700),
        ("70636f210300030304010a0b000041110101804080000000000000", np.uint8, 20),
    ],
)
def test_maps_that_earlier_versions_packed_can_still_be_read(packed: str, dtype, step: int):
    units = (np.arange(12) * step).astype(dtype).reshape(3, 4)
    data = bytes.fromhex(packed)
    depth = replace(pack_depth(units), data=data, crc32=crc32(data))
    np.testing.assert_array_equal(unpack_depth(depth), units)
