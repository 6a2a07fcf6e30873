"""The bounds-checked reader."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.errors import WireError
from overlay.wire.cursor import Reader


def test_integers_are_network_order():
    reader = Reader(bytes(range(1, 16)))
    assert reader.u8() == 0x01
    assert reader.u16() == 0x0203
    assert reader.u32() == 0x04050607
    assert reader.u64() == 0x08090A0B0C0D0E0F
    reader.expect_end()


@pytest.mark.parametrize("read", [Reader.u8, Reader.u16, Reader.u32, Reader.u64])
def test_overrun_is_refused_and_consumes_nothing(read):
    whole = {Reader.u8: 1, Reader.u16: 2, Reader.u32: 4, Reader.u64: 8}[read]
    reader = Reader(bytes(whole - 1))
    with pytest.raises(WireError):
        read(reader)
    assert reader.remaining == whole - 1
    assert reader.rest() == bytes(whole - 1)


def test_negative_count_is_refused():
    reader = Reader(b"abc")
    with pytest.raises(WireError):
        reader.take(-1)
    assert reader.remaining == 3


def test_leftover_is_refused():
    reader = Reader(b"abc")
    reader.take(2)
    with pytest.raises(WireError, match="1 bytes too many"):
        reader.expect_end()


@given(st.binary(max_size=40), st.lists(st.integers(-2, 12), max_size=8))
def test_pieces_are_the_front_of_the_data(data, counts):
    reader, taken = Reader(memoryview(data)), b""
    for count in counts:
        fits = 0 <= count <= len(data) - len(taken)
        if fits:
            taken += reader.take(count)
        else:
            with pytest.raises(WireError):
                reader.take(count)
        assert reader.remaining == len(data) - len(taken)
    assert taken + reader.rest() == data
    reader.expect_end()
