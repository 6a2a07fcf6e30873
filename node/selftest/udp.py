"""UDP_SEGMENT and UDP_GRO over a loopback: do bursts arrive as the datagrams they stand for?

    sender, datagram by datagram --> receiver without GRO     does this loopback work at all?
    sender, segmented ------------> receiver without GRO     UDP_SEGMENT alone
    sender, either way -----------> receiver with GRO        UDP_GRO

Every datagram is compared, so that a wrong boundary shows as well as a wrong byte.
"""

from __future__ import annotations

import random
import select
from collections.abc import Callable
from contextlib import ExitStack
from typing import Final

from node.io.ports import DatagramPort
from node.io.udp import UdpError, UdpSocket
from overlay.types import Endpoint

LOOPBACKS: Final = ("127.0.0.1", "::1")

SIZE: Final = 1200
DATA: Final = random.Random(1).randbytes(40 * SIZE + 700)
"""One burst as the packet path sends it: equal datagrams, the last one shorter."""

PATIENCE: Final = 0.5
"""Seconds until a datagram that has not come over a loopback never will."""

Make = Callable[..., DatagramPort]
"""Makes a socket, with the arguments of `UdpSocket`."""


def check_udp(wanted: tuple[str, ...], *, make: Make = UdpSocket) -> dict[str, str]:
    """Which of the wanted offloads (`udp_gso`, `udp_gro`) fail, and why.

    Works in the namespace of the calling thread. A family whose loopback does not carry even
    single datagrams there proves nothing and is passed over.
    """
    failed: dict[str, str] = {}
    for host in LOOPBACKS:
        failed |= _check(host, tuple(name for name in wanted if name not in failed), make)
    return failed


def _check(host: str, wanted: tuple[str, ...], make: Make) -> dict[str, str]:
    local = Endpoint(host, 0)
    with ExitStack() as stack:

        def opened(**offloads: bool) -> DatagramPort:
            port = make(local, **offloads)
            stack.callback(port.close)
            return port

        try:
            single, plain = opened(gso=False, gro=False), opened(gso=False, gro=False)
            segmented = opened(gso="udp_gso" in wanted, gro=False)
            joined = opened(gso=False, gro="udp_gro" in wanted)
        except UdpError:
            return {}
        if _differs(single, plain):
            return {}
        failed: dict[str, str] = {}
        if "udp_gso" in wanted and (why := _differs(segmented, plain)):
            failed["udp_gso"] = f"{why} over {host}"
            segmented = single
        if "udp_gro" in wanted and (why := _differs(single, joined) or _differs(segmented, joined)):
            failed["udp_gro"] = f"{why} over {host}"
        return failed


def _differs(sender: DatagramPort, receiver: DatagramPort) -> str:
    """What is wrong with a burst from one to the other; empty when nothing is."""
    expected = [DATA[at : at + SIZE] for at in range(0, len(DATA), SIZE)]
    if not sender.send(receiver.local, memoryview(DATA), SIZE):
        return "the kernel refused to send"
    received: list[bytes] = []
    while len(received) < len(expected):
        if not select.select([receiver.fileno()], [], [], PATIENCE)[0]:
            return f"{len(expected) - len(received)} of {len(expected)} datagrams did not arrive"
        if (read := receiver.receive()) is None:
            continue
        step = read.step or len(read.datagrams)
        pieces = range(0, len(read.datagrams), step)
        received += [bytes(read.datagrams[at : at + step]) for at in pieces]
    wrong = sum(one != other for one, other in zip(received, expected, strict=False))
    if wrong or len(received) > len(expected):
        return f"{wrong or len(received)} of {len(expected)} datagrams arrived changed"
    return ""
