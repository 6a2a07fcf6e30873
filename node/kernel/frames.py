"""What all netlink messages are made of: headers one behind the other, and attributes.

    nlmsghdr          u32 length, u16 type, u16 flags, u32 number, u32 port
    family header     of a size that depends on the type
    attributes        u16 length, u16 type, bytes, padded to 4

Numbers of headers are in the machine's byte order. The kernel is trusted.

References:
    netlink(7). Linux include/uapi/linux/netlink.h.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from struct import Struct
from typing import Final

HEADER: Final = Struct("=IHHII")
ATTRIBUTE: Final = Struct("=HH")

NLM_F_REQUEST: Final = 0x01
NLM_F_ACK: Final = 0x04
NLMSG_ERROR: Final = 2
"""An answer: an error's code, or 0 for "done"; then the header that it is about."""
NLMSG_DONE: Final = 3
"""The end of a dump, and the code of how it went."""

SOL_NETLINK: Final = 270
ROOM: Final = 1 << 16
"""Bytes of the largest answer to a request that is no dump."""

_TYPE: Final = 0x3FFF
"""Of an attribute's type; the other bits say nested and network order."""


def frame(kind: int, flags: int, number: int, body: bytes) -> bytes:
    """One request, padded: `body` begins with the family header."""
    length = HEADER.size + len(body)
    return HEADER.pack(length, kind, flags | NLM_F_REQUEST, number, 0) + body + bytes(-length % 4)


def split(said: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """Type, flags, number and inside of each message that was received at once."""
    at, end, unpack = 0, len(said), HEADER.unpack_from
    while at < end:
        length, kind, flags, number, _ = unpack(said, at)
        yield kind, flags, number, said[at + HEADER.size : at + length]
        at += (length + 3) & ~3


def error_of(inside: bytes) -> int:
    """The errno that an answer says; 0 if none.

    >>> error_of((-17).to_bytes(4, sys.byteorder, signed=True)), error_of(b"")
    (17, 0)
    """
    return -int.from_bytes(inside[:4], sys.byteorder, signed=True)


def attribute(kind: int, value: bytes) -> bytes:
    """An attribute, padded."""
    length = ATTRIBUTE.size + len(value)
    return ATTRIBUTE.pack(length, kind) + value + bytes(-length % 4)


def attributes(message: bytes, at: int) -> dict[int, bytes]:
    """The attributes of a message from `at` on, by type. Of several of one type the last.

    >>> attributes(attribute(4, b"AB") + attribute(3, b"C"), 0)
    {4: b'AB', 3: b'C'}
    """
    found = {}
    unpack, end = ATTRIBUTE.unpack_from, len(message)
    while at + 4 <= end:
        length, kind = unpack(message, at)
        if length < ATTRIBUTE.size:
            break
        found[kind & _TYPE] = message[at + 4 : at + length]
        at += (length + 3) & ~3
    return found
