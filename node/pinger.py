"""Sends ICMP echoes from the node and waits for the answers, inside the event loop.

`muslin ping` reaches a pod the way any other program on the node would: kernel route, TUN, overlay,
the far node's kernel, the pod. So the echo is sent by the kernel of this node's namespace, through
a raw socket, with the node's own address as its source.

A raw socket gets a copy of every echo reply that arrives, also those to other programs. A reply is
ours when address, identifier, sequence and a random payload are the ones sent.

References:
    raw(7), icmp(7) for ICMP_FILTER; RFC 3542, section 3.1 (the kernel computes and checks the
    ICMPv6 checksum) and 3.2 (ICMP6_FILTER, a set bit blocks).
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address
from struct import Struct
from typing import Final

from node.errors import NodeError
from overlay.types import Address
from overlay.wire.icmp import Echo, echo_packet, parse_echo_untrusted
from overlay.wire.ip import IPV4_HEADER_SIZE, IPV6_HEADER_SIZE

_SOL_RAW: Final = 255
_ICMP_FILTER: Final = 1
_ICMP6_FILTER: Final = 1
_V4_REPLY: Final = 0
_V6_REPLY: Final = 129

_PAYLOAD_SIZE: Final = 56  # what ping(8) sends: 64 bytes with the ICMP header
_RECEIVE_SIZE: Final = 2048

READS: Final = 64
"""Messages taken in one pass, so that a flood of echo replies does not stop everything else."""

_ICMP: Final = Struct(">BBHHH")


@dataclass(slots=True)
class _Waiting:
    address: Address
    payload: bytes
    sent: float
    answer: asyncio.Future[float]


class Pinger:
    """Owns one raw socket per address family, opened when first needed.

    To be made and used inside a running event loop.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._sockets: dict[int, socket.socket] = {}
        self._waiting: dict[tuple[int, int], _Waiting] = {}
        self._identifier = int.from_bytes(os.urandom(2), "big")
        self._sequence = 0

    async def ping(self, address: Address, timeout: float) -> float | None:  # noqa: ASYNC109
        """Send one echo; the seconds until its answer, None when there was none in time.

        Raises:
            NodeError: raw sockets are not permitted. Nothing else: a kernel that has no route to
                `address` counts as no answer.
        """
        handle = self._socket(address.version)
        self._sequence = (self._sequence + 1) & 0xFFFF
        key = (address.version, self._sequence)
        payload = os.urandom(_PAYLOAD_SIZE)
        # Not loop.time(): uvloop's is the start of the loop's pass, in whole milliseconds.
        waiting = _Waiting(address, payload, time.monotonic(), self._loop.create_future())
        self._waiting[key] = waiting
        try:
            handle.sendto(self._message(address, payload), (str(address), 0))
            async with asyncio.timeout(timeout):
                return await waiting.answer
        except (TimeoutError, OSError):
            return None
        finally:
            if self._waiting.get(key) is waiting:
                del self._waiting[key]

    def close(self) -> None:
        """Close the sockets; whoever still waits gets no answer."""
        for handle in self._sockets.values():
            self._loop.remove_reader(handle.fileno())
            handle.close()
        self._sockets.clear()

    def _message(self, address: Address, payload: bytes) -> bytes:
        # The kernel adds the IP header, and for IPv6 the checksum over addresses it alone knows.
        echo = Echo(
            version=address.version,
            source=0,
            destination=int(address),
            is_request=True,
            identifier=self._identifier,
            sequence=self._sequence,
            payload=payload,
        )
        return echo_packet(echo)[IPV4_HEADER_SIZE if address.version == 4 else IPV6_HEADER_SIZE :]

    def _socket(self, version: int) -> socket.socket:
        if version not in self._sockets:
            try:
                self._sockets[version] = _open(version)
            except OSError as error:
                raise NodeError.of("opening a raw socket", error) from error
            self._loop.add_reader(self._sockets[version].fileno(), self._on_readable, version)
        return self._sockets[version]

    def _on_readable(self, version: int) -> None:
        with suppress(BlockingIOError):
            for _ in range(READS):
                message, source = self._sockets[version].recvfrom(_RECEIVE_SIZE)
                self._on_message_untrusted(version, message, source[0])

    def _on_message_untrusted(self, version: int, message: bytes, source: str) -> None:
        parsed = _reply_untrusted(version, message)
        if parsed is None or parsed[0] != self._identifier:
            return
        waiting = self._waiting.get((version, parsed[1]))
        if waiting is None or waiting.answer.done():
            return
        if waiting.payload == parsed[2] and waiting.address == ip_address(source.partition("%")[0]):
            waiting.answer.set_result(time.monotonic() - waiting.sent)


def _reply_untrusted(version: int, message: bytes) -> tuple[int, int, bytes] | None:
    """Identifier, sequence and payload of an echo reply; None when it is none."""
    if version == 4:
        echo = parse_echo_untrusted(message)
        if echo is None or echo.is_request:
            return None
        return echo.identifier, echo.sequence, echo.payload
    if len(message) < _ICMP.size:
        return None
    kind, code, _, identifier, sequence = _ICMP.unpack_from(message)
    if (kind, code) != (_V6_REPLY, 0):
        return None
    return identifier, sequence, message[_ICMP.size :]


def _open(version: int) -> socket.socket:
    family, protocol = socket.AF_INET, socket.IPPROTO_ICMP
    if version == 6:
        family, protocol = socket.AF_INET6, socket.IPPROTO_ICMPV6
    handle = socket.socket(family, socket.SOCK_RAW | socket.SOCK_NONBLOCK, protocol)
    if version == 4:
        handle.setsockopt(_SOL_RAW, _ICMP_FILTER, _blocking_all_but(_V4_REPLY, words=1))
    else:
        blocked = _blocking_all_but(_V6_REPLY, words=8)
        handle.setsockopt(socket.IPPROTO_ICMPV6, _ICMP6_FILTER, blocked)
    return handle


def _blocking_all_but(kind: int, *, words: int) -> bytes:
    """A filter of 32-bit words in the machine's byte order, with only bit `kind` clear."""
    mask = [0xFFFFFFFF] * words
    mask[kind // 32] &= ~(1 << kind % 32)
    return Struct(f"={words}I").pack(*mask)
