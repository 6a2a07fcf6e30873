"""The pipe between the daemon and the process of a lane: whole messages, in order, never waiting.

A pair of Unix sockets of type SOCK_SEQPACKET keeps messages apart. Both ends are non-blocking: what
the kernel does not take at once waits here, in a bounded queue. An end that does not read for so
long that the bound is reached is as good as dead, and is treated so.

References:
    unix(7), SOCK_SEQPACKET: a read of no bytes is the end.
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import Callable
from typing import Final

from overlay.lanes.messages import MESSAGE_LIMIT

MOST_WAITING: Final = 16 << 20
"""Bytes that may wait for the other end. All of 10,000 routes and 1,000 sessions are 2 MiB."""

READS: Final = 64
"""Messages taken in one pass, so that packets get their turn."""


ENDED: Final = "the other end is closed"
"""Why nothing more arrives, in the ordinary case."""


def make_pair() -> tuple[socket.socket, socket.socket]:
    """Two connected ends."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


class Pipe:
    """One end, on the running event loop.

    Args:
        end: one of `make_pair`; closed with this.
        on_messages: told what arrived, one or more at a time.
        on_end: told once, with the reason, when nothing more will arrive; not after `close`.
    """

    def __init__(
        self,
        end: socket.socket,
        *,
        on_messages: Callable[[list[bytes]], None],
        on_end: Callable[[str], None],
    ) -> None:
        self._socket = end
        self._on_messages = on_messages
        self._on_end = on_end
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._closed = False
        self._loop = asyncio.get_running_loop()
        end.setblocking(False)
        self._loop.add_reader(end.fileno(), self._read)

    def send(self, message: bytes) -> None:
        """Send a message of 1 to `MESSAGE_LIMIT` bytes; after the end nothing happens."""
        assert 0 < len(message) <= MESSAGE_LIMIT
        if self._closed:
            return
        if self._waiting or not self._write(message):
            if not self._waiting:
                self._loop.add_writer(self._socket.fileno(), self._write_waiting)
            self._waiting.append(message)
            self._waiting_bytes += len(message)
            if self._waiting_bytes > MOST_WAITING:
                # Not at once: whoever sends is in the middle of something.
                self._loop.call_soon(self._end, "it does not read what it is told")

    def _write(self, message: bytes) -> bool:
        """Whether it left; after an error it did, to nowhere: the reader learns of the end."""
        try:
            self._socket.send(message)
        except BlockingIOError:
            return False
        except OSError:
            return True
        return True

    def _write_waiting(self) -> None:
        while self._waiting and self._write(self._waiting[0]):
            self._waiting_bytes -= len(self._waiting.popleft())
        if not self._waiting:
            self._loop.remove_writer(self._socket.fileno())

    def _read(self) -> None:
        messages: list[bytes] = []
        ended = False
        for _ in range(READS):
            try:
                message = self._socket.recv(MESSAGE_LIMIT)
            except BlockingIOError:
                break
            except OSError:
                message = b""
            if not message:
                ended = True
                break
            messages.append(message)
        if messages:
            self._on_messages(messages)
        if ended:
            self._end(ENDED)

    def _end(self, why: str) -> None:
        if not self._closed:
            self.close()
            self._on_end(why)

    def close(self) -> None:
        """Close this end; the other one reads its end. Safe to call twice."""
        if self._closed:
            return
        self._closed = True
        self._loop.remove_reader(self._socket.fileno())
        self._loop.remove_writer(self._socket.fileno())
        self._waiting.clear()
        self._socket.close()
