"""One line about any datagram."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.wire.describe import describe
from overlay.wire.handshake import CookieReply, Initiation, Response
from overlay.wire.header import TYPE_DATA, Header
from tests.support import builders
from tests.support.builders import ACK, PSH, SYN
from tests.support.pcap import all_frames

A4, B4 = "10.244.1.2", "10.244.2.3"
A6, B6 = "fd00::1", "fd00::2"

DATA = Header(TYPE_DATA, index=0, last=2, lane=1, receiver=0xC0FFEE, counter=7).encode()


@pytest.mark.parametrize(
    ("datagram", "line"),
    [
        (
            builders.tcp4(A4, B4, b"hello", flags=PSH | ACK, ttl=63),
            "10.244.1.2.40000 > 10.244.2.3.80: tcp [P.] seq 1 ack 1 win 512 length 5, ttl 63",
        ),
        (
            builders.tcp6(A6, B6, flags=SYN),
            "fd00::1.40000 > fd00::2.80: tcp [S] seq 1 win 512 length 0, ttl 64",
        ),
        (
            builders.tcp4(A4, B4, flags=0),
            "10.244.1.2.40000 > 10.244.2.3.80: tcp [none] seq 1 win 512 length 0, ttl 64",
        ),
        (
            builders.udp6(A6, B6, b"hi", dport=53),
            "fd00::1.40000 > fd00::2.53: udp length 2, ttl 64",
        ),
        (
            builders.icmp_echo4(A4, B4, bytes(56), identifier=7, sequence=9),
            "10.244.1.2 > 10.244.2.3: icmp echo request id 7 seq 9 length 56, ttl 64",
        ),
        (
            builders.icmp_echo6(A6, B6, reply=True),
            "fd00::1 > fd00::2: icmp6 echo reply id 1 seq 1 length 0, ttl 64",
        ),
        (
            builders.icmp4(A4, B4, 3, 1, bytes(32)),
            "10.244.1.2 > 10.244.2.3: icmp unreachable code 1 length 28, ttl 64",
        ),
        (
            builders.icmp4(A4, B4, 99, 1, bytes(4)),
            "10.244.1.2 > 10.244.2.3: icmp type 99 code 1 length 0, ttl 64",
        ),
        (
            builders.ip4(17, A4, B4, bytes(8), flags=1, fragment_offset=1480, identification=5),
            "10.244.1.2 > 10.244.2.3: proto 17 length 8, ttl 64, frag 5@1480+",
        ),
        (
            builders.ip4(1, A4, B4, bytes(3), flags=0, fragment_offset=8, identification=5),
            "10.244.1.2 > 10.244.2.3: proto 1 length 3, ttl 64, frag 5@8",
        ),
        (builders.ip4(6, A4, B4, b""), "10.244.1.2 > 10.244.2.3: proto 6 length 0, ttl 64"),
        (builders.ip6(47, A6, B6, b"abc"), "fd00::1 > fd00::2: proto 47 length 3, ttl 64"),
        (builders.udp4(A4, B4)[:-1], "ip4 malformed, 27 bytes"),
        (b"\x60", "ip6 malformed, 1 bytes"),
        (
            DATA + bytes(1456),
            "outer data receiver 0x00c0ffee counter 7 segment 1/3 lane 1, 1472 bytes",
        ),
        (Initiation(1, bytes(32), bytes(48), bytes(60)).encode(), "outer initiation, 192 bytes"),
        (
            Response(7, 1, bytes(32), bytes(40)).encode(),
            "outer response receiver 0x00000007, 124 bytes",
        ),
        (
            CookieReply(7, bytes(24), bytes(32)).encode(),
            "outer cookie reply receiver 0x00000007, 72 bytes",
        ),
        (b"\x04" + bytes(9), "outer truncated, 10 bytes"),
        (b"\x09" + bytes(15), "outer unknown type 9, 16 bytes"),
        (b"", "nothing, 0 bytes"),
    ],
)
def test_line(datagram, line):
    assert describe(datagram) == line
    assert describe(memoryview(datagram)) == line


def test_captures_are_described_on_one_line(vectors: Path):
    lines = {describe(frame) for frame in all_frames(vectors / "pcaps")}
    assert all(line and line.isprintable() for line in lines)


@given(st.binary(max_size=80))
def test_random_bytes_are_described(data):
    assert describe(data).isprintable()


@given(st.sampled_from([b"\x45", b"\x60"]), st.binary(min_size=39, max_size=80))
def test_random_packets_are_described(first, rest):
    assert describe(first + rest).isprintable()
