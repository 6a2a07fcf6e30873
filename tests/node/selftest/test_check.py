"""The self-test as a whole, and what a node that follows it delivers on a kernel that corrupts."""

from __future__ import annotations

import asyncio
import random
import socket
import sys

import pytest

from node.io.memory import MemoryNetwork
from node.io.tun import Tun
from node.io.udp import UdpSocket
from node.kernel import netns
from node.kernel.errors import KernelError
from node.selftest.check import Result, check_offloads
from overlay.config import Settings
from overlay.sim.world import World
from overlay.wire.virtio import (
    VIRTIO_NET_HDR_F_NEEDS_CSUM,
    VIRTIO_NET_HDR_GSO_UDP_L4,
    VirtioHeader,
)
from tests.node.selftest.test_tun import Corrupting, of
from tests.support.builders import pseudo4, slow_checksum, udp4
from tests.support.drivers import Node, on_loop
from tests.support.namespace import in_namespace, ip
from tests.support.privileged import NEEDS_KERNEL

ALL = ("udp_gso", "udp_gro", "checksum", "tso", "uso")


def forbidden(*_: object) -> None:
    raise KernelError("making a namespace: permission denied")


def test_without_namespaces_the_tun_is_trusted_and_that_is_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(netns, "run_in_new", forbidden)
    result = check_offloads(ALL)
    assert (result.works, result.failed) == (ALL, {})
    assert "permission denied" in result.trusted


def test_without_namespaces_the_socket_is_tried_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Refusing(UdpSocket):
        def send(self, *args: object) -> bool:
            return not self._gso and super().send(*args)

    monkeypatch.setattr(netns, "run_in_new", forbidden)
    result = check_offloads(("udp_gso",), make_udp=Refusing)
    assert (result.works, set(result.failed)) == ((), {"udp_gso"})


def test_nothing_wanted_is_nothing_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(netns, "run_in_new", lambda *_: pytest.fail("there is nothing to do"))
    assert check_offloads(()) == Result((), {}, "")


class TestOnARealKernel:
    pytestmark = NEEDS_KERNEL

    def test_this_kernel_s_offloads_work(self) -> None:
        assert check_offloads(ALL) == Result(ALL, {}, "")

    def test_without_checksums_the_others_are_off_as_well(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("node.selftest.tun.PATIENCE", 0.4)
        result = check_offloads(ALL, make_tun=of(Corrupting, "checksum"))
        assert result.works == ("udp_gso", "udp_gro")
        assert set(result.failed) == {"checksum", "tso", "uso"}

    def test_a_kernel_that_corrupts_super_packets_costs_speed_and_never_data(self) -> None:
        """A super-packet from a node in memory, for a socket behind a TUN with a fault."""
        broken = of(Corrupting, "uso")
        works = check_offloads(("checksum", "tso", "uso"), make_tun=broken).works
        assert works == ("checksum", "tso")
        payload = random.Random(7).randbytes(5 * 1000 + 7)
        expected = [payload[at : at + 1000] for at in range(0, len(payload), 1000)]
        assert delivered(payload, broken, works) == expected
        assert delivered(payload, broken, ("checksum", "tso", "uso")) != expected


def delivered(payload: bytes, broken: type[Tun], offload: tuple[str, ...]) -> list[bytes]:
    """What a UDP socket gets of one super-packet that travelled through two engines."""
    world = World(1)
    world.add_node("node2")
    world.run_until(world.converged, 60.0)
    addresses = [str(world[name].snapshot().address) for name in ("node1", "node2")]
    for name in ("node1", "node2"):
        world[name].stop()

    def inside() -> tuple[Tun, socket.socket]:
        made = broken("tun0", offload=offload)
        ip(f"addr add {addresses[1]}/32 dev tun0", "link set tun0 up")
        ip(f"route add {addresses[0]}/32 dev tun0")
        target = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        target.bind((addresses[1], 5000))
        target.setblocking(False)
        return made, target

    tun, target = in_namespace(inside)
    received: list[bytes] = []

    async def main() -> None:
        network = MemoryNetwork()
        one = Node(world, "node1", network)
        two = Node(world, "node2", network, tun=tun, settings=Settings(offloads=offload))
        one.start()
        two.start()
        header = VirtioHeader(
            VIRTIO_NET_HDR_F_NEEDS_CSUM, VIRTIO_NET_HDR_GSO_UDP_L4, 28, 1000, 20, 6
        )
        packet = udp4(addresses[0], addresses[1], payload, dport=5000)
        # A partial checksum: the sum of the pseudo header, which the kernel goes on from.
        pseudo = sum_of_pseudo(addresses, len(packet) - 20)
        partial = packet[:26] + pseudo.to_bytes(2, sys.byteorder) + packet[28:]
        one.tun.inject(header.encode() + partial)
        async with asyncio.timeout(60.0):
            while sum(map(len, received)) < len(payload):
                await asyncio.sleep(0)
                try:
                    received.append(target.recv(9000))
                except BlockingIOError:
                    continue
        one.close()
        two.close()

    on_loop(main)
    target.close()
    return received


def sum_of_pseudo(addresses: list[str], length: int) -> int:
    value = ~slow_checksum(pseudo4(addresses[0], addresses[1], 17, length)) & 0xFFFF
    return int.from_bytes(value.to_bytes(2, "big"), sys.byteorder)
