"""IP packets for simulated pods: plain UDP, checksums filled in.

The overlay looks at addresses and lengths only, so one kind of packet is enough to prove
that it carries what it is given and refuses what it must.

References:
    RFC 791, section 3.1 (IPv4). RFC 8200, section 3 (IPv6). RFC 768 (UDP): a computed checksum of
    zero is sent as 0xFFFF, because zero says that there is none.
"""

from __future__ import annotations

from ipaddress import IPv4Address
from struct import Struct
from typing import Final

from overlay.types import Address
from overlay.wire.checksum import checksum, pseudo_header_sum
from overlay.wire.ip import PROTOCOL_UDP

PORT: Final = 7
"""Echo (RFC 862), both ways: which port it is matters to nobody here."""

_IPV4: Final = Struct(">BBHHHBBH4s4s")
_IPV6: Final = Struct(">IHBB16s16s")
_UDP: Final = Struct(">HHHH")


def udp(source: Address, destination: Address, payload: bytes, *, ttl: int = 64) -> bytes:
    """A UDP packet from `source` to `destination`, which are of one family.

    >>> from ipaddress import ip_address
    >>> packet = udp(ip_address("10.0.0.1"), ip_address("10.0.1.1"), b"hello")
    >>> packet[:20].hex(), packet[20:28].hex(), packet[28:]
    ('4500002100000000401165cb0a0000010a000101', '00070007000da6f2', b'hello')
    """
    length = _UDP.size + len(payload)
    head = _UDP.pack(PORT, PORT, length, 0)
    pseudo = pseudo_header_sum(int(source), int(destination), PROTOCOL_UDP, length)
    check = checksum(head + payload, pseudo) or 0xFFFF
    return _ip(source, destination, length, ttl) + _UDP.pack(PORT, PORT, length, check) + payload


def _ip(source: Address, destination: Address, length: int, ttl: int) -> bytes:
    if not isinstance(source, IPv4Address):
        return _IPV6.pack(6 << 28, length, PROTOCOL_UDP, ttl, source.packed, destination.packed)
    total = _IPV4.size + length
    addresses = (source.packed, destination.packed)
    zero = _IPV4.pack(0x45, 0, total, 0, 0, ttl, PROTOCOL_UDP, 0, *addresses)
    return _IPV4.pack(0x45, 0, total, 0, 0, ttl, PROTOCOL_UDP, checksum(zero), *addresses)
