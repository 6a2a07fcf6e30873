"""The outer header."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.drops import DropReason
from overlay.errors import WireError
from overlay.wire.header import (
    HEADER_SIZE,
    MAX_SEGMENTS,
    TYPE_COOKIE_REPLY,
    TYPE_DATA,
    TYPE_INITIATION,
    TYPE_RESPONSE,
    Header,
)
from tests.support.pcap import all_frames

HEADERS = st.builds(
    Header,
    type=st.integers(0, 255),
    index=st.integers(0, 255),
    last=st.integers(0, 255),
    lane=st.integers(0, 255),
    receiver=st.integers(0, 2**32 - 1),
    counter=st.integers(0, 2**64 - 1),
)


def test_header_is_these_sixteen_bytes():
    header = Header(TYPE_DATA, index=2, last=43, lane=1, receiver=0xC0FFEE11, counter=0x0102030405)
    assert header.encode().hex() == "04022b01" + "c0ffee11" + "0000000102030405"
    assert Header.decode_untrusted(header.encode()) == header


@given(HEADERS, st.binary(max_size=20))
def test_header_survives_the_wire_whatever_follows(header, rest):
    assert Header.decode_untrusted(memoryview(header.encode() + rest)) == header


@pytest.mark.parametrize("size", [0, 1, 15])
def test_short_datagram_is_refused(size):
    with pytest.raises(WireError, match=f"{size} bytes"):
        Header.decode_untrusted(bytes(size))


@pytest.mark.parametrize("kind", [0, 5, 64, 255])
def test_unknown_type_is_named(kind):
    assert Header(kind).fault() is DropReason.UNKNOWN_TYPE


@pytest.mark.parametrize(
    ("index", "last", "fault"),
    [
        (0, 0, None),
        (63, 63, None),
        (1, 0, DropReason.BAD_HEADER),
        (0, 64, DropReason.BAD_HEADER),
        (64, 64, DropReason.BAD_HEADER),
        (255, 255, DropReason.BAD_HEADER),
    ],
)
def test_segment_place_is_checked(index, last, fault):
    assert MAX_SEGMENTS == 64
    assert Header(TYPE_DATA, index=index, last=last).fault() is fault


@pytest.mark.parametrize("kind", [TYPE_INITIATION, TYPE_RESPONSE, TYPE_COOKIE_REPLY])
def test_segment_place_of_handshake_messages_is_ignored(kind):
    assert Header(kind, index=9, last=3).fault() is None


def test_all_segments_of_a_burst_have_the_same_associated_data():
    segments = [Header(TYPE_DATA, index, 2, 1, 7, 99) for index in range(3)]
    assert {segment.associated_data() for segment in segments} == {segments[0].encode()}


def test_associated_data_covers_everything_else():
    base = Header(TYPE_DATA, 0, 2, 1, 7, 99)
    others = [
        base._replace(type=3),
        base._replace(last=3),
        base._replace(lane=0),
        base._replace(receiver=8),
        base._replace(counter=98),
    ]
    assert len({header.associated_data() for header in [base, *others]}) == 6


def test_captures_decode_or_are_refused(vectors: Path):
    for frame in all_frames(vectors / "pcaps"):
        with suppress(WireError):
            Header.decode_untrusted(frame).fault()
            assert len(frame) >= HEADER_SIZE
