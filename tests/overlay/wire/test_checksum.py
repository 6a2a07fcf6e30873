"""The Internet checksum."""

from __future__ import annotations

from struct import pack

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.utils import checksum as scapy_checksum

from overlay.wire.checksum import checksum, ones_sum, pseudo_header_sum, updated
from tests.support.builders import pseudo4, pseudo6, slow_checksum

WORDS = st.integers(0, 0xFFFF)


@given(st.binary(max_size=300))
def test_agrees_with_the_obvious_loop_and_with_scapy(data):
    assert checksum(data) == slow_checksum(data)
    assert checksum(memoryview(data)) == slow_checksum(data)
    if data:
        assert checksum(data) == scapy_checksum(data)


@given(st.lists(st.sampled_from([b"\0\0", b"\xff\xff", b"\0\1", b"\xff\xfe"]), max_size=6))
def test_both_zeros_agree_with_the_obvious_loop(words):
    data = b"".join(words)
    assert checksum(data) == slow_checksum(data)


def test_example_of_rfc_1071():
    assert ones_sum(bytes.fromhex("0001f203f4f5f6f7")) == 0xDDF2


@given(st.binary(max_size=64).filter(lambda b: len(b) % 2 == 0), st.binary(max_size=65))
def test_sum_continues_from_an_earlier_sum(front, back):
    assert ones_sum(back, ones_sum(front)) == ones_sum(front + back)


@given(st.binary(min_size=2, max_size=80), st.data())
def test_filled_in_checksum_verifies(data, draw):
    place = 2 * draw.draw(st.integers(0, len(data) // 2 - 1))
    blank = data[:place] + bytes(2) + data[place + 2 :]
    filled = data[:place] + pack(">H", checksum(blank)) + data[place + 2 :]
    assert checksum(filled) == 0


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1), st.integers(0, 255), WORDS)
def test_pseudo_header_of_ipv4(source, destination, protocol, length):
    assert pseudo_header_sum(source, destination, protocol, length) == ones_sum(
        pseudo4(source, destination, protocol, length)
    )


@given(st.integers(0, 2**128 - 1), st.integers(0, 2**128 - 1), st.integers(0, 255), WORDS)
def test_pseudo_header_of_ipv6(source, destination, protocol, length):
    assert pseudo_header_sum(source, destination, protocol, length) == ones_sum(
        pseudo6(source, destination, protocol, length)
    )


@pytest.mark.parametrize("width", [2, 4, 16])
@given(data=st.data())
def test_update_equals_computing_again(width, data):
    rest = pack(">H", data.draw(st.integers(1, 0xFFFF)))
    old = data.draw(st.binary(min_size=width, max_size=width))
    new = data.draw(st.binary(min_size=width, max_size=width))
    before = checksum(old + rest)
    after = updated(before, int.from_bytes(old, "big"), int.from_bytes(new, "big"))
    assert after == checksum(new + rest)


@given(st.sampled_from([0, 1, 0xFFFE, 0xFFFF]), st.sampled_from([0, 1, 0xFFFE, 0xFFFF]))
def test_update_between_the_zeros_equals_computing_again(old, new):
    for rest in (b"\0\1", b"\xff\xff", b"\xff\xfe"):
        before = checksum(pack(">H", old) + rest)
        assert updated(before, old, new) == checksum(pack(">H", new) + rest)


def test_example_of_rfc_1624():
    assert updated(0xDD2F, 0x5555, 0x3285) == 0x0000
