"""One line of text for any datagram, inner or outer, the way tcpdump prints it.

    10.244.1.2.40000 > 10.244.2.2.80: tcp [P.] seq 1 ack 9 win 512 length 5, ttl 63
    fd00::1 > fd00::2: icmp6 echo request id 7 seq 1 length 56, ttl 64
    outer data receiver 0x00c0ffee counter 7 segment 1/3 lane 0, 1472 bytes

For traces, logs and failing tests. It reads whatever it is given: what does not parse is described
as far as it does.

References:
    tcpdump(1), section "Output format".
"""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from overlay.errors import WireError
from overlay.wire.header import (
    HEADER_SIZE,
    TYPE_COOKIE_REPLY,
    TYPE_DATA,
    TYPE_INITIATION,
    TYPE_RESPONSE,
    Header,
)
from overlay.wire.ip import (
    PROTOCOL_ICMP,
    PROTOCOL_ICMPV6,
    PROTOCOL_TCP,
    PROTOCOL_UDP,
    Buffer,
    IpView,
    parse_untrusted,
)
from overlay.wire.transport import (
    ICMP_HEADER_SIZE,
    UDP_HEADER_SIZE,
    IcmpView,
    TcpFlag,
    icmp_untrusted,
    tcp_untrusted,
    udp_untrusted,
)

_FLAG_LETTERS: Final = (
    (TcpFlag.SYN, "S"),
    (TcpFlag.FIN, "F"),
    (TcpFlag.RST, "R"),
    (TcpFlag.PSH, "P"),
    (TcpFlag.URG, "U"),
    (TcpFlag.CWR, "W"),
    (TcpFlag.ECE, "E"),
    (TcpFlag.ACK, "."),
)

_OUTER_NAMES: Final = {
    TYPE_INITIATION: "initiation",
    TYPE_RESPONSE: "response",
    TYPE_COOKIE_REPLY: "cookie reply",
}

_ICMP_NAMES: Final = {
    (4, 0): "echo reply",
    (4, 3): "unreachable",
    (4, 5): "redirect",
    (4, 8): "echo request",
    (4, 11): "time exceeded",
    (4, 12): "parameter problem",
    (6, 1): "unreachable",
    (6, 2): "packet too big",
    (6, 3): "time exceeded",
    (6, 4): "parameter problem",
    (6, 128): "echo request",
    (6, 129): "echo reply",
    (6, 133): "router solicitation",
    (6, 134): "router advertisement",
    (6, 135): "neighbour solicitation",
    (6, 136): "neighbour advertisement",
}


def describe(datagram: Buffer) -> str:
    """One line about an inner IP packet or an outer datagram. Never raises.

    The two cannot be confused: the first byte of an IP packet is 0x40 or more, that of an outer
    datagram is its type, a small number.
    """
    if len(datagram) == 0:
        return "nothing, 0 bytes"
    if datagram[0] >> 4 in (4, 6):
        return _describe_packet(datagram)
    return _describe_outer(datagram)


def _describe_outer(datagram: Buffer) -> str:
    size = f"{len(datagram)} bytes"
    try:
        header = Header.decode_untrusted(bytes(datagram[:HEADER_SIZE]))
    except WireError:
        return f"outer truncated, {size}"
    if header.type == TYPE_DATA:
        place = f"segment {header.index + 1}/{header.last + 1} lane {header.lane}"
        return (
            f"outer data receiver {header.receiver:#010x} counter {header.counter} {place}, {size}"
        )
    name = _OUTER_NAMES.get(header.type)
    if name is None:
        return f"outer unknown type {header.type}, {size}"
    if header.type == TYPE_INITIATION:
        return f"outer {name}, {size}"
    return f"outer {name} receiver {header.receiver:#010x}, {size}"


def _describe_packet(packet: Buffer) -> str:
    ip = parse_untrusted(packet)
    if ip is None:
        return f"ip{packet[0] >> 4} malformed, {len(packet)} bytes"
    tail = f", ttl {ip.hop_limit}"
    if ip.is_fragment:
        more = "+" if ip.more_fragments else ""
        tail += f", frag {ip.identification}@{ip.fragment_offset}{more}"
    describer = _DESCRIBERS.get(ip.protocol)
    text = describer(packet, ip) if describer else None
    if text is None:
        text = f"{_addresses(ip)}: proto {ip.protocol} length {ip.end - ip.transport}"
    return text + tail


def _describe_tcp(packet: Buffer, ip: IpView) -> str | None:
    tcp = tcp_untrusted(packet, ip)
    if tcp is None:
        return None
    flags = "".join(letter for flag, letter in _FLAG_LETTERS if tcp.flags & flag) or "none"
    parts = [f"{_addresses(ip, tcp.sport, tcp.dport)}: tcp [{flags}] seq {tcp.sequence}"]
    if tcp.flags & TcpFlag.ACK:
        parts.append(f"ack {tcp.acknowledgement}")
    parts.append(f"win {tcp.window} length {ip.end - tcp.payload}")
    return " ".join(parts)


def _describe_udp(packet: Buffer, ip: IpView) -> str | None:
    udp = udp_untrusted(packet, ip)
    if udp is None:
        return None
    length = ip.end - ip.transport - UDP_HEADER_SIZE
    return f"{_addresses(ip, udp.sport, udp.dport)}: udp length {length}"


def _describe_icmp(packet: Buffer, ip: IpView) -> str | None:
    icmp = icmp_untrusted(packet, ip)
    if icmp is None:
        return None
    name = "icmp" if ip.version == 4 else "icmp6"
    length = ip.end - ip.transport - ICMP_HEADER_SIZE
    return f"{_addresses(ip)}: {name} {_icmp_kind(ip.version, icmp)} length {length}"


def _icmp_kind(version: int, icmp: IcmpView) -> str:
    kind = _ICMP_NAMES.get((version, icmp.type))
    if kind is None:
        return f"type {icmp.type} code {icmp.code}"
    if kind.startswith("echo"):
        return f"{kind} id {icmp.identifier} seq {icmp.sequence}"
    return f"{kind} code {icmp.code}"


def _addresses(ip: IpView, sport: int | None = None, dport: int | None = None) -> str:
    source = "" if sport is None else f".{sport}"
    destination = "" if dport is None else f".{dport}"
    read = IPv4Address if ip.version == 4 else IPv6Address
    return f"{read(ip.source)}{source} > {read(ip.destination)}{destination}"


_DESCRIBERS: Final[dict[int, Callable[[Buffer, IpView], str | None]]] = {
    PROTOCOL_TCP: _describe_tcp,
    PROTOCOL_UDP: _describe_udp,
    PROTOCOL_ICMP: _describe_icmp,
    PROTOCOL_ICMPV6: _describe_icmp,
}
