"""Checksum, TSO and USO between two TUN interfaces, the way packets travel between two nodes.

    sockets -- kernel === tun0 -- Shuttle -- tun0 === kernel -- sockets
    192.0.2.1, 2001:db8::1        (this)              192.0.2.2, 2001:db8::2
    a namespace without a name                        another one

The shuttle reads from one interface and writes to the other, virtio_net_hdr and all, as two daemons
with a perfect network between them would. Real sockets send patterned data, and what arrives is
compared byte for byte:

    checksum    a datagram, its checksum left to whoever takes it
    tso         a TCP stream: the kernel makes super-packets of it by itself
    uso         one send with UDP_SEGMENT

An offload that is negotiated and whose super-packets never appear does no harm, but no good either.
"""

from __future__ import annotations

import random
import select
import socket
import sys
import time
from collections.abc import Callable, Generator
from contextlib import ExitStack, closing
from ipaddress import ip_interface
from struct import Struct
from typing import Final

from node.io.tun import Tun
from node.io.udp import SOL_UDP, UDP_SEGMENT
from node.kernel import netns
from node.kernel.errors import KernelError
from node.kernel.model import Link, LinkAddress
from node.kernel.netlink import Netlink
from node.kernel.reconcile import AddAddress, SetLink

NAME: Final = "tun0"
MTU: Final = 1500
ENDS: Final = (
    {socket.AF_INET: "192.0.2.1", socket.AF_INET6: "2001:db8::1"},
    {socket.AF_INET: "192.0.2.2", socket.AF_INET6: "2001:db8::2"},
)
"""Addresses for documentation (RFC 5737, RFC 3849): they mean nothing outside the namespaces."""
PREFIX_LENGTHS: Final = {socket.AF_INET: 24, socket.AF_INET6: 64}

STREAM: Final = random.Random(2).randbytes(192 << 10)
SEGMENT: Final = 1000
BURST: Final = random.Random(3).randbytes(30 * SEGMENT + 7)
ONE: Final = random.Random(4).randbytes(1111)

PATIENCE: Final = 1.0
"""Seconds without any packet until what is missing never comes. TCP repeats after 0.2 s."""
AGAIN: Final = 0.05
"""Between repetitions of the first datagram: a kernel that is busy makes addresses usable late."""
CHANGED: Final = "data arrived changed"
MOST_REPEATED: Final = 8
"""TCP segments sent again on a link that loses none. A kernel that loses super-packets causes many;
a machine that is busy for 0.2 s causes one or two."""
TCP_INFO: Final = 11
_TCP_REPEATED: Final = Struct("=I")
"""`tcpi_total_retrans`, 100 bytes into `struct tcp_info` (include/uapi/linux/tcp.h)."""
STRIKES: Final = 2
"""Failures of one offload, each on fresh interfaces, until it counts as failed."""

Make = Callable[..., Tun]
"""Makes an interface, with the arguments of `Tun`."""
Progress = Generator[None, None, str]
"""One test under way, advanced when packets may have moved; returns what is wrong, or nothing."""


def check_tun(wanted: tuple[str, ...], *, make: Make = Tun) -> dict[str, str]:
    """Which of the wanted offloads (`checksum`, `tso`, `uso`) fail, and why.

    Those that the kernel does not have do not fail.

    Raises:
        KernelError, TunError, OSError: namespaces, interfaces or sockets cannot be made here.
            Nothing else.
    """
    failed: dict[str, str] = {}
    strikes = dict.fromkeys(wanted, 0)
    while wanted:
        with Shuttle(wanted, make) as shuttle:
            found = shuttle.check()
        if not found:
            break
        for name, why in found.items():
            strikes[name] += 1
            if strikes[name] == STRIKES:
                failed[name] = why
                # Again with what is left: it must work without this one, too.
                wanted = () if name == "checksum" else tuple(n for n in wanted if n != name)
    return failed


class _End:
    """One interface in a namespace of its own, with the sockets of its side."""

    def __init__(self, addresses: dict[socket.AddressFamily, str], tun: Tun) -> None:
        self.tun = tun
        self.addresses = addresses
        self.sockets: dict[tuple[socket.AddressFamily, socket.SocketKind], socket.socket] = {}

    def open(self, stack: ExitStack) -> None:
        """Give the interface its addresses, and make the sockets."""
        with closing(Netlink()) as netlink:
            netlink.apply(SetLink(Link(NAME, up=True, mtu=MTU)))
            for family, address in self.addresses.items():
                interface = ip_interface(f"{address}/{PREFIX_LENGTHS[family]}")
                try:
                    netlink.apply(AddAddress(LinkAddress(NAME, interface)))
                except KernelError:
                    if family == socket.AF_INET:
                        raise
                    continue  # this kernel has no IPv6, or has it switched off
                for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                    made = stack.enter_context(socket.socket(family, kind))
                    made.setblocking(False)
                    made.bind((address, 0))
                    self.sockets[family, kind] = made


class Shuttle:
    """Two ends, and whoever carries packets between them. To be used with `with`.

    Args:
        wanted: offloads to ask for.
        make: makes an interface.
    """

    def __init__(self, wanted: tuple[str, ...], make: Make) -> None:
        self._room = memoryview(bytearray(70_000))
        self._largest = 0
        with ExitStack() as stack:
            self._ends = [
                netns.run_in_new(_open, addresses, wanted, make, stack) for addresses in ENDS
            ]
            self._stack = stack.pop_all()

    def __enter__(self) -> Shuttle:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def check(self) -> dict[str, str]:
        """Try everything that was negotiated; the first failure of a kind ends the check."""
        offered = self._ends[0].tun.offloads
        families = {family for end in self._ends for family, _ in end.sockets}
        for family in sorted(families):
            for name, test in (("checksum", _one), ("tso", _stream), ("uso", _burst)):
                if name not in offered:
                    continue
                why = self._run(test(self._ends[0], self._ends[1], family), name)
                if why:
                    version = 4 if family == socket.AF_INET else 6
                    return {name: f"{why} over IPv{version}"}
        return {}

    def _run(self, progress: Progress, name: str) -> str:
        """Carry packets until the data has arrived; says what is wrong, or nothing."""
        self._largest = 0
        last = time.monotonic()
        while True:
            try:
                next(progress)
            except StopIteration as end:
                appeared = name == "checksum" or self._largest > 2 * MTU
                return end.value or ("" if appeared else "no super-packet came")
            if self._carry() and name != "checksum":
                last = time.monotonic()
            elif time.monotonic() - last > PATIENCE:
                return "data did not arrive"

    def _carry(self) -> bool:
        """Move what is there; waits a moment when there is nothing."""
        near, far = (end.tun for end in self._ends)
        select.select([near.fileno(), far.fileno()], [], [], 0.002)
        moved = False
        for source, target in ((near, far), (far, near)):
            while size := source.read_into(self._room):
                self._largest = max(self._largest, size)
                target.write(self._room[:size])
                moved = True
        return moved


def _open(
    addresses: dict[socket.AddressFamily, str],
    wanted: tuple[str, ...],
    make: Make,
    stack: ExitStack,
) -> _End:
    tun = make(NAME, offload=wanted)
    stack.callback(tun.close)
    end = _End(addresses, tun)
    end.open(stack)
    return end


def _one(near: _End, far: _End, family: socket.AddressFamily) -> Progress:
    source, target = (end.sockets[family, socket.SOCK_DGRAM] for end in (near, far))
    send_at = 0.0
    while (received := _received(target, 1 << 16)) is None:
        if time.monotonic() >= send_at:
            source.sendto(ONE, target.getsockname())
            send_at = time.monotonic() + AGAIN
        yield
    return "" if received == ONE else CHANGED


def _burst(near: _End, far: _End, family: socket.AddressFamily) -> Progress:
    source, target = (end.sockets[family, socket.SOCK_DGRAM] for end in (near, far))
    while _received(target, 1 << 16) is not None:
        continue  # a repetition of the first datagram
    segments = [(SOL_UDP, UDP_SEGMENT, SEGMENT.to_bytes(2, sys.byteorder))]
    source.sendmsg([BURST], segments, 0, target.getsockname())
    pieces = range(0, len(BURST), SEGMENT)
    return (yield from _datagrams(target, [BURST[at : at + SEGMENT] for at in pieces]))


def _datagrams(target: socket.socket, expected: list[bytes]) -> Progress:
    """Datagrams of one sender come in order over a link that loses none."""
    for datagram in expected:
        while (received := _received(target, 1 << 16)) is None:
            yield
        if received != datagram:
            return CHANGED
    return ""


def _stream(near: _End, far: _End, family: socket.AddressFamily) -> Progress:
    client, server = (end.sockets[family, socket.SOCK_STREAM] for end in (near, far))
    server.listen()
    client.connect_ex(server.getsockname())
    while (accepted := _accepted(server)) is None:
        yield
    with accepted:
        accepted.setblocking(False)
        sent, received = 0, bytearray()
        while len(received) < len(STREAM):
            sent += _sent(client, sent)
            piece = _received(accepted, 1 << 18)
            if piece is not None:
                received += piece
            elif _repeated(client) > MOST_REPEATED:
                return "TCP had to repeat too much"
            else:
                yield
    return "" if received == STREAM else CHANGED


def _repeated(client: socket.socket) -> int:
    info = client.getsockopt(socket.IPPROTO_TCP, TCP_INFO, 104)
    return int(_TCP_REPEATED.unpack_from(info, 100)[0])


def _sent(client: socket.socket, position: int) -> int:
    try:
        return client.send(STREAM[position:]) if position < len(STREAM) else 0
    except BlockingIOError:
        return 0


def _received(target: socket.socket, size: int) -> bytes | None:
    try:
        return target.recv(size)
    except BlockingIOError:
        return None


def _accepted(server: socket.socket) -> socket.socket | None:
    try:
        return server.accept()[0]
    except BlockingIOError:
        return None
