"""ICMP and ICMPv6: error replies to packets that cannot go on, and echoes.

    error  +----+------+----------+---------------+--------------------------------------------+
           |type| code | checksum | 0, or the MTU | as much of the packet as fits              |
           +----+------+----------+---------------+--------------------------------------------+
    echo   +----+------+----------+----+----------+--------------------------------------------+
           |type|  0   | checksum | id | sequence | payload, returned unchanged                |
           +----+------+----------+----+----------+--------------------------------------------+

An overlay that drops silently makes applications wait for minutes; these replies make them fail at
once with the right reason. Errors about errors would breed, so `error_reply` refuses to answer some
packets at all.

References:
    RFC 792 and RFC 1812, section 4.3.2 (ICMP; what a router must not answer, how much to quote).
    RFC 1122, section 3.2.2 (the same rules for hosts). RFC 1191, section 4 (MTU in "fragmentation
    needed"). RFC 4443, sections 2.4 and 3 (ICMPv6). RFC 6864, section 4.1 (identification 0 is
    fine where DF is set).
"""

from __future__ import annotations

from enum import Enum
from struct import Struct
from typing import Final, NamedTuple

from overlay.wire.checksum import checksum, pseudo_header_sum
from overlay.wire.ip import (
    IPV4_HEADER_SIZE,
    IPV6_HEADER_SIZE,
    PROTOCOL_ICMP,
    PROTOCOL_ICMPV6,
    Buffer,
    IpView,
    is_multicast,
    is_unroutable,
    parse_untrusted,
)
from overlay.wire.transport import (
    ICMP_ECHO_REPLY,
    ICMP_ECHO_REQUEST,
    ICMP_HEADER_SIZE,
    ICMPV6_ECHO_REPLY,
    ICMPV6_ECHO_REQUEST,
    icmp_untrusted,
)

# -- specification ---------------------------------------------------------------------------------

IPV4_ERROR_LIMIT: Final = 576
"""Bytes of a whole ICMP error packet: what every IPv4 host must be able to reassemble."""

IPV6_ERROR_LIMIT: Final = 1280
"""Bytes of a whole ICMPv6 error packet: the least IPv6 MTU."""

_V4_ERRORS: Final = frozenset({3, 4, 5, 11, 12})
_ECHO_TYPES: Final = {
    4: (ICMP_ECHO_REPLY, ICMP_ECHO_REQUEST),
    6: (ICMPV6_ECHO_REPLY, ICMPV6_ECHO_REQUEST),
}
_V6_REDIRECT: Final = 137
_V6_FIRST_INFORMATIONAL: Final = 128

# -- implementation --------------------------------------------------------------------------------

_HOP_LIMIT: Final = 64
_CONTROL_TRAFFIC: Final = 0xC0
"""Precedence 6, "internetwork control": RFC 1812, section 4.3.2.5, asks for it in errors."""

_ICMP: Final = Struct(">BBHI")
_V4: Final = Struct(">BBHHHBBHII")
_V6: Final = Struct(">IHBB")
_DONT_FRAGMENT: Final = 0x4000


class IcmpError(Enum):
    """Why a packet cannot go on: (type, code) in ICMP and in ICMPv6."""

    NO_ROUTE = (3, 0), (1, 0)
    HOST_UNREACHABLE = (3, 1), (1, 3)
    PORT_UNREACHABLE = (3, 3), (1, 4)
    TOO_BIG = (3, 4), (2, 0)
    ADMIN_PROHIBITED = (3, 13), (1, 1)
    TIME_EXCEEDED = (11, 0), (3, 0)


class Echo(NamedTuple):
    """An echo request or reply, with its addresses as integers."""

    version: int
    source: int
    destination: int
    is_request: bool
    identifier: int
    sequence: int
    payload: bytes


def error_reply(error: IcmpError, packet: Buffer, source: int, mtu: int = 0) -> bytes | None:
    """The packet that tells the sender of `packet` what became of it.

    Args:
        error: what to say.
        packet: the offending IP packet.
        source: whom the reply is from, an address of the packet's family as an integer.
        mtu: with TOO_BIG, the largest packet that would have passed.

    Returns:
        An IP packet addressed to the source of `packet`; None where none may be sent: in answer to
        an ICMP error, a fragment that is not the first, a packet from or to many (multicast,
        broadcast), from an address that cannot be answered, or one that is malformed.
    """
    ip = parse_untrusted(packet)
    if ip is None or not _may_be_answered(packet, ip):
        return None
    quoted = bytes(packet[ip.start : ip.end])
    kind, code = error.value[0 if ip.version == 4 else 1]
    rest = mtu if error is IcmpError.TOO_BIG else 0
    if ip.version == 4:
        quoted = quoted[: IPV4_ERROR_LIMIT - IPV4_HEADER_SIZE - ICMP_HEADER_SIZE]
        # The MTU has only the low half of the word in ICMP (RFC 1191, section 4).
        rest = min(rest, 0xFFFF)
    else:
        quoted = quoted[: IPV6_ERROR_LIMIT - IPV6_HEADER_SIZE - ICMP_HEADER_SIZE]
    head = (kind, code, rest)
    return _build(ip.version, source, ip.source, head, quoted, traffic_class=_CONTROL_TRAFFIC)


def _may_be_answered(packet: Buffer, ip: IpView) -> bool:
    # Stricter than RFC 4443: no exception for "packet too big" about multicast (none is routed
    # here), and IPv6 fragments are treated like IPv4's, as they too may belong to an error.
    if ip.fragment_offset or _is_icmp_error(packet, ip):
        return False
    if is_unroutable(ip.version, ip.source):
        return False
    return not is_multicast(ip.version, ip.destination)


def _is_icmp_error(packet: Buffer, ip: IpView) -> bool:
    if ip.protocol not in (PROTOCOL_ICMP, PROTOCOL_ICMPV6):
        return False
    icmp = icmp_untrusted(packet, ip)
    if icmp is None:
        # Cut short, or the other family's protocol: nobody can say that it is not an error.
        return True
    if ip.version == 4:
        return icmp.type in _V4_ERRORS
    return icmp.type < _V6_FIRST_INFORMATIONAL or icmp.type == _V6_REDIRECT


def echo_packet(echo: Echo) -> bytes:
    """The IP packet of an echo request or reply."""
    kind = _ECHO_TYPES[echo.version][echo.is_request]
    head = (kind, 0, echo.identifier << 16 | echo.sequence)
    return _build(echo.version, echo.source, echo.destination, head, echo.payload)


def echo_reply(request: Echo) -> bytes:
    """The IP packet that answers `request`."""
    answer = request._replace(
        source=request.destination, destination=request.source, is_request=False
    )
    return echo_packet(answer)


def parse_echo_untrusted(packet: Buffer) -> Echo | None:
    """The echo in `packet`; None when it is no echo, a fragment, or its checksum is wrong."""
    ip = parse_untrusted(packet)
    icmp = icmp_untrusted(packet, ip) if ip else None
    if ip is None or icmp is None or ip.is_fragment or icmp.code:
        return None
    message = bytes(packet[ip.transport : ip.end])
    if icmp.type not in _ECHO_TYPES[ip.version]:
        return None
    if checksum(message, _seed(ip.version, ip.source, ip.destination, len(message))):
        return None
    return Echo(
        version=ip.version,
        source=ip.source,
        destination=ip.destination,
        is_request=icmp.type == _ECHO_TYPES[ip.version][True],
        identifier=icmp.identifier,
        sequence=icmp.sequence,
        payload=message[ICMP_HEADER_SIZE:],
    )


def _seed(version: int, source: int, destination: int, length: int) -> int:
    # ICMPv6 has a pseudo header, ICMP has none.
    if version == 4:
        return 0
    return pseudo_header_sum(source, destination, PROTOCOL_ICMPV6, length)


def _build(
    version: int,
    source: int,
    destination: int,
    head: tuple[int, int, int],
    body: bytes,
    *,
    traffic_class: int = 0,
) -> bytes:
    kind, code, rest = head
    seed = _seed(version, source, destination, ICMP_HEADER_SIZE + len(body))
    value = checksum(_ICMP.pack(kind, code, 0, rest) + body, seed)
    message = _ICMP.pack(kind, code, value, rest) + body
    if version == 4:
        return _v4_header(source, destination, len(message), traffic_class) + message
    first_word = 6 << 28 | traffic_class << 20
    header = _V6.pack(first_word, len(message), PROTOCOL_ICMPV6, _HOP_LIMIT)
    return header + source.to_bytes(16, "big") + destination.to_bytes(16, "big") + message


def _v4_header(source: int, destination: int, length: int, traffic_class: int) -> bytes:
    total = IPV4_HEADER_SIZE + length
    fields = (0x45, traffic_class, total, 0, _DONT_FRAGMENT, _HOP_LIMIT, PROTOCOL_ICMP)
    value = checksum(_V4.pack(*fields, 0, source, destination))
    return _V4.pack(*fields, value, source, destination)
