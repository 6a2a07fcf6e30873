"""IP packets built by hand, with right checksums, independently of the code under test.

Addresses are what `ipaddress` takes: text, integers or address objects. Everything after the
payload is a keyword, and has a default that makes an ordinary packet.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address
from struct import pack, unpack

Address4 = str | int | IPv4Address
Address6 = str | int | IPv6Address

ICMP, TCP, UDP, ICMPV6 = 1, 6, 17, 58
SYN, FIN, PSH, ACK, CWR = 0x02, 0x01, 0x08, 0x10, 0x80


def slow_checksum(data: bytes) -> int:
    """RFC 1071 as its section 4.1 writes it: add words, fold carries, complement."""
    if len(data) % 2:
        data += b"\0"
    total = sum(unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ip4(
    protocol: int,
    source: Address4,
    destination: Address4,
    body: bytes,
    *,
    ttl: int = 64,
    tos: int = 0,
    identification: int = 0,
    flags: int = 2,
    fragment_offset: int = 0,
    options: bytes = b"",
) -> bytes:
    """An IPv4 packet. `flags`: 2 is don't fragment, 1 more fragments; offset in bytes."""
    words = 5 + len(options) // 4
    total = words * 4 + len(body)
    fragment = flags << 13 | fragment_offset >> 3
    ends = IPv4Address(source).packed + IPv4Address(destination).packed + options
    head = pack(">BBHHHBB", 0x40 | words, tos, total, identification, fragment, ttl, protocol)
    return head + pack(">H", slow_checksum(head + bytes(2) + ends)) + ends + body


def ip6(
    protocol: int,
    source: Address6,
    destination: Address6,
    body: bytes,
    *,
    ttl: int = 64,
    traffic_class: int = 0,
) -> bytes:
    """An IPv6 packet; extension headers, if any, are the front of `body`."""
    head = pack(">IHBB", 6 << 28 | traffic_class << 20, len(body), protocol, ttl)
    return head + IPv6Address(source).packed + IPv6Address(destination).packed + body


def pseudo4(source: Address4, destination: Address4, protocol: int, length: int) -> bytes:
    """The pseudo header of RFC 793."""
    ends = IPv4Address(source).packed + IPv4Address(destination).packed
    return ends + pack(">BBH", 0, protocol, length)


def pseudo6(source: Address6, destination: Address6, protocol: int, length: int) -> bytes:
    """The pseudo header of RFC 8200, section 8.1."""
    ends = IPv6Address(source).packed + IPv6Address(destination).packed
    return ends + pack(">IxxxB", length, protocol)


def udp_datagram(pseudo: bytes, payload: bytes, sport: int, dport: int) -> bytes:
    """A UDP header and payload."""
    length = 8 + len(payload)
    value = slow_checksum(pseudo + pack(">HHHH", sport, dport, length, 0) + payload) or 0xFFFF
    return pack(">HHHH", sport, dport, length, value) + payload


def udp4(
    source: Address4,
    destination: Address4,
    payload: bytes = b"",
    *,
    sport: int = 40000,
    dport: int = 40001,
    ttl: int = 64,
    identification: int = 0,
) -> bytes:
    """UDP over IPv4."""
    pseudo = pseudo4(source, destination, UDP, 8 + len(payload))
    body = udp_datagram(pseudo, payload, sport, dport)
    return ip4(UDP, source, destination, body, ttl=ttl, identification=identification)


def udp6(
    source: Address6,
    destination: Address6,
    payload: bytes = b"",
    *,
    sport: int = 40000,
    dport: int = 40001,
    ttl: int = 64,
) -> bytes:
    """UDP over IPv6."""
    pseudo = pseudo6(source, destination, UDP, 8 + len(payload))
    return ip6(UDP, source, destination, udp_datagram(pseudo, payload, sport, dport), ttl=ttl)


def _tcp_segment(
    pseudo: bytes, payload: bytes, sport: int, dport: int, sequence: int, flags: int, options: bytes
) -> bytes:
    words = 5 + len(options) // 4
    head = pack(">HHIIBBH", sport, dport, sequence, 1, words << 4, flags, 512)
    value = slow_checksum(pseudo + head + bytes(4) + options + payload)
    return head + pack(">HH", value, 0) + options + payload


def tcp4(
    source: Address4,
    destination: Address4,
    payload: bytes = b"",
    *,
    sport: int = 40000,
    dport: int = 80,
    ttl: int = 64,
    sequence: int = 1,
    flags: int = ACK,
    options: bytes = b"",
    identification: int = 0,
) -> bytes:
    """TCP over IPv4."""
    pseudo = pseudo4(source, destination, TCP, 20 + len(options) + len(payload))
    body = _tcp_segment(pseudo, payload, sport, dport, sequence, flags, options)
    return ip4(TCP, source, destination, body, ttl=ttl, identification=identification)


def tcp6(
    source: Address6,
    destination: Address6,
    payload: bytes = b"",
    *,
    sport: int = 40000,
    dport: int = 80,
    ttl: int = 64,
    sequence: int = 1,
    flags: int = ACK,
    options: bytes = b"",
) -> bytes:
    """TCP over IPv6."""
    pseudo = pseudo6(source, destination, TCP, 20 + len(options) + len(payload))
    body = _tcp_segment(pseudo, payload, sport, dport, sequence, flags, options)
    return ip6(TCP, source, destination, body, ttl=ttl)


def icmp4(
    source: Address4, destination: Address4, kind: int, code: int, rest: bytes, *, ttl: int = 64
) -> bytes:
    """Any ICMP message; `rest` is everything behind the checksum."""
    value = slow_checksum(pack(">BBH", kind, code, 0) + rest)
    return ip4(ICMP, source, destination, pack(">BBH", kind, code, value) + rest, ttl=ttl)


def icmp6(
    source: Address6, destination: Address6, kind: int, code: int, rest: bytes, *, ttl: int = 64
) -> bytes:
    """Any ICMPv6 message; `rest` is everything behind the checksum."""
    pseudo = pseudo6(source, destination, ICMPV6, 4 + len(rest))
    value = slow_checksum(pseudo + pack(">BBH", kind, code, 0) + rest)
    return ip6(ICMPV6, source, destination, pack(">BBH", kind, code, value) + rest, ttl=ttl)


def icmp_echo4(
    source: Address4,
    destination: Address4,
    payload: bytes = b"",
    *,
    identifier: int = 1,
    sequence: int = 1,
    reply: bool = False,
    ttl: int = 64,
) -> bytes:
    """A ping, or its answer."""
    rest = pack(">HH", identifier, sequence) + payload
    return icmp4(source, destination, 0 if reply else 8, 0, rest, ttl=ttl)


def icmp_echo6(
    source: Address6,
    destination: Address6,
    payload: bytes = b"",
    *,
    identifier: int = 1,
    sequence: int = 1,
    reply: bool = False,
    ttl: int = 64,
) -> bytes:
    """A ping over IPv6, or its answer."""
    rest = pack(">HH", identifier, sequence) + payload
    return icmp6(source, destination, 129 if reply else 128, 0, rest, ttl=ttl)


def checksums_are_right(packet: bytes) -> bool:
    """Whether every checksum in an unfragmented packet without extension headers verifies."""
    if packet[0] >> 4 == 4:
        header = (packet[0] & 15) * 4
        if slow_checksum(packet[:header]):
            return False
        protocol, body = packet[9], packet[header:]
        ends = int.from_bytes(packet[12:16], "big"), int.from_bytes(packet[16:20], "big")
        pseudo = b"" if protocol == ICMP else pseudo4(*ends, protocol, len(body))
    else:
        protocol, body = packet[6], packet[40:]
        ends = int.from_bytes(packet[8:24], "big"), int.from_bytes(packet[24:40], "big")
        pseudo = pseudo6(*ends, protocol, len(body))
    return slow_checksum(pseudo + body) == 0
