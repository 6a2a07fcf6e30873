"""Views of TCP, UDP and ICMP headers, and flows."""

from __future__ import annotations

from ipaddress import IPv4Address
from pathlib import Path
from struct import pack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.wire.ip import parse_untrusted
from overlay.wire.transport import (
    FlowKey,
    IcmpView,
    TcpFlag,
    TcpView,
    UdpView,
    flow_untrusted,
    icmp_untrusted,
    tcp_untrusted,
    udp_untrusted,
)
from tests.support import builders
from tests.support.pcap import all_frames

A4, B4 = "10.244.1.2", "10.244.2.3"
A6, B6 = "fd00::1", "fd00::2"
A4_NUMBER, B4_NUMBER = int(IPv4Address(A4)), int(IPv4Address(B4))


def view_of(packet: bytes, read):
    ip = parse_untrusted(packet)
    assert ip is not None
    return read(packet, ip)


@pytest.mark.parametrize(
    ("build", "ends", "start"), [(builders.tcp4, (A4, B4), 20), (builders.tcp6, (A6, B6), 40)]
)
def test_tcp_header(build, ends, start):
    flags = builders.SYN | builders.ACK
    packet = build(*ends, b"data", sport=1, dport=2, sequence=99, flags=flags, options=b"\1" * 8)
    view = view_of(packet, tcp_untrusted)
    assert view == TcpView(1, 2, 99, 1, TcpFlag.SYN | TcpFlag.ACK, 512, start + 28)
    assert packet[view.payload :] == b"data"


@pytest.mark.parametrize(("build", "ends"), [(builders.udp4, (A4, B4)), (builders.udp6, (A6, B6))])
def test_udp_header(build, ends):
    packet = build(*ends, b"data", sport=1, dport=2)
    assert view_of(packet, udp_untrusted) == UdpView(1, 2, 12)
    assert view_of(packet, tcp_untrusted) is None
    assert view_of(packet, icmp_untrusted) is None


def test_icmp_headers():
    packet = builders.icmp_echo4(A4, B4, b"data", identifier=7, sequence=9)
    assert view_of(packet, icmp_untrusted) == IcmpView(8, 0, 7, 9)
    packet = builders.icmp_echo6(A6, B6, b"data", identifier=7, sequence=9)
    assert view_of(packet, icmp_untrusted) == IcmpView(128, 0, 7, 9)


def test_icmp_of_the_other_family_is_not_icmp():
    assert view_of(builders.ip4(58, A4, B4, bytes(8)), icmp_untrusted) is None
    assert view_of(builders.ip6(1, A6, B6, bytes(8)), icmp_untrusted) is None


@pytest.mark.parametrize(
    ("protocol", "size", "read"),
    [(6, 19, tcp_untrusted), (17, 7, udp_untrusted), (1, 7, icmp_untrusted)],
)
def test_short_headers_are_absent(protocol, size, read):
    assert view_of(builders.ip4(protocol, A4, B4, bytes(size)), read) is None


@pytest.mark.parametrize("words", [0, 4, 6, 15])
def test_impossible_tcp_header_length_is_refused(words):
    packet = bytearray(builders.tcp4(A4, B4))
    packet[32] = words << 4
    assert view_of(bytes(packet), tcp_untrusted) is None


def test_later_fragment_has_no_header():
    packet = builders.ip4(17, A4, B4, bytes(32), flags=0, fragment_offset=1480)
    assert view_of(packet, udp_untrusted) is None


def test_flow_of_each_protocol():
    ends = (A4_NUMBER, B4_NUMBER)
    tcp = builders.tcp4(A4, B4, sport=1, dport=2)
    assert flow_untrusted(tcp) == FlowKey(4, 6, *ends, 1, 2)
    udp = builders.udp4(A4, B4, sport=1, dport=2)
    assert flow_untrusted(udp) == FlowKey(4, 17, *ends, 1, 2)
    echo = builders.icmp_echo4(A4, B4, identifier=7)
    assert flow_untrusted(echo) == FlowKey(4, 1, *ends, 7, 7)
    unreachable = builders.icmp4(A4, B4, 3, 1, bytes(4) + udp)
    assert flow_untrusted(unreachable) == FlowKey(4, 1, *ends, 0, 0)
    assert flow_untrusted(builders.ip4(47, A4, B4, b"")) == FlowKey(4, 47, *ends, 0, 0)
    assert flow_untrusted(builders.ip4(17, A4, B4, b"")) == FlowKey(4, 17, *ends, 0, 0)
    assert flow_untrusted(tcp[:-1]) is None


@pytest.mark.parametrize(
    ("there", "back"),
    [
        (builders.tcp4(A4, B4, sport=1, dport=2), builders.tcp4(B4, A4, sport=2, dport=1)),
        (builders.udp6(A6, B6, sport=1, dport=2), builders.udp6(B6, A6, sport=2, dport=1)),
        (builders.icmp_echo4(A4, B4), builders.icmp_echo4(B4, A4, reply=True)),
        (builders.icmp_echo6(A6, B6), builders.icmp_echo6(B6, A6, reply=True)),
    ],
)
def test_answers_belong_to_the_reversed_flow(there, back):
    key = flow_untrusted(there)
    assert key is not None
    assert flow_untrusted(back) == key.reversed()


def test_all_fragments_of_a_datagram_share_a_flow():
    ports = pack(">HHHH", 1, 2, 3000, 0)
    first = builders.ip4(17, A4, B4, ports + bytes(1472), flags=1)
    later = builders.ip4(17, A4, B4, bytes(900), flags=0, fragment_offset=1480)
    assert flow_untrusted(first) == flow_untrusted(later) is not None


def test_packet_is_found_inside_a_larger_buffer():
    packet = builders.udp4(A4, B4, b"data")
    buffer = bytes(10) + packet + bytes(9)
    assert flow_untrusted(buffer, 10, 10 + len(packet)) == flow_untrusted(packet)


READERS = [tcp_untrusted, udp_untrusted, icmp_untrusted]


def test_captures_give_views_or_none(vectors: Path):
    for frame in all_frames(vectors / "pcaps"):
        ip = parse_untrusted(frame)
        if ip is None:
            assert flow_untrusted(frame) is None
            continue
        assert sum(read(frame, ip) is not None for read in READERS) <= 1
        assert flow_untrusted(frame) is not None


@given(st.sampled_from([1, 6, 17, 58]), st.binary(max_size=60))
def test_random_transport_headers_give_views_or_none(protocol, body):
    for packet in (builders.ip4(protocol, A4, B4, body), builders.ip6(protocol, A6, B6, body)):
        for read in READERS:
            view_of(packet, read)
        assert flow_untrusted(packet) is not None
