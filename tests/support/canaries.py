"""What must not be readable in the underlay, and a search for it.

Short things are looked for as they are, with so much around them that chance does not find them:
addresses in pairs, as in a packet, or packed, as in a message. Of long things every piece of eight
bytes is looked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import permutations

from overlay.types import Address

PIECE = 8
"""Bytes of a piece: in a megabyte of noise, one of 10,000 pieces occurs in one of 10**9 runs."""
LEAST_DIFFERENT = 5
"""Different bytes of a piece: runs of zeros occur in headers, and say nothing."""
HEADER_SIZE = 16


def addresses(known: Iterable[Address]) -> dict[str, bytes]:
    """How addresses would show: the pairs of inner headers, in messages, and as text."""
    known = list(known)
    found = {}
    for one, other in permutations(known, 2):
        if one.version == other.version:
            found[f"inner header {one} > {other}"] = one.packed + other.packed
    for one in known:
        found[f"packed {one}"] = bytes([0xC4, len(one.packed)]) + one.packed
        found[f"text {one}"] = str(one).encode()
        if one.version == 6:
            found[f"address {one}"] = one.packed
    return found


def pieces(secrets: Iterable[bytes]) -> set[bytes]:
    """Every piece of long secrets that says something."""
    found = {secret[at : at + PIECE] for secret in secrets for at in range(len(secret) - PIECE + 1)}
    return {piece for piece in found if len(set(piece)) >= LEAST_DIFFERENT}


def readable(
    datagrams: Iterable[bytes], named: dict[str, bytes], secret: set[bytes]
) -> Iterator[str]:
    """What of it can be read in datagrams, in each and in what they carry one behind the other."""
    sent = list(datagrams)
    for where in (b"\0".join(sent), b"".join(datagram[HEADER_SIZE:] for datagram in sent)):
        yield from (name for name, value in named.items() if value in where)
        windows = {where[at : at + PIECE] for at in range(len(where) - PIECE + 1)}
        yield from (f"a piece of gossip: {piece.hex()}" for piece in sorted(windows & secret))
