"""TUN interfaces in namespaces that are gone when the work is done, and what tests do with them."""

from __future__ import annotations

import select
import socket
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest

from node.io.tun import Tun
from overlay.wire.ip import parse_untrusted
from overlay.wire.virtio import VIRTIO_HEADER_SIZE, VirtioHeader
from tests.support.namespace import in_namespace, ip
from tests.support.waiting import eventually

T = TypeVar("T")

NEAR = {4: "10.77.0.1", 6: "fd77::1"}
FAR = {4: "10.77.0.2", 6: "fd77::2"}
PORT, FAR_PORT = 5000, 6000
SOON = 20.0


def with_tun(work: Callable[[Tun], T], *, offload: bool) -> T:
    """Run `work` with an interface that is up and has addresses of both families."""

    def inside() -> T:
        tun = Tun("tun0", offload=offload)
        try:
            # Up first: an IPv6 address of a link that comes up is of use a little later, and what
            # arrives before that is lost. Its route is made by a worker of the kernel's.
            ip(
                "link set tun0 mtu 1500 up",
                f"addr add {NEAR[4]}/24 dev tun0",
                f"addr add {NEAR[6]}/64 dev tun0 nodad",
            )
            eventually(lambda: NEAR[6] in ip("-6 route show table local"), within=SOON, poll=0.005)
            return work(tun)
        finally:
            tun.close()

    return in_namespace(inside)


def with_silent_tun(work: Callable[[Tun], T], *, offload: bool) -> T:
    """The same without IPv6, of which the kernel speaks by itself, and when it likes."""

    def inside() -> T:
        tun = Tun("tun0", offload=offload)
        try:
            Path("/proc/sys/net/ipv6/conf/tun0/disable_ipv6").write_text("1")
            ip("link set tun0 mtu 1500 up", f"addr add {NEAR[4]}/24 dev tun0")
            return work(tun)
        finally:
            tun.close()

    return in_namespace(inside)


def read(tun: Tun, *, protocol: int) -> tuple[VirtioHeader, bytes]:
    """The next packet of `protocol`; the kernel also sends multicast of its own."""
    room = memoryview(bytearray(b"\xff" * 70_000))
    while select.select([tun], [], [], SOON)[0]:
        packet = bytes(room[: tun.read_into(room)])
        view = parse_untrusted(packet, VIRTIO_HEADER_SIZE)
        if view is not None and view.protocol == protocol and packet[VIRTIO_HEADER_SIZE:]:
            return VirtioHeader.decode_untrusted(packet), packet[VIRTIO_HEADER_SIZE:]
    pytest.fail(f"no packet of protocol {protocol} came")


def drain(tun: Tun) -> None:
    """Read what the kernel says of itself on a new interface."""
    room = memoryview(bytearray(70_000))
    while tun.read_into(room):
        pass


def listener(version: int, kind: socket.SocketKind) -> socket.socket:
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    bound = socket.socket(family, kind)
    bound.settimeout(SOON)
    bound.bind((NEAR[version], PORT))
    return bound


def echo_requests(count: int) -> None:
    """Datagrams from so many ports: as many flows."""
    for _ in range(count):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
            udp.sendto(b"flow", (FAR[4], FAR_PORT))


def waiting(tun: Tun) -> int:
    """How many IPv4 datagrams wait in a queue."""
    room, found = memoryview(bytearray(70_000)), 0
    while size := tun.read_into(room):
        view = parse_untrusted(bytes(room[:size]), VIRTIO_HEADER_SIZE)
        found += view is not None and view.version == 4 and view.protocol == 17
    return found
