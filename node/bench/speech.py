"""How the two ends of a measurement speak: greetings, datagrams, commands, sockets.

    TCP   +----------+------+--------------+
          | token 16 | kind | milliseconds |  C  commands: JSON lines, a question and its answer
          +----------+------+--------------+  S  the near end sends; the far end says what arrived
                                              R  the far end sends for so long
    UDP   +----------+----------+---------+
          | token 16 | sequence | padding |   sent back as it is
          +----------+----------+---------+

Both ends throw away what arrives without looking at it: the kernel does, with MSG_TRUNC.

References:
    tcp(7) on MSG_TRUNC, TCP_INFO and SIOCOUTQ, which is TIOCOUTQ; linux/tcp.h, struct tcp_info.
"""

from __future__ import annotations

import fcntl
import json
import socket
import termios
import time
from collections.abc import Callable
from struct import Struct, error, unpack_from
from typing import Final

from node.bench.figures import Json

COMMAND, SINK, SOURCE = b"C", b"S", b"R"

GREETING: Final = Struct("!16scxxxI")
"""Token, kind, milliseconds."""

ARRIVED: Final = Struct("!Qd")
"""What a sink says at the end: bytes, and seconds from the first to the last."""

DATAGRAM: Final = Struct("!16sI")
"""Token, sequence."""

DATAGRAM_SIZE: Final = 200
"""Bytes of each datagram: as small as voice, so that the rate below costs next to nothing."""

CHUNK: Final = 1 << 20
"""Bytes handed to, or taken from, the kernel at once."""

LONGEST_LINE: Final = 64 << 10

_TOTAL_RETRANS, _DATA_SEGS_OUT = 100, 156  # offsets in struct tcp_info
_TCP_INFO_SIZE: Final = 256


def drain(connection: socket.socket, buffer: memoryview) -> tuple[int, float]:
    """Let the kernel throw away a stream until its end.

    Returns:
        Bytes, and seconds from the first to the last of them.

    Raises:
        OSError: as recv(2), TimeoutError included. Nothing else.
    """
    size, started, last = 0, 0.0, 0.0
    while count := connection.recv_into(buffer, len(buffer), socket.MSG_TRUNC):
        last = time.monotonic()
        started = started or last
        size += count
    return size, last - started


def pour(
    connection: socket.socket, data: memoryview, seconds: float, ended: Callable[[], bool]
) -> None:
    """Send the same bytes again and again for so long, then say that this is the end.

    Raises:
        OSError: as send(2), TimeoutError included. Nothing else.
    """
    until = time.monotonic() + seconds
    while time.monotonic() < until and not ended():
        connection.send(data)
    connection.shutdown(socket.SHUT_WR)


def segments_of(connection: socket.socket) -> tuple[int, int]:
    """Segments with data that a connection sent, and how many of them again."""
    try:
        info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_SIZE)
        (again,) = unpack_from("=I", info, _TOTAL_RETRANS)
        (sent,) = unpack_from("=I", info, _DATA_SEGS_OUT)
    except (OSError, error):
        return 0, 0  # an old kernel tells less
    return sent, again


def waiting_in(connection: socket.socket) -> int:
    """Bytes that were sent and not acknowledged yet."""
    return int(unpack_from("=i", fcntl.ioctl(connection, termios.TIOCOUTQ, bytes(4)))[0])


def exactly(connection: socket.socket, size: int) -> bytes:
    """So many bytes; fewer if the connection ended before.

    Raises:
        OSError: as recv(2), TimeoutError included. Nothing else.
    """
    data = b""
    while len(data) < size and (piece := connection.recv(size - len(data))):
        data += piece
    return data


class Lines:
    """JSON objects over a connection, one a line.

    Args:
        connection: with a timeout, where waiting shall have an end.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._read = b""

    def send(self, value: Json) -> None:
        """Send one object.

        Raises:
            OSError: as send(2). Nothing else.
        """
        self._connection.sendall(json.dumps(value).encode() + b"\n")

    def receive(self) -> Json | None:
        """The next object; None when the connection has ended, or says something else.

        Raises:
            OSError: as recv(2), TimeoutError included. Nothing else.
        """
        while b"\n" not in self._read:
            piece = self._connection.recv(LONGEST_LINE)
            if not piece or len(self._read) > LONGEST_LINE:
                return None
            self._read += piece
        line, _, self._read = self._read.partition(b"\n")
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            return None
        return value if isinstance(value, dict) else None


def family_of(host: str) -> socket.AddressFamily:
    """Of a numeric address."""
    return socket.AF_INET6 if ":" in host else socket.AF_INET
