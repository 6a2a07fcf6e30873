"""Views of IPv4 and IPv6 packets."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from struct import pack

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrFragment, IPv6ExtHdrHopByHop

from overlay.wire.ip import (
    MAX_EXTENSIONS,
    endpoints,
    is_multicast,
    is_unroutable,
    parse_untrusted,
)
from tests.support import builders
from tests.support.pcap import all_frames

A4, B4 = int(IPv4Address("10.244.1.2")), int(IPv4Address("10.244.2.3"))
A6, B6 = int(IPv6Address("fd00::1:2")), int(IPv6Address("fd00:0:0:1::7"))


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1), st.binary(max_size=30))
def test_endpoints_of_ipv4(source, destination, payload):
    packet = builders.udp4(source, destination, payload)
    assert endpoints(memoryview(packet)) == (4, source, destination)


@given(st.integers(0, 2**128 - 1), st.integers(0, 2**128 - 1), st.binary(max_size=30))
def test_endpoints_of_ipv6(source, destination, payload):
    packet = builders.udp6(source, destination, payload)
    assert endpoints(memoryview(packet)) == (6, source, destination)


@pytest.mark.parametrize(
    ("packet", "expected"),
    [(builders.udp4(A4, B4, b"hi"), (4, A4, B4)), (builders.udp6(A6, B6, b"hi"), (6, A6, B6))],
)
def test_packet_is_found_inside_a_larger_buffer(packet, expected):
    buffer = bytes(10) + packet + b"next block"
    assert endpoints(buffer, 10) == expected
    assert endpoints(buffer, 10, 10 + len(packet)) == expected
    assert endpoints(buffer, 10, 9 + len(packet)) is None
    view = parse_untrusted(buffer, 10, 10 + len(packet))
    assert view is not None
    assert (view.start, view.end) == (10, 10 + len(packet))
    assert view.total_length == len(packet)


@pytest.mark.parametrize("packet", [builders.udp4(A4, B4, b"hi"), builders.udp6(A6, B6, b"hi")])
def test_every_cut_packet_is_malformed(packet):
    for size in range(len(packet)):
        assert endpoints(packet[:size]) is None
        assert parse_untrusted(packet[:size]) is None


@pytest.mark.parametrize("packet", [builders.udp4(A4, B4, b"hi"), builders.udp6(A6, B6, b"hi")])
def test_trailing_bytes_are_tolerated_and_left_out(packet):
    view = parse_untrusted(packet + bytes(6))
    assert view is not None
    assert view.end == len(packet)


@pytest.mark.parametrize("first", [0x00, 0x15, 0x35, 0x40, 0x44, 0x55, 0x75, 0xF5])
def test_other_versions_and_short_header_lengths_are_malformed(first):
    packet = bytes([first]) + builders.udp4(A4, B4, bytes(40))[1:]
    assert endpoints(packet) is None


def test_header_longer_than_the_packet_is_malformed():
    packet = builders.ip4(17, A4, B4, b"")
    assert endpoints(packet) == (4, A4, B4)
    assert endpoints(bytes([0x46]) + packet[1:] + bytes(8)) is None


def test_offset_past_the_end_is_malformed():
    assert endpoints(b"", 5) is None
    assert endpoints(bytes(50), 40) is None


def test_full_view_of_ipv4():
    packet = builders.ip4(
        6,
        A4,
        B4,
        bytes(24),
        ttl=17,
        tos=0xB8,
        identification=0x1234,
        flags=1,
        fragment_offset=1480,
        options=b"\1\1\1\0",
    )
    view = parse_untrusted(packet)
    assert view is not None
    assert view._asdict() == {
        "version": 4,
        "source": A4,
        "destination": B4,
        "protocol": 6,
        "hop_limit": 17,
        "traffic_class": 0xB8,
        "identification": 0x1234,
        "dont_fragment": False,
        "more_fragments": True,
        "fragment_offset": 1480,
        "start": 0,
        "transport": 24,
        "end": 48,
    }
    assert view.is_fragment
    assert view.header_length == 24


def test_full_view_of_ipv6():
    view = parse_untrusted(builders.ip6(17, A6, B6, bytes(12), ttl=3, traffic_class=0xB8))
    assert view is not None
    assert (view.version, view.source, view.destination) == (6, A6, B6)
    assert (view.protocol, view.hop_limit, view.traffic_class) == (17, 3, 0xB8)
    assert (view.transport, view.end) == (40, 52)
    assert view.dont_fragment
    assert not view.is_fragment


EXTENSIONS = {
    "hop-by-hop": (0, 0, bytes(6)),
    "routing": (43, 4, bytes(38)),
    "destination": (60, 1, bytes(14)),
    "first fragment": (44, 0, pack(">HI", 1, 77)),
    "authentication": (51, 4, bytes(22)),  # 24 bytes: this one counts words of 4, minus 2
}
"""Name -> protocol number, length field, what follows the length field."""


@pytest.mark.parametrize("names", [[name] for name in EXTENSIONS] + [list(EXTENSIONS)])
def test_extension_headers_are_walked(names):
    numbers = [EXTENSIONS[name][0] for name in names] + [17]
    chain = b"".join(
        bytes([following, EXTENSIONS[name][1]]) + EXTENSIONS[name][2]
        for name, following in zip(names, numbers[1:], strict=True)
    )
    packet = builders.ip6(numbers[0], A6, B6, chain + b"transport")
    view = parse_untrusted(packet)
    assert view is not None
    assert view.protocol == 17
    assert packet[view.transport :] == b"transport"
    assert view.more_fragments is ("first fragment" in names)
    assert view.identification == (77 if "first fragment" in names else 0)


def test_extension_headers_of_another_builder_are_walked():
    layers = IPv6() / IPv6ExtHdrHopByHop() / IPv6ExtHdrFragment(id=5, m=1, nh=58)
    packet = bytes(layers / b"transport")
    view = parse_untrusted(packet)
    assert view is not None
    assert (view.protocol, view.identification, packet[view.transport :]) == (58, 5, b"transport")


def test_walk_stops_at_a_later_fragment():
    fragment = pack(">BBHI", 60, 0, 1480, 77)
    view = parse_untrusted(builders.ip6(44, A6, B6, fragment + b"the middle of something"))
    assert view is not None
    assert (view.fragment_offset, view.protocol, view.transport) == (1480, 60, 48)
    assert view.is_fragment
    assert not view.more_fragments


@pytest.mark.parametrize("kind", [0, 43, 44, 51, 60])
def test_extension_header_past_the_end_is_malformed(kind):
    assert parse_untrusted(builders.ip6(kind, A6, B6, bytes(7))) is None
    if kind != 44:  # a fragment header has a fixed size
        assert parse_untrusted(builders.ip6(kind, A6, B6, b"\x11\x09" + bytes(6))) is None


def test_number_of_extension_headers_is_bounded():
    chain = b"\x3c\0" + bytes(6)
    most = chain * (MAX_EXTENSIONS - 2) + b"\x11\0" + bytes(6)
    view = parse_untrusted(builders.ip6(60, A6, B6, most + bytes(8)))
    assert view is not None
    assert view.protocol == 17
    assert parse_untrusted(builders.ip6(60, A6, B6, chain * 2 + most + bytes(8))) is None


@pytest.mark.parametrize(
    "text",
    [
        "0.0.0.0",
        "127.0.0.1",
        "169.254.1.1",
        "224.0.0.1",
        "239.255.255.255",
        "255.255.255.255",
        "::",
        "::1",
        "fe80::1",
        "febf::1",
        "ff02::1",
        "::ffff:10.0.0.1",
    ],
)
def test_unroutable_addresses(text):
    address = ip_address(text)
    assert is_unroutable(address.version, int(address))


@pytest.mark.parametrize(
    "text", ["10.0.0.1", "240.1.2.3", "169.253.1.1", "223.255.255.255", "::2", "fd00::1", "fec0::1"]
)
def test_routable_addresses(text):
    address = ip_address(text)
    assert not is_unroutable(address.version, int(address))


@given(st.ip_addresses())
def test_classification_agrees_with_ipaddress(address):
    special = (
        address.is_multicast
        or address.is_loopback
        or address.is_link_local
        or address.is_unspecified
        or (address.version == 4 and (int(address) >> 24 == 0 or int(address) == 2**32 - 1))
        or (address.version == 6 and address.ipv4_mapped is not None)
    )
    assert is_unroutable(address.version, int(address)) is special
    group = address.is_multicast or int(address) == 2**32 - 1
    assert is_multicast(address.version, int(address)) is group


def test_views_of_captures_stay_inside_them(vectors: Path):
    for frame in all_frames(vectors / "pcaps"):
        view = parse_untrusted(frame)
        if view is None:
            continue
        assert endpoints(frame) == (view.version, view.source, view.destination)
        assert 0 <= view.start < view.transport <= view.end <= len(frame)


@pytest.mark.parametrize("layer", [IP, IPv6])
def test_fields_agree_with_scapy(vectors: Path, layer):
    version = 4 if layer is IP else 6
    frames = [f for f in all_frames(vectors / "pcaps") if parse_untrusted(f)]
    for frame in [f for f in frames if f[0] >> 4 == version][:100]:
        view, theirs = parse_untrusted(frame), layer(frame)
        assert view is not None
        assert str(ip_address(theirs.src)) == str(type(ip_address(theirs.src))(view.source))
        assert view.hop_limit == (theirs.ttl if version == 4 else theirs.hlim)
        if version == 4:
            assert (view.identification, view.fragment_offset) == (theirs.id, theirs.frag * 8)
            assert view.header_length == theirs.ihl * 4


@given(st.binary(max_size=120), st.integers(0, 20))
def test_random_bytes_give_a_view_inside_the_buffer_or_none(data, offset):
    view = parse_untrusted(data, offset)
    if view is not None:
        assert offset == view.start < view.transport <= view.end <= len(data)
