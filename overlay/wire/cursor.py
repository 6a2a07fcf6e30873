"""A bounds-checked reader: every overrun is `WireError`, never an `IndexError` or a short slice.

Decoders of our own fixed layouts read front to back:

    reader = Reader(datagram)
    sender = reader.u32()
    ephemeral = reader.take(32)
    reader.expect_end()

All integers are unsigned and in network order. The packet path does not use it: there, one
`Struct` per header is several times faster (see `overlay.wire.ip`).

References:
    The consuming style of aioquic's `Buffer` and of trio's `_dtls` records.
"""

from __future__ import annotations

from overlay.errors import WireError


class Reader:
    r"""Consumes `data` from the front.

    Error contract: after a `WireError` nothing was consumed.

    >>> reader = Reader(b"\x00\x07rest")
    >>> reader.u16(), reader.rest()
    (7, b'rest')
    """

    __slots__ = ("_data", "_position")

    def __init__(self, data: bytes | memoryview) -> None:
        self._data = data
        self._position = 0

    @property
    def remaining(self) -> int:
        """Bytes not yet consumed."""
        return len(self._data) - self._position

    def u8(self) -> int:
        """One byte as an integer."""
        return int.from_bytes(self.take(1), "big")

    def u16(self) -> int:
        """Two bytes as an integer."""
        return int.from_bytes(self.take(2), "big")

    def u32(self) -> int:
        """Four bytes as an integer."""
        return int.from_bytes(self.take(4), "big")

    def u64(self) -> int:
        """Eight bytes as an integer."""
        return int.from_bytes(self.take(8), "big")

    def take(self, count: int) -> bytes:
        """The next `count` bytes, copied.

        Raises:
            WireError: fewer are left, or `count` is negative (a length computed from other
                lengths of the sender's). Nothing else.
        """
        if not 0 <= count <= self.remaining:
            raise WireError(f"{self.remaining} bytes left where {count} are needed")
        start = self._position
        self._position += count
        return bytes(self._data[start : self._position])

    def rest(self) -> bytes:
        """Everything not yet consumed, possibly nothing."""
        return self.take(self.remaining)

    def expect_end(self) -> None:
        """Check that everything was consumed.

        Raises:
            WireError: something is left. Nothing else.
        """
        if self.remaining:
            raise WireError(f"{self.remaining} bytes too many")
