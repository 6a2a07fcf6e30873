"""The outer header: the 16 bytes in front of every datagram between nodes.

     0       1       2       3       4               8                              16
     +-------+-------+-------+-------+---------------+-------------------------------+
     | type  | index | last  | lane  | receiver index|            counter            |
     +-------+-------+-------+-------+---------------+-------------------------------+

Data datagrams carry one segment of a burst: `index` is its place, `last` the place of the final
segment, and all segments of a burst share the other fields. Handshake messages are one datagram;
their index, last, lane and counter are sent as 0 and ignored. `lane` is the sender's lane << 4
| the receiver's; each pair of lanes has keys of its own.

Nothing here is secret or trustworthy. What an attacker changes in a data header breaks the AEAD
tag, because the header (with `index` zeroed, so that all segments agree) is the associated data.

References:
    WireGuard paper (Donenfeld 2017), section 5.4: receiver index and counter in the clear.
"""

from __future__ import annotations

from struct import Struct
from typing import Final, NamedTuple

from overlay.drops import DropReason
from overlay.errors import WireError

# -- specification ---------------------------------------------------------------------------------

HEADER: Final = Struct(">BBBBIQ")
HEADER_SIZE: Final = HEADER.size

TYPE_INITIATION: Final = 1
TYPE_RESPONSE: Final = 2
TYPE_COOKIE_REPLY: Final = 3
TYPE_DATA: Final = 4

MAX_SEGMENTS: Final = 64
"""Segments in a burst; the index is 0 to 63. 64 to 255 are reserved (parity segments)."""

_TYPES: Final = frozenset({TYPE_INITIATION, TYPE_RESPONSE, TYPE_COOKIE_REPLY, TYPE_DATA})


class Header(NamedTuple):
    """A decoded outer header.

    Attributes:
        type: one of `TYPE_*`, or a number this version does not know.
        index: place of this segment in its burst.
        last: place of the last segment of the burst.
        lane: the sender's lane << 4 | the receiver's, each 0 to 15.
        receiver: the index by which the receiver knows the session, 0 <= receiver < 2**32.
        counter: nonce and replay counter of the burst, 0 <= counter < 2**64.
    """

    type: int
    index: int = 0  # type: ignore[assignment]  # hides tuple.index, which nobody needs here
    last: int = 0
    lane: int = 0
    receiver: int = 0
    counter: int = 0

    def encode(self) -> bytes:
        """The 16 bytes.

        >>> Header(TYPE_DATA, index=1, last=2, receiver=7, counter=9).encode().hex()
        '04010200000000070000000000000009'
        """
        return HEADER.pack(*self)

    @classmethod
    def decode_untrusted(cls, datagram: bytes | memoryview) -> Header:
        """Read the header in front of `datagram`; `fault` says whether its values make sense.

        Raises:
            WireError: fewer than 16 bytes. Nothing else.
        """
        if len(datagram) < HEADER_SIZE:
            raise WireError(f"{len(datagram)} bytes where an outer header needs {HEADER_SIZE}")
        return cls._make(HEADER.unpack_from(datagram))

    def fault(self) -> DropReason | None:
        """Why a datagram with this header goes no further, or None.

        >>> Header(TYPE_DATA, index=3, last=2).fault()
        <DropReason.BAD_HEADER: 'bad_header'>
        """
        if self.type not in _TYPES:
            return DropReason.UNKNOWN_TYPE
        if self.type == TYPE_DATA and not self.index <= self.last < MAX_SEGMENTS:
            return DropReason.BAD_HEADER
        return None

    def associated_data(self) -> bytes:
        """What the AEAD of the burst covers beside the plaintext: the header, index zeroed."""
        return HEADER.pack(self.type, 0, self.last, self.lane, self.receiver, self.counter)
