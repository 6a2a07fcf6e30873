"""Checked views of TCP, UDP, ICMP and ICMPv6 headers, and the flow a packet belongs to.

    TCP    0       2       4               8               12      13     14      16      18     20
           +-------+-------+---------------+---------------+------+------+-------+-------+-------+
           |  from |  to   |   sequence    | acknowledged  |offset| flags| window| check | urgent|
           +-------+-------+---------------+---------------+------+------+-------+-------+-------+
    UDP    +-------+-------+-------+-------+
           |  from |  to   | length| check |
           +-------+-------+-------+-------+
    ICMP   +---+---+-------+-------+-------+
           |typ|cod| check |  id   |  seq  |     id and seq of an echo; otherwise by type
           +---+---+-------+-------+-------+

Views are made from a buffer and the `IpView` of the packet in it. They are None when the header is
cut short, or lies in another fragment.

References:
    RFC 9293, section 3.1 (TCP). RFC 768 (UDP). RFC 792 (ICMP). RFC 4443, section 2.1 (ICMPv6).
"""

from __future__ import annotations

from enum import IntFlag
from struct import Struct
from typing import Final, NamedTuple

from overlay.wire.ip import (
    PROTOCOL_ICMP,
    PROTOCOL_ICMPV6,
    PROTOCOL_TCP,
    PROTOCOL_UDP,
    Buffer,
    IpView,
    parse_untrusted,
)

# -- specification ---------------------------------------------------------------------------------

TCP_HEADER_SIZE: Final = 20
UDP_HEADER_SIZE: Final = 8
ICMP_HEADER_SIZE: Final = 8

ICMP_ECHO_REPLY: Final = 0
ICMP_ECHO_REQUEST: Final = 8
ICMPV6_ECHO_REQUEST: Final = 128
ICMPV6_ECHO_REPLY: Final = 129

_TCP: Final = Struct(">HHIIBBH").unpack_from
_UDP: Final = Struct(">HHH").unpack_from
_ICMP: Final = Struct(">BBxxHH").unpack_from

_ICMP_PROTOCOLS: Final = {4: PROTOCOL_ICMP, 6: PROTOCOL_ICMPV6}
_ECHOES: Final = frozenset(
    {
        (PROTOCOL_ICMP, ICMP_ECHO_REQUEST),
        (PROTOCOL_ICMP, ICMP_ECHO_REPLY),
        (PROTOCOL_ICMPV6, ICMPV6_ECHO_REQUEST),
        (PROTOCOL_ICMPV6, ICMPV6_ECHO_REPLY),
    }
)


class TcpFlag(IntFlag):
    """Bits of the TCP flags byte."""

    FIN = 0x01
    SYN = 0x02
    RST = 0x04
    PSH = 0x08
    ACK = 0x10
    URG = 0x20
    ECE = 0x40
    CWR = 0x80


class TcpView(NamedTuple):
    """A TCP header.

    Attributes:
        sport: source port.
        dport: destination port.
        sequence: of the first payload byte.
        acknowledgement: next byte expected, where ACK is set.
        flags: bits of `TcpFlag`, as a plain integer.
        window: unscaled.
        payload: index into the buffer where the options end.
    """

    sport: int
    dport: int
    sequence: int
    acknowledgement: int
    flags: int
    window: int
    payload: int


class UdpView(NamedTuple):
    """A UDP header; `length` counts header and payload, as the sender wrote it."""

    sport: int
    dport: int
    length: int


class IcmpView(NamedTuple):
    """An ICMP or ICMPv6 header; identifier and sequence mean something for echoes alone."""

    type: int
    code: int
    identifier: int
    sequence: int


class FlowKey(NamedTuple):
    """What all packets of one conversation, in one direction, have in common.

    Attributes:
        sport: source port; of an ICMP echo its identifier; else 0.
        dport: destination port; of an ICMP echo its identifier; else 0.
    """

    version: int
    protocol: int
    source: int
    destination: int
    sport: int
    dport: int

    def reversed(self) -> FlowKey:
        """The key of the packets that come back."""
        return FlowKey(
            self.version, self.protocol, self.destination, self.source, self.dport, self.sport
        )


def tcp_untrusted(packet: Buffer, ip: IpView) -> TcpView | None:
    """The TCP header of the packet; None when it has none that is whole."""
    if ip.protocol != PROTOCOL_TCP or not _has_header(ip, TCP_HEADER_SIZE):
        return None
    sport, dport, sequence, acknowledgement, offset, flags, window = _TCP(packet, ip.transport)
    payload = ip.transport + (offset >> 4 << 2)
    if not ip.transport + TCP_HEADER_SIZE <= payload <= ip.end:
        return None
    return TcpView(sport, dport, sequence, acknowledgement, flags, window, payload)


def udp_untrusted(packet: Buffer, ip: IpView) -> UdpView | None:
    """The UDP header of the packet; None when it has none that is whole."""
    if ip.protocol != PROTOCOL_UDP or not _has_header(ip, UDP_HEADER_SIZE):
        return None
    return UdpView._make(_UDP(packet, ip.transport))


def icmp_untrusted(packet: Buffer, ip: IpView) -> IcmpView | None:
    """The ICMP (in IPv4) or ICMPv6 (in IPv6) header; None when it has none that is whole."""
    if ip.protocol != _ICMP_PROTOCOLS[ip.version] or not _has_header(ip, ICMP_HEADER_SIZE):
        return None
    return IcmpView._make(_ICMP(packet, ip.transport))


def _has_header(ip: IpView, size: int) -> bool:
    return ip.fragment_offset == 0 and ip.end - ip.transport >= size


def flow_untrusted(packet: Buffer, offset: int = 0, end: int | None = None) -> FlowKey | None:
    """The flow of the packet at `offset`; None when the packet is malformed.

    A packet without readable ports belongs to the flow of its two addresses and protocol. So does
    every fragment, the first one included: only then do all fragments of a datagram agree.
    """
    ip = parse_untrusted(packet, offset, end)
    if ip is None:
        return None
    sport, dport = (0, 0) if ip.is_fragment else _ports(packet, ip)
    return FlowKey(ip.version, ip.protocol, ip.source, ip.destination, sport, dport)


def _ports(packet: Buffer, ip: IpView) -> tuple[int, int]:
    if ip.protocol in (PROTOCOL_TCP, PROTOCOL_UDP):
        view = tcp_untrusted(packet, ip) or udp_untrusted(packet, ip)
        return (view.sport, view.dport) if view else (0, 0)
    icmp = icmp_untrusted(packet, ip)
    if icmp and (ip.protocol, icmp.type) in _ECHOES:
        return icmp.identifier, icmp.identifier
    return 0, 0
