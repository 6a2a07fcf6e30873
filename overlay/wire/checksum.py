"""The Internet checksum: sum, pseudo headers, incremental update.

The checksum is the complement of the one's complement sum of 16-bit words. One's complement
addition is addition modulo 0xFFFF in which 0 and 0xFFFF are the same number, and since 2**16 = 1
modulo 0xFFFF, a whole packet read as one big integer has the same remainder as the sum of its
words. One division in C replaces the loop over words:

    sum(words) mod 0xFFFF  ==  int.from_bytes(data, "big") mod 0xFFFF

The same is true of addresses and lengths, so one pseudo header function serves both families: how
its fields are laid out does not matter to the sum, only that each starts at an even byte.

Of the two zeros the sum uses 0xFFFF, except for data that is nothing but zero bytes: that is what
adding up words with end-around carry gives, so results compare equal with other implementations.

References:
    RFC 1071, sections 1 and 2. RFC 1624, section 3, equation 3 (RFC 1141's update can produce the
    wrong zero). RFC 768, RFC 9293, section 3.1, and RFC 8200, section 8.1: pseudo headers.
"""

from __future__ import annotations

from typing import Final

from overlay.wire.ip import Buffer

_MODULUS: Final = 0xFFFF


def ones_sum(data: Buffer, initial: int = 0) -> int:
    """One's complement sum of 16-bit words, 0 to 0xFFFF; an odd last byte is padded with zero.

    Args:
        data: starts at an even byte of what is summed.
        initial: a sum to continue from, for instance of a pseudo header.
    """
    total = int.from_bytes(data, "big")
    if len(data) & 1:
        total <<= 8
    return _fold(total + initial)


def checksum(data: Buffer, initial: int = 0) -> int:
    """The Internet checksum of `data`, where its checksum field is zero.

    Over data whose checksum field is filled in and right, the result is 0.

    >>> hex(checksum(bytes.fromhex("0001f203f4f5f6f7")))  # the example of RFC 1071, section 3
    '0x220d'
    """
    return ones_sum(data, initial) ^ _MODULUS


def pseudo_header_sum(source: int, destination: int, protocol: int, length: int) -> int:
    """One's complement sum of the pseudo header that TCP, UDP and ICMPv6 checksums begin with.

    Args:
        source: address, IPv4 or IPv6, as an integer.
        destination: address of the same family.
        protocol: of the transport header, not of an extension header in front of it.
        length: bytes of transport header and payload.
    """
    return _fold(source + destination + protocol + length)


def updated(old_checksum: int, old: int, new: int) -> int:
    """The checksum after a field changed from `old` to `new`.

    Args:
        old_checksum: right for the old value.
        old: a field of any even number of bytes at an even position, as an integer.
        new: its new value.

    >>> hex(updated(0xDD2F, 0x5555, 0x3285))  # the example of RFC 1624, section 4
    '0x0'
    """
    # ~(~HC + ~m + m'): adding the complement subtracts.
    unchanged = (old_checksum ^ _MODULUS) + (_MODULUS - old % _MODULUS)
    return _fold(unchanged + new) ^ _MODULUS


def _fold(total: int) -> int:
    return total % _MODULUS or (_MODULUS if total else 0)
