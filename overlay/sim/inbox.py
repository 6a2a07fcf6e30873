"""The socket buffer of a machine that is not reading: bounded in bytes, first come, first served.

Source: socket(7), SO_RCVBUF. Linux counts its own overhead per datagram as well; here a byte is a
byte, so a paused machine keeps somewhat more than a real one would.
"""

from __future__ import annotations

from typing import Final

from overlay.types import Endpoint

SOCKET_BUFFER: Final = 212_992
"""Bytes: Linux' default receive buffer."""

Waiting = tuple[bytes, int, Endpoint]
"""Buffer, segment size and source of one read."""


class Inbox:
    """Reads that wait for the machine to go on."""

    __slots__ = ("_bytes", "_reads", "_size")

    def __init__(self, size: int = SOCKET_BUFFER) -> None:
        self._size = size
        self._reads: list[Waiting] = []
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._reads)

    def push(self, buffer: bytes, segment_size: int, source: Endpoint) -> bool:
        """Let a read wait; False if there is no room and it is lost."""
        if self._bytes + len(buffer) > self._size:
            return False
        self._reads.append((buffer, segment_size, source))
        self._bytes += len(buffer)
        return True

    def take(self) -> list[Waiting]:
        """Everything that waits, oldest first; nothing waits any more."""
        reads, self._reads, self._bytes = self._reads, [], 0
        return reads
