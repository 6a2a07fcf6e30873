"""ICMP errors and echoes."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6EchoReply,
    ICMPv6EchoRequest,
    ICMPv6PacketTooBig,
    ICMPv6TimeExceeded,
    IPv6,
)

from overlay.wire.icmp import (
    Echo,
    IcmpError,
    echo_packet,
    echo_reply,
    error_reply,
    parse_echo_untrusted,
)
from tests.support import builders
from tests.support.builders import checksums_are_right
from tests.support.pcap import all_frames

A4, B4, ROUTER4 = "10.244.1.2", "10.244.2.3", int(IPv4Address("10.244.1.1"))
A6, B6, ROUTER6 = "fd00::1", "fd00::2", int(IPv6Address("fd00::ffff"))


def reply_to(packet: bytes, error: IcmpError = IcmpError.HOST_UNREACHABLE) -> bytes | None:
    return error_reply(error, packet, ROUTER4 if packet[0] >> 4 == 4 else ROUTER6)


@pytest.mark.parametrize(
    ("error", "kind", "code"),
    [
        (IcmpError.NO_ROUTE, 3, 0),
        (IcmpError.HOST_UNREACHABLE, 3, 1),
        (IcmpError.PORT_UNREACHABLE, 3, 3),
        (IcmpError.TOO_BIG, 3, 4),
        (IcmpError.ADMIN_PROHIBITED, 3, 13),
        (IcmpError.TIME_EXCEEDED, 11, 0),
    ],
)
def test_error_over_ipv4_as_scapy_reads_it(error, kind, code):
    offending = builders.udp4(A4, B4, b"lost")
    reply = error_reply(error, offending, ROUTER4, mtu=1400)
    assert reply is not None
    assert checksums_are_right(reply)
    read = IP(reply)
    assert (read.src, read.dst, read.proto, read.len) == ("10.244.1.1", A4, 1, len(reply))
    assert (read.id, int(read.flags), read.ttl, read.tos) == (0, 2, 64, 0xC0)
    assert (read[ICMP].type, read[ICMP].code) == (kind, code)
    if error is IcmpError.TOO_BIG:
        assert read[ICMP].nexthopmtu == 1400
    else:
        assert reply[24:28] == bytes(4)
    assert reply[28:] == offending


@pytest.mark.parametrize(
    ("error", "layer", "code"),
    [
        (IcmpError.NO_ROUTE, ICMPv6DestUnreach, 0),
        (IcmpError.ADMIN_PROHIBITED, ICMPv6DestUnreach, 1),
        (IcmpError.HOST_UNREACHABLE, ICMPv6DestUnreach, 3),
        (IcmpError.PORT_UNREACHABLE, ICMPv6DestUnreach, 4),
        (IcmpError.TOO_BIG, ICMPv6PacketTooBig, 0),
        (IcmpError.TIME_EXCEEDED, ICMPv6TimeExceeded, 0),
    ],
)
def test_error_over_ipv6_as_scapy_reads_it(error, layer, code):
    offending = builders.udp6(A6, B6, b"lost")
    reply = error_reply(error, offending, ROUTER6, mtu=1400)
    assert reply is not None
    assert checksums_are_right(reply)
    read = IPv6(reply)
    assert (read.src, read.dst, read.nh, read.plen) == ("fd00::ffff", A6, 58, len(reply) - 40)
    assert (read.hlim, read.tc) == (64, 0xC0)
    assert read[layer].code == code
    if error is IcmpError.TOO_BIG:
        assert read[layer].mtu == 1400
    else:
        assert reply[44:48] == bytes(4)
    assert reply[48:] == offending


def test_mtu_over_ipv4_has_sixteen_bits():
    reply = error_reply(IcmpError.TOO_BIG, builders.udp4(A4, B4), ROUTER4, mtu=70_000)
    assert reply is not None
    assert reply[24:28] == b"\0\0\xff\xff"


@pytest.mark.parametrize(
    ("packet", "limit"),
    [(builders.udp4(A4, B4, bytes(1400)), 576), (builders.udp6(A6, B6, bytes(1400)), 1280)],
)
def test_as_much_is_quoted_as_fits(packet, limit):
    reply = reply_to(packet)
    assert reply is not None
    assert len(reply) == limit
    assert checksums_are_right(reply)
    quoted = reply[28:] if limit == 576 else reply[48:]
    assert packet.startswith(quoted)


def test_bytes_behind_the_packet_are_not_quoted():
    packet = builders.udp4(A4, B4, b"lost")
    assert reply_to(packet + b"padding") == reply_to(packet)


NEVER_ANSWERED = {
    "ICMP error": builders.icmp4(A4, B4, 3, 1, bytes(36)),
    "ICMP redirect": builders.icmp4(A4, B4, 5, 1, bytes(36)),
    "ICMP time exceeded": builders.icmp4(A4, B4, 11, 0, bytes(36)),
    "ICMP cut short": builders.ip4(1, A4, B4, bytes(7)),
    "ICMPv6 error": builders.icmp6(A6, B6, 1, 0, bytes(52)),
    "ICMPv6 unknown error": builders.icmp6(A6, B6, 100, 0, bytes(52)),
    "ICMPv6 redirect": builders.icmp6(A6, B6, 137, 0, bytes(52)),
    "later fragment": builders.ip4(17, A4, B4, bytes(24), fragment_offset=1480),
    "later IPv6 fragment": builders.ip6(44, A6, B6, b"\x11\0\x05\xc8" + bytes(28)),
    "to multicast": builders.udp4(A4, "224.0.0.251"),
    "to broadcast": builders.udp4(A4, "255.255.255.255"),
    "to IPv6 multicast": builders.udp6(A6, "ff02::fb"),
    "from nobody": builders.udp4("0.0.0.0", B4),
    "from IPv6 nobody": builders.udp6("::", B6),
    "from multicast": builders.udp4("224.0.0.1", B4),
    "from broadcast": builders.udp4("255.255.255.255", B4),
    "from loopback": builders.udp4("127.0.0.1", B4),
    "from IPv6 multicast": builders.udp6("ff02::1", B6),
    "malformed": builders.udp4(A4, B4)[:-1],
}


@pytest.mark.parametrize("name", NEVER_ANSWERED)
def test_never_answered(name):
    assert all(reply_to(NEVER_ANSWERED[name], error) is None for error in IcmpError)


ANSWERED = {
    "ping": builders.icmp_echo4(A4, B4),
    "IPv6 ping": builders.icmp_echo6(A6, B6),
    "ping reply": builders.icmp_echo4(A4, B4, reply=True),
    "first fragment": builders.ip4(17, A4, B4, bytes(24), flags=1),
    "TCP": builders.tcp4(A4, B4),
    "unknown protocol": builders.ip6(99, A6, B6, b""),
}


@pytest.mark.parametrize("name", ANSWERED)
def test_answered(name):
    reply = reply_to(ANSWERED[name])
    assert reply is not None
    assert reply_to(reply) is None  # an error about the error would be the start of a storm


ECHOES = st.one_of(
    st.builds(
        Echo,
        version=st.just(version),
        source=st.integers(0, 2**bits - 1),
        destination=st.integers(0, 2**bits - 1),
        is_request=st.booleans(),
        identifier=st.integers(0, 0xFFFF),
        sequence=st.integers(0, 0xFFFF),
        payload=st.binary(max_size=70),
    )
    for version, bits in ((4, 32), (6, 128))
)


@given(ECHOES)
def test_echoes_survive_the_wire(echo):
    packet = echo_packet(echo)
    assert checksums_are_right(packet)
    assert parse_echo_untrusted(packet) == echo


@given(ECHOES)
def test_reply_goes_back_with_the_same_content(request):
    reply = parse_echo_untrusted(echo_reply(request))
    assert reply is not None
    assert (reply.source, reply.destination) == (request.destination, request.source)
    assert reply[4:] == request[4:]
    assert not reply.is_request


def test_echo_as_scapy_reads_it():
    request = Echo(4, int(IPv4Address(A4)), int(IPv4Address(B4)), True, 7, 9, b"data")
    read = IP(echo_packet(request))
    assert (read.src, read.dst, read[ICMP].type) == (A4, B4, 8)
    assert (read[ICMP].id, read[ICMP].seq, bytes(read[ICMP].payload)) == (7, 9, b"data")
    assert IP(echo_reply(request))[ICMP].type == 0


def test_ipv6_echo_as_scapy_reads_it():
    request = Echo(6, int(IPv6Address(A6)), int(IPv6Address(B6)), True, 7, 9, b"data")
    read = IPv6(echo_packet(request))
    assert (read.src, read.dst) == (A6, B6)
    assert (read[ICMPv6EchoRequest].id, read[ICMPv6EchoRequest].data) == (7, b"data")
    assert IPv6(echo_reply(request))[ICMPv6EchoReply].seq == 9


@pytest.mark.parametrize(
    "packet",
    [
        builders.udp4(A4, B4),
        builders.icmp4(A4, B4, 3, 1, bytes(36)),
        builders.icmp4(A4, B4, 8, 1, bytes(4)),
        builders.icmp_echo4(A4, B4, b"data")[:-1] + b"x",
        builders.icmp_echo4(A4, B4)[:-1],
        builders.ip4(1, A4, B4, builders.icmp_echo4(A4, B4)[20:], flags=1),
        builders.ip6(1, A6, B6, builders.icmp_echo4(A4, B4)[20:]),
        b"",
    ],
)
def test_what_is_no_whole_echo_is_none(packet):
    assert parse_echo_untrusted(packet) is None


def test_captures_are_answered_or_not(vectors: Path):
    for frame in all_frames(vectors / "pcaps"):
        reply = error_reply(IcmpError.NO_ROUTE, frame, ROUTER4)
        assert reply is None or checksums_are_right(reply)
        parse_echo_untrusted(frame)


@given(st.sampled_from(IcmpError), st.binary(max_size=100))
def test_random_bytes_are_answered_or_not(error, data):
    reply = error_reply(error, data, ROUTER4)
    assert reply is None or checksums_are_right(reply)
    parse_echo_untrusted(data)
