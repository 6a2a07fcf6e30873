"""Sends packets as fast as the kernel takes them, or at a rate: a program for a namespace.

    python -m tests.support.flooder FILE TARGET RATE COUNT [STATIC]

FILE holds IPv4 packets, each behind its length, as `write_packets` makes it. They are sent over and
over until COUNT have been, RATE a second (0: as fast as it goes), with hundreds in each system call
(`sendmmsg`). The kernel completes length and checksum of their headers.

With STATIC, the target's public key in hex, the packets are initiations, and cookies are answered:
what comes back to any address that is routed here is read, opened, and turned into the mac2 of the
initiation from that address. That is all that an honest initiator could do as well.

    {"ready": true}, then {"sent": N, "seconds": S, "cookies": N}

References:
    sendmmsg(2), raw(7), ip(7) (IP_PKTINFO).
"""

from __future__ import annotations

import ctypes
import json
import socket
import struct
import sys
import time
from collections.abc import Iterable, Sequence
from hashlib import blake2s
from pathlib import Path

import numpy as np
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from overlay.types import Endpoint

UDP = 17
IPV4_HEADER = struct.Struct(">BBHHHBBH4s4s")
UDP_HEADER = struct.Struct(">HHHH")
HEADERS = IPV4_HEADER.size + UDP_HEADER.size
PORT = 999
"""From which initiations are sent, so where cookies come to."""

BATCH = 256
"""Packets in one system call."""
TICK = 0.002
"""Seconds between two calls at a rate."""
REPLIES = 500
IP_PKTINFO = 8

MESSAGE = np.dtype(
    [
        ("name", "u8"),
        ("name_size", "u8"),
        ("iov", "u8"),
        ("iov_count", "u8"),
        ("control", "u8"),
        ("control_size", "u8"),
        ("flags", "u8"),
        ("sent", "u8"),
    ]
)
"""`struct mmsghdr` of 64-bit Linux."""
VECTOR = np.dtype([("base", "u8"), ("size", "u8")])


def packet(source: Endpoint, target: Endpoint, payload: bytes) -> bytes:
    """A UDP datagram in an IPv4 packet; UDP over IPv4 may have no checksum."""
    hosts = socket.inet_aton(source.host), socket.inet_aton(target.host)
    header = IPV4_HEADER.pack(0x45, 0, 0, 0, 0, 64, UDP, 0, *hosts)
    size = UDP_HEADER.size + len(payload)
    return header + UDP_HEADER.pack(source.port, target.port, size, 0) + payload


def write_packets(path: Path, packets: Iterable[bytes]) -> None:
    """Write what the program reads."""
    path.write_bytes(b"".join(len(each).to_bytes(4, "big") + each for each in packets))


def read_packets(path: Path) -> list[bytes]:
    """The packets of a file."""
    data, at, found = path.read_bytes(), 0, []
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        found.append(data[at + 4 : at + 4 + size])
        at += 4 + size
    return found


class Sender:
    """Sends a list of packets round and round.

    Args:
        packets: whole IPv4 packets, all for one target.
        target: its address.
    """

    def __init__(self, packets: Sequence[bytes], target: str) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
        self._socket.connect((target, 0))
        sizes = np.array([len(each) for each in packets], np.uint64)
        ends = np.cumsum(sizes)
        self.buffer = bytearray(b"".join(packets))
        self._keep = np.frombuffer(self.buffer, np.uint8)  # of which the address is taken
        # A call goes to the end of the list at most: few packets stand in it many times.
        times = -(-4 * BATCH // len(packets))
        count = times * len(packets)
        self._vectors = np.zeros(count, VECTOR)
        self._vectors["base"] = np.tile(self._keep.ctypes.data + ends - sizes, times)
        self._vectors["size"] = np.tile(sizes, times)
        self._messages = np.zeros(count, MESSAGE)
        places = np.arange(count, dtype=np.uint64) * np.uint64(VECTOR.itemsize)
        self._messages["iov"] = self._vectors.ctypes.data + places
        self._messages["iov_count"] = 1
        self._at = 0
        self._call = ctypes.CDLL(None, use_errno=True).sendmmsg

    def send(self, most: int) -> int:
        """Send up to so many in one call; how many were."""
        most = min(most, BATCH, len(self._messages) - self._at)
        address = self._messages.ctypes.data + self._at * MESSAGE.itemsize
        sent = self._call(self._socket.fileno(), ctypes.c_void_p(address), most, 0)
        if sent < 0:
            raise OSError(ctypes.get_errno(), "sendmmsg")
        self._at = (self._at + sent) % len(self._messages)
        return int(sent)


class Cookies:
    """Answers cookies: makes the initiations of a `Sender` show them.

    Args:
        packets: as given to it; each has a source of its own.
        buffer: of the sender; changed in place.
        static: the target's public key.
    """

    def __init__(self, packets: Sequence[bytes], buffer: bytearray, static: bytes) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("", PORT))
        self._socket.setblocking(False)
        self._socket.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self._key = blake2s(b"muslin cookie" + static).digest()
        self._buffer = buffer
        self._places: dict[bytes, tuple[int, int]] = {}
        at = 0
        for each in packets:
            self._places[each[12:16]] = (at + HEADERS, at + len(each))
            at += len(each)
        self.taken = 0

    def take(self) -> None:
        """Read what has come, and use it."""
        for _ in range(REPLIES):
            try:
                reply, ancillary, _, _ = self._socket.recvmsg(2048, 64)
            except BlockingIOError:
                return
            (here,) = (data[8:12] for _, kind, data in ancillary if kind == IP_PKTINFO)
            if reply[0] == 3:
                self._use(reply, *self._places[here])

    def _use(self, reply: bytes, start: int, end: int) -> None:
        nonce, sealed = reply[16:40], reply[40:72]
        mac1 = bytes(self._buffer[end - 32 : end - 16])
        aead = ChaCha20Poly1305(blake2s(nonce, key=self._key).digest())
        cookie = aead.decrypt(bytes(12), sealed, mac1)
        covered = bytes(self._buffer[start : end - 16])
        self._buffer[end - 16 : end] = blake2s(covered, key=cookie, digest_size=16).digest()
        self.taken += 1


def flood(
    packets: Sequence[bytes], target: str, rate: float, count: int, static: bytes
) -> dict[str, object]:
    """Send `count` packets, `rate` a second, and answer cookies if `static` is given."""
    sender = Sender(packets, target)
    cookies = Cookies(packets, sender.buffer, static) if static else None
    print(json.dumps({"ready": True}), flush=True)
    began, sent = time.monotonic(), 0
    while sent < count:
        due = count if not rate else int((time.monotonic() - began) * rate) + 1
        while sent < min(due, count):
            sent += sender.send(min(due, count) - sent)
        if cookies is not None:
            cookies.take()
        if rate:
            time.sleep(TICK)
    seconds = time.monotonic() - began
    return {"sent": sent, "seconds": seconds, "cookies": cookies.taken if cookies else 0}


def main(argv: Sequence[str]) -> None:
    """Send what the command line says, and tell how it went."""
    path, target, rate, count, *static = argv
    key = bytes.fromhex(static[0]) if static else b""
    done = flood(read_packets(Path(path)), target, float(rate), int(count), key)
    print(json.dumps(done), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
