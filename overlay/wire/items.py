"""Items: what gossip replicates without understanding it.

    key      b"n" + node id 32      a node's record; `version` is boot << 32 | n
             b"b" + u32 block       its deeds; `version` is the sequence of their base, 0 without
             b"a" + node id 32      a node's removal; `version` is 1
             b"c"                   the authorities; `version` counts their changes
    version  never falls
    body     opaque bytes; whoever admits an item checks the signatures inside

Of two items with one key the greater (version, body) wins, everywhere and in any order: comparing
the body as well makes the choice total, even against a writer that signs two bodies under one
version.

References:
    Demers et al. 1987, "Epidemic Algorithms for Replicated Database Maintenance": anti-entropy
    by comparing (key, stamp) lists first and sending only what differs.
"""

from __future__ import annotations

import struct
from hashlib import blake2s
from typing import Final, NamedTuple

from overlay.config import Limits
from overlay.errors import WireError
from overlay.wire.packing import U64

KEY_LIMIT: Final = 40
"""Bytes of a key: one letter and a 32-byte identity, with room for a kind not yet known."""

BODY_LIMIT: Final = Limits().control_message - 100
"""Bytes of a body: one item, with its key, version and the message around it, fits a message."""

ID_SIZE: Final = 8
"""64 bits tell items apart by accident. Only members make items, and one that searched for two of
its own with one id would hide nothing but one of them."""

_STAMP: Final = struct.Struct(">BQ")
"""Length of the key, and version; key and body follow."""

_TYPES: Final = [bytes, int, bytes]
"""Of an item's fields, as they are unpacked."""
_FIELDS: Final = len(_TYPES)


class Item(NamedTuple):
    """One replicated value.

    Attributes:
        key: 1 to `KEY_LIMIT` bytes.
        version: 0 <= version < 2**64.
        body: at most `BODY_LIMIT` bytes.
    """

    key: bytes
    version: int
    body: bytes


def item_id(item: Item) -> bytes:
    """Eight bytes that name this version of this item: items that differ have different ones.

    >>> item_id(Item(b"b" + bytes(4), 1, b"deeds")).hex()
    '1daf8ff8aab8449c'
    """
    stamp = _STAMP.pack(len(item.key), item.version)
    return blake2s(stamp + item.key + item.body, digest_size=ID_SIZE).digest()


def item_untrusted(value: object) -> Item:
    """The item that a decoded [key, version, body] array holds.

    Raises:
        WireError: wrong shape or over a limit. Nothing else.
    """
    # Not field by field, nor by a pattern: stores of thousands come this way, with all in them.
    if isinstance(value, list) and [*map(type, value[:_FIELDS])] == _TYPES:
        key, version, body = value[:_FIELDS]
        if 0 < len(key) <= KEY_LIMIT and 0 <= version <= U64 and len(body) <= BODY_LIMIT:
            return Item(key, version, body)
    raise WireError("item: not a key, a version and a body within their limits")
