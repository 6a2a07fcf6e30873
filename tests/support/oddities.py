"""Inner packets that parsers disagree about: a table of what a hostile pod or member may write.

Each is made for two addresses and carries a mark, by which it is known wherever it comes out.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass

from tests.support.builders import (
    ICMP,
    ICMPV6,
    TCP,
    UDP,
    Address4,
    Address6,
    icmp4,
    icmp6,
    icmp_echo4,
    icmp_echo6,
    ip4,
    ip6,
    slow_checksum,
    tcp4,
    udp4,
    udp6,
)

Ends = tuple[Address4 | Address6, Address4 | Address6]
SOUND, MALFORMED = "sound", "malformed"

MARTIANS = {
    4: ("0.0.0.0", "127.0.0.1", "169.254.7.7", "224.0.0.1", "239.1.1.1", "240.0.0.1", "255.255.255.255"),  # noqa: E501 - one line, one table
    6: ("::", "::1", "fe80::7", "ff02::1", "ff0e::1", "::ffff:10.244.0.2", "::10.244.0.2"),
}  # fmt: skip
"""Addresses that are no pod's."""


@dataclass(frozen=True)
class Oddity:
    """One case.

    Attributes:
        name: what is odd.
        version: of IP.
        make: the packet, of a source, a target and the mark.
        verdict: of the overlay: SOUND ones are carried unchanged, whatever is behind the IP header;
            MALFORMED ones are dropped where they enter.
    """

    name: str
    version: int
    make: Callable[[Ends, bytes], bytes]
    verdict: str = SOUND


def patched(packet: bytes, at: int, value: bytes, *, check: bool = True) -> bytes:
    """With other bytes at a place, and the IPv4 header's checksum right again."""
    made = bytearray(packet)
    made[at : at + len(value)] = value
    if check and made[0] >> 4 == 4:
        made[10:12] = bytes(2)
        made[10:12] = struct.pack(">H", slow_checksum(bytes(made[: (made[0] & 15) * 4 or 20])))
    return bytes(made)


def _options(options: bytes) -> Callable[[Ends, bytes], bytes]:
    return lambda ends, mark: ip4(UDP, *ends, bytes(8) + mark, options=options)


def _extended(first: int, headers: bytes) -> Callable[[Ends, bytes], bytes]:
    return lambda ends, mark: ip6(first, *ends, headers + bytes(8) + mark)


def _chain(kinds: list[int], last: int) -> bytes:
    """Extension headers of eight bytes each, padded as they must be."""
    following = [*kinds[1:], last]
    return b"".join(bytes([number, 0, 1, 4, 0, 0, 0, 0]) for number in following)


def _fragment4(flags: int, offset: int, size: int = 24) -> Callable[[Ends, bytes], bytes]:
    return lambda ends, mark: ip4(
        TCP,
        *ends,
        (mark + bytes(size))[:size],
        flags=flags,
        fragment_offset=offset,
        identification=7,
    )


def _fragment6(offset_and_more: int, size: int = 24) -> Callable[[Ends, bytes], bytes]:
    head = struct.pack(">BBHI", UDP, 0, offset_and_more, 7)
    return lambda ends, mark: ip6(44, *ends, head + (mark + bytes(size))[:size])


ODDITIES: list[Oddity] = [
    # -- lengths -----------------------------------------------------------------------------------
    Oddity("IHL of 4", 4, lambda e, m: patched(udp4(*e, m), 0, b"\x44"), MALFORMED),
    Oddity("IHL of 0", 4, lambda e, m: patched(udp4(*e, m), 0, b"\x40"), MALFORMED),
    Oddity(
        "IHL beyond the end",
        4,
        lambda e, m: patched(udp4(*e, m), 0, b"\x4f", check=False),
        MALFORMED,
    ),
    Oddity("total length 0", 4, lambda e, m: patched(udp4(*e, m), 2, b"\0\0"), MALFORMED),
    Oddity("total length 19", 4, lambda e, m: patched(udp4(*e, m), 2, b"\0\x13"), MALFORMED),
    Oddity("total length too large", 4, lambda e, m: patched(udp4(*e, m), 2, b"\x7f\0"), MALFORMED),
    Oddity("bytes behind the end", 4, lambda e, m: udp4(*e, m) + b"behind", MALFORMED),
    Oddity("version 5", 4, lambda e, m: patched(udp4(*e, m), 0, b"\x55"), MALFORMED),
    Oddity("version 0", 4, lambda e, m: patched(udp4(*e, m), 0, b"\x05"), MALFORMED),
    Oddity("payload too large", 6, lambda e, m: patched(udp6(*e, m), 4, b"\x7f\0"), MALFORMED),
    Oddity("payload too small", 6, lambda e, m: patched(udp6(*e, m), 4, b"\0\x08"), MALFORMED),
    Oddity(
        "payload 0, as a jumbogram", 6, lambda e, m: patched(udp6(*e, m), 4, b"\0\0"), MALFORMED
    ),
    Oddity("bytes behind the end", 6, lambda e, m: udp6(*e, m) + b"behind", MALFORMED),
    # -- life, checksums and flags -----------------------------------------------------------------
    *(Oddity(f"TTL {n}", 4, lambda e, m, n=n: udp4(*e, m, ttl=n)) for n in (0, 1, 2, 3, 255)),
    *(Oddity(f"hop limit {n}", 6, lambda e, m, n=n: udp6(*e, m, ttl=n)) for n in (0, 1, 2, 3, 255)),
    Oddity("wrong checksum", 4, lambda e, m: patched(udp4(*e, m), 10, b"\x12\x34", check=False)),
    Oddity("reserved flag", 4, lambda e, m: ip4(UDP, *e, bytes(8) + m, flags=4)),
    Oddity("no next header", 6, lambda e, m: ip6(59, *e, m)),
    Oddity("unknown protocol", 4, lambda e, m: ip4(253, *e, m)),
    Oddity("IP in IP", 4, lambda e, m: ip4(4, *e, udp4("10.0.0.1", "10.0.0.2", m))),
    # -- options and extension headers -------------------------------------------------------------
    Oddity("loose source route", 4, _options(b"\x83\x07\x04\x0a\0\0\x01\0")),
    Oddity("strict source route", 4, _options(b"\x89\x07\x04\x0a\0\0\x01\0")),
    Oddity("record route", 4, _options(b"\x07\x07\x04\0\0\0\0\0")),
    Oddity("option of length 0", 4, _options(b"\x07\0\0\0")),
    Oddity("option beyond the header", 4, _options(b"\x07\x27\x04\0")),
    Oddity("router alert", 4, _options(b"\x94\x04\0\0")),
    Oddity("hop-by-hop", 6, _extended(0, _chain([0], UDP))),
    Oddity("hop-by-hop in second place", 6, _extended(60, _chain([60, 0], UDP))),
    Oddity("routing header type 0", 6, _extended(43, bytes([UDP, 2, 0, 1]) + bytes(20))),
    Oddity(
        "routing header with segments left", 6, _extended(43, bytes([UDP, 2, 4, 1]) + bytes(20))
    ),
    Oddity("a chain of twelve", 6, _extended(60, _chain([60] * 12, UDP))),
    Oddity("extension beyond the end", 6, _extended(60, bytes([UDP, 200, 1, 4]) + bytes(4))),
    Oddity("unknown option, discard", 6, _extended(0, bytes([UDP, 0, 0x5E, 4]) + bytes(4))),
    # -- fragments ---------------------------------------------------------------------------------
    Oddity("first fragment", 4, _fragment4(1, 0)),
    Oddity("tiny first fragment, ports cut off", 4, _fragment4(1, 0, 8)),
    Oddity("fragment over the TCP header", 4, _fragment4(0, 8)),
    Oddity("last fragment", 4, _fragment4(0, 24)),
    Oddity("fragment beyond 65,535", 4, _fragment4(0, 65_528)),
    Oddity("fragment of an odd length", 4, _fragment4(1, 24, 13)),
    Oddity("atomic fragment", 6, _fragment6(0)),
    Oddity("tiny first fragment", 6, _fragment6(1, 8)),
    Oddity("fragment over the header", 6, _fragment6(8)),
    Oddity("fragment beyond 65,535", 6, _fragment6(0xFFF8)),
    # -- ICMP with packets inside ------------------------------------------------------------------
    Oddity(
        "error about a stranger",
        4,
        lambda e, m: icmp4(*e, 3, 1, bytes(4) + udp4("1.1.1.1", "8.8.8.8", m)),
    ),
    Oddity("error about half a header", 4, lambda e, m: icmp4(*e, 3, 4, b"\0\0\0\x10" + m)),
    Oddity("redirect", 4, lambda e, m: icmp4(*e, 5, 1, b"\x0a\0\0\1" + udp4(*e[::-1], m))),
    Oddity(
        "error about an error",
        4,
        lambda e, m: icmp4(*e, 11, 0, bytes(4) + icmp4(*e[::-1], 3, 1, m)),
    ),
    Oddity("echo with a wrong checksum", 4, lambda e, m: patched(icmp_echo4(*e, m), 22, b"\1\2")),
    Oddity("ICMPv6 in IPv4", 4, lambda e, m: ip4(ICMPV6, *e, bytes(8) + m)),
    Oddity("ICMP in IPv6", 6, lambda e, m: ip6(ICMP, *e, bytes(8) + m)),
    Oddity("too big, to 1 byte", 6, lambda e, m: icmp6(*e, 2, 0, b"\0\0\0\1" + udp6(*e[::-1], m))),
    Oddity("router advertisement", 6, lambda e, m: icmp6(*e, 134, 0, bytes(12) + m, ttl=255)),
    Oddity("neighbour advertisement", 6, lambda e, m: icmp6(*e, 136, 0, bytes(20) + m, ttl=255)),
    Oddity("echo with a wrong checksum", 6, lambda e, m: patched(icmp_echo6(*e, m), 42, b"\1\2")),
    # -- what stands behind is not ours to judge ---------------------------------------------------
    Oddity("UDP longer than the packet", 4, lambda e, m: patched(udp4(*e, m), 24, b"\x7f\0")),
    Oddity("TCP header beyond the end", 4, lambda e, m: patched(tcp4(*e, m), 32, b"\xf0")),
    Oddity("TCP cut short", 4, lambda e, m: ip4(TCP, *e, m)),
]
