"""Checked views of IPv4 and IPv6 packets, cheap enough for the packet path.

    IPv4   0      1      2      4      6      8     9      10      12       16       20
           +------+------+------+------+------+-----+------+-------+--------+--------+----------
           |4, IHL| TOS  |length|  id  |offset| TTL | prot.| check | source | destin.| options
           +------+------+------+------+------+-----+------+-------+--------+--------+----------
    IPv6   0                    4       6      7      8               24               40
           +--------------------+-------+------+------+---------------+----------------+--------
           | 6, class, flow     |payload| next | hops |    source     |  destination   | extens.
           +--------------------+-------+------+------+---------------+----------------+--------

Two levels, because they are wanted at different rates. `endpoints` is what forwarding asks of every
packet: version and two addresses as integers, with one `Struct` call, no objects. `parse_untrusted`
is the full view for the rest of the program: fragments, hop limit, where the transport header is.

Both answer None for a packet whose lengths do not add up. Bytes behind the packet's own length are
tolerated (Ethernet padding), missing ones are not. Checksums are not verified: the kernel that
receives the packet does it.

References:
    RFC 791 (IPv4), RFC 8200, section 4 (IPv6 and its extension headers), RFC 4302, section 2.2
    (length of AH).
"""

from __future__ import annotations

from struct import Struct
from typing import Final, NamedTuple

# -- specification ---------------------------------------------------------------------------------

IPV4_HEADER_SIZE: Final = 20
IPV6_HEADER_SIZE: Final = 40

PROTOCOL_HOP_BY_HOP: Final = 0
PROTOCOL_ICMP: Final = 1
PROTOCOL_TCP: Final = 6
PROTOCOL_UDP: Final = 17
PROTOCOL_ROUTING: Final = 43
PROTOCOL_FRAGMENT: Final = 44
PROTOCOL_AH: Final = 51
PROTOCOL_ICMPV6: Final = 58
PROTOCOL_DESTINATION_OPTIONS: Final = 60

# -- implementation --------------------------------------------------------------------------------

MAX_EXTENSIONS: Final = 8
"""Extension headers walked before a packet is called malformed. Each kind occurs once (destination
options twice), so more is an attempt to make somebody walk."""

_V4_ENDPOINTS: Final = Struct(">BxH8xII").unpack_from
_V6_ENDPOINTS: Final = Struct(">4xH2xQQQQ").unpack_from
_V4_REST: Final = Struct(">xBxxHHBB").unpack_from
_V6_REST: Final = Struct(">IxxBB").unpack_from
_EXTENSION: Final = Struct(">BB").unpack_from
_FRAGMENT: Final = Struct(">BxHI").unpack_from

_SKIPPED: Final = frozenset({PROTOCOL_HOP_BY_HOP, PROTOCOL_ROUTING, PROTOCOL_DESTINATION_OPTIONS})

Buffer = bytes | bytearray | memoryview


def endpoints(
    packet: Buffer, offset: int = 0, end: int | None = None
) -> tuple[int, int, int] | None:
    """Version, source and destination of the packet at `offset`.

    Args:
        packet: a buffer that holds the packet.
        offset: where the packet starts.
        end: where it ends at the latest; the end of the buffer if None.

    Returns:
        (4 or 6, source, destination) with addresses as integers, or None when malformed.
    """
    available = (len(packet) if end is None else end) - offset
    if available < IPV4_HEADER_SIZE:
        return None
    first, total, source, destination = _V4_ENDPOINTS(packet, offset)
    if 0x45 <= first <= 0x4F:
        if (first & 15) << 2 <= total <= available:
            return 4, source, destination
        return None
    if first >> 4 != 6 or available < IPV6_HEADER_SIZE:
        return None
    payload, source, source_low, destination, destination_low = _V6_ENDPOINTS(packet, offset)
    if payload + IPV6_HEADER_SIZE > available:
        return None
    return 6, source << 64 | source_low, destination << 64 | destination_low


class IpView(NamedTuple):
    """What the IP headers of one packet say. All positions are indexes into the buffer.

    Attributes:
        version: 4 or 6.
        source: address as an integer.
        destination: address as an integer.
        protocol: what is at `transport`, behind any IPv6 extension headers.
        hop_limit: TTL or hop limit.
        traffic_class: DSCP and ECN bits.
        identification: of the datagram a fragment is part of; 0 in an unfragmented IPv6 packet.
        dont_fragment: routers must not fragment it; always true for IPv6.
        more_fragments: this is a fragment and not the last one.
        fragment_offset: bytes of the datagram in front of this fragment's, a multiple of 8.
        start: where the IP header starts.
        transport: where the transport header (or the fragment's share of the payload) starts.
        end: where the packet ends by its own length.
    """

    version: int
    source: int
    destination: int
    protocol: int
    hop_limit: int
    traffic_class: int
    identification: int
    dont_fragment: bool
    more_fragments: bool
    fragment_offset: int
    start: int
    transport: int
    end: int

    @property
    def is_fragment(self) -> bool:
        """Whether the transport header may be cut, or in another packet altogether."""
        return self.more_fragments or self.fragment_offset > 0

    @property
    def header_length(self) -> int:
        """Bytes in front of the transport header, IPv6 extension headers included."""
        return self.transport - self.start

    @property
    def total_length(self) -> int:
        """Bytes of the packet by its own length."""
        return self.end - self.start


def parse_untrusted(packet: Buffer, offset: int = 0, end: int | None = None) -> IpView | None:
    """The full view of the packet at `offset`; None when malformed.

    Args:
        packet: a buffer that holds the packet.
        offset: where the packet starts.
        end: where it ends at the latest; the end of the buffer if None.
    """
    addresses = endpoints(packet, offset, end)
    if addresses is None:
        return None
    if addresses[0] == 4:
        return _parse_v4(packet, offset)
    return _parse_v6(packet, offset, addresses)


def _parse_v4(packet: Buffer, start: int) -> IpView:
    first, total, source, destination = _V4_ENDPOINTS(packet, start)
    traffic_class, identification, flags, hop_limit, protocol = _V4_REST(packet, start)
    return IpView(
        version=4,
        source=source,
        destination=destination,
        protocol=protocol,
        hop_limit=hop_limit,
        traffic_class=traffic_class,
        identification=identification,
        dont_fragment=bool(flags & 0x4000),
        more_fragments=bool(flags & 0x2000),
        fragment_offset=(flags & 0x1FFF) << 3,
        start=start,
        transport=start + ((first & 15) << 2),
        end=start + total,
    )


def _parse_v6(packet: Buffer, start: int, addresses: tuple[int, int, int]) -> IpView | None:
    word, protocol, hop_limit = _V6_REST(packet, start)
    payload = _V6_ENDPOINTS(packet, start)[0]
    end = start + IPV6_HEADER_SIZE + payload
    walked = _walk_extensions(packet, start + IPV6_HEADER_SIZE, end, protocol)
    if walked is None:
        return None
    protocol, transport, flags, identification = walked
    return IpView(
        version=6,
        source=addresses[1],
        destination=addresses[2],
        protocol=protocol,
        hop_limit=hop_limit,
        traffic_class=word >> 20 & 0xFF,
        identification=identification,
        dont_fragment=True,
        more_fragments=bool(flags & 1),
        fragment_offset=flags & 0xFFF8,
        start=start,
        transport=transport,
        end=end,
    )


def _walk_extensions(
    packet: Buffer, at: int, end: int, protocol: int
) -> tuple[int, int, int, int] | None:
    # Returns protocol, position, fragment word and identification of what is behind them.
    flags = identification = 0
    for _ in range(MAX_EXTENSIONS):
        if protocol in _SKIPPED or protocol == PROTOCOL_AH:
            if end - at < 8:
                return None
            following, length = _EXTENSION(packet, at)
            # AH alone counts in units of four bytes (RFC 4302, section 2.2).
            at += (length + 2) << 2 if protocol == PROTOCOL_AH else (length + 1) << 3
        elif protocol == PROTOCOL_FRAGMENT:
            if end - at < 8:
                return None
            following, flags, identification = _FRAGMENT(packet, at)
            at += 8
            if flags & 0xFFF8:
                # What follows is the middle of a payload, whatever its protocol.
                return following, at, flags, identification
        else:
            return protocol, at, flags, identification
        if at > end:
            return None
        protocol = following
    return None


def is_unroutable(version: int, address: int) -> bool:
    """Whether `address` never travels between nodes, as a source or as a destination.

    True for multicast, broadcast (255.255.255.255), link-local, loopback, unspecified and, in IPv6,
    IPv4-mapped addresses. Class E (240.0.0.0/4) is not among them: some clusters use it for pods.
    """
    if version == 4:
        top = address >> 24
        return (
            top in (0, 127)
            or 224 <= top <= 239
            or address >> 16 == 0xA9FE  # 169.254.0.0/16
            or address == 0xFFFFFFFF
        )
    return (
        address >> 120 == 0xFF
        or address >> 118 == 0x3FA  # fe80::/10
        or address <= 1
        or address >> 32 == 0xFFFF  # ::ffff:0.0.0.0/96
    )


def is_multicast(version: int, address: int) -> bool:
    """Whether `address` names a group, or everybody (255.255.255.255)."""
    if version == 4:
        return 224 <= address >> 24 <= 239 or address == 0xFFFFFFFF
    return address >> 120 == 0xFF
