"""Traffic for demonstrations and tests: runs inside a namespace, prints one JSON line.

    python -m node.lab.traffic receive PORT                 one TCP stream in
    python -m node.lab.traffic send HOST PORT BYTES         one TCP stream out
    python -m node.lab.traffic echo PORT                    UDP and TCP echo server, until killed
    python -m node.lab.traffic datagrams HOST PORT SIZE...  each size there and back
    python -m node.lab.traffic connections HOST PORT COUNT BYTES   parallel TCP echoes

A server prints `{"ready": true}` first. Contents come from a seeded generator, so each end knows
what is right: `intact` says whether every byte was.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import socket
import sys
import time
from collections.abc import Callable, Coroutine
from typing import Any, Final, cast

CHUNK: Final = 1 << 20
TIMEOUT: Final = 60.0
RETRIES: Final = 5
BACKLOG: Final = 1024
"""Connections at once; with asyncio's 100, a few of 200 are answered with a reset."""
DATAGRAM_WAIT: Final = 1.0


def content(size: int, seed: int = 0) -> bytes:
    """`size` bytes that look random and are the same for the same `seed`.

    >>> len(content(10)), content(10) == content(10), content(10) == content(10, 1)
    (10, True, False)
    """
    block = random.Random(seed).randbytes(min(size, CHUNK))
    # Repeating a block would let a shifted copy pass; the counter in front of each does not.
    pieces = [
        (at.to_bytes(8, "big") + block)[: min(CHUNK, size - at)] for at in range(0, size, CHUNK)
    ]
    return b"".join(pieces)


def receive(port: int) -> dict[str, object]:
    """Take one TCP stream to its end; says how much, how fast, and its SHA-256."""
    with socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True) as server:
        _say({"ready": True})
        connection, peer = server.accept()
    digest = hashlib.sha256()
    pieces: list[bytes] = []
    with connection:
        started = time.perf_counter()
        while piece := connection.recv(CHUNK):
            pieces.append(piece)
        seconds = time.perf_counter() - started
        size = sum(len(piece) for piece in pieces)
        # Hashed after the last byte arrived: the figure is the network's, not the hash's.
        for piece in pieces:
            digest.update(piece)
    sha256 = digest.hexdigest()
    return {"bytes": size, "seconds": seconds, "sha256": sha256, "peer": _plain(peer[0])}


def send(host: str, port: int, size: int) -> dict[str, object]:
    """Send `size` bytes over one TCP connection; says their SHA-256."""
    data = content(size)
    with socket.create_connection((host, port), TIMEOUT) as connection:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
    return {"bytes": size, "sha256": hashlib.sha256(data).hexdigest()}


async def echo(port: int) -> dict[str, object]:
    """Echo UDP datagrams and TCP streams until killed."""
    loop = asyncio.get_running_loop()
    udp = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    udp.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    udp.bind(("::", port))
    await loop.create_datagram_endpoint(_Echo, sock=udp)
    tcp = socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
    server = await asyncio.start_server(_echo_stream, sock=tcp, backlog=BACKLOG)
    _say({"ready": True})
    await server.serve_forever()
    return {}


class _Echo(asyncio.DatagramProtocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # It is one by what it does; in Python 3.11 asyncio's own is no instance of the class.
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str | Any, int]) -> None:
        self._transport.sendto(data, addr)


async def _echo_stream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while piece := await reader.read(CHUNK):
        writer.write(piece)
        await writer.drain()
    writer.close()


def datagrams(host: str, port: int, sizes: list[int]) -> dict[str, object]:
    """Send one UDP datagram of each size and compare what comes back."""
    with socket.socket(_family(host), socket.SOCK_DGRAM) as udp:
        udp.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        udp.settimeout(DATAGRAM_WAIT)
        udp.connect((host, port))
        before: set[bytes] = set()
        wrong = [size for size in sizes if not _echoes(udp, content(size, size), before)]
    return {"sizes": sizes, "wrong": wrong, "intact": not wrong}


def _echoes(udp: socket.socket, data: bytes, before: set[bytes]) -> bool:
    """Whether a datagram comes back; what was sent `before` may still come, late and twice."""
    for _ in range(RETRIES):  # datagrams may be lost, not changed
        udp.send(data)
        try:
            while (back := udp.recv(1 << 16)) != data and back in before:
                pass
        except TimeoutError:
            continue
        before.add(data)
        return back == data
    return False


async def connections(host: str, port: int, count: int, size: int) -> dict[str, object]:
    """`count` TCP connections at once, each sends `size` bytes and compares what comes back."""
    async with asyncio.timeout(TIMEOUT):
        results = await asyncio.gather(*(_through(host, port, size, n) for n in range(count)))
    return {"count": count, "intact": all(results), "wrong": results.count(False)}


async def _through(host: str, port: int, size: int, seed: int) -> bool:
    reader, writer = await asyncio.open_connection(host, port)
    data = content(size, seed)

    async def push() -> None:
        writer.write(data)
        await writer.drain()
        writer.write_eof()

    _, back = await asyncio.gather(push(), reader.read(-1))
    writer.close()
    return back == data


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def _plain(host: str) -> str:
    return host.removeprefix("::ffff:")


def _say(line: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


Work = Callable[[], dict[str, object] | Coroutine[Any, Any, dict[str, object]]]


def main(argv: list[str]) -> int:
    """Run one of the commands of the module's description."""
    command, *rest = argv
    works: dict[str, Work] = {
        "receive": lambda: receive(int(rest[0])),
        "send": lambda: send(rest[0], int(rest[1]), int(rest[2])),
        "echo": lambda: echo(int(rest[0])),
        "datagrams": lambda: datagrams(rest[0], int(rest[1]), [int(size) for size in rest[2:]]),
        "connections": lambda: connections(rest[0], int(rest[1]), int(rest[2]), int(rest[3])),
    }
    result = works[command]()
    _say(asyncio.run(result) if isinstance(result, Coroutine) else result)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
