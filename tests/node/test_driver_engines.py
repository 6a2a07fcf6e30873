"""Drivers of real engines: packets both ways, and kernels that corrupt what they offload."""

from __future__ import annotations

import asyncio
import random

import pytest

from node.io.memory import MemoryNetwork, MemoryUdp
from node.io.ports import Received
from node.loop import LoopKind, run
from overlay.config import Settings, Timing
from overlay.effects import Report
from overlay.sim.packets import udp
from overlay.sim.world import World
from overlay.types import Endpoint
from overlay.wire.virtio import NO_OFFLOAD
from tests.support.drivers import Node, on_loop, turns


@pytest.fixture(scope="module")
def world() -> World:
    """Two nodes that know each other, as a simulation left them on their disks."""
    made = World(1)
    made.add_node("node2")
    made.run_until(made.converged, 60.0)
    for name in ("node1", "node2"):
        made[name].stop()
    return made


# -- two real engines ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", list(LoopKind))
def test_two_nodes_on_drivers_carry_packets_both_ways(world: World, kind: LoopKind):
    async def main() -> None:
        network = MemoryNetwork()
        one, two = (Node(world, name, network) for name in ("node1", "node2"))
        one.start()
        two.start()
        there = [NO_OFFLOAD + udp(one.address, two.address, bytes([n]) * n) for n in range(200)]
        there.append(NO_OFFLOAD + udp(one.address, two.address, bytes(60_000)))
        back = [NO_OFFLOAD + udp(two.address, one.address, b"back")]
        for packet in there:
            one.tun.inject(packet)
        for packet in back:
            two.tun.inject(packet)
        async with asyncio.timeout(60.0):  # in case a handshake has to be repeated
            while len(two.tun.written) < len(there) or len(one.tun.written) < len(back):
                await turns(1)
        assert two.tun.written == there
        assert one.tun.written == back
        for node in (one, two):
            node.engine.ledger.check_invariants()
            assert node.listener.log[0][0] == "persist", "the boot counter, before anything else"
            node.close()

    run(main, kind)


# -- kernels that corrupt what they offload --------------------------------------------------------


class CorruptingUdp(MemoryUdp):
    """A socket whose kernel flips a byte in every run of datagrams that it cuts or joins.

    Without UDP_SEGMENT a run is sent datagram by datagram; without UDP_GRO it is read so.
    """

    cuts_wrongly = joins_wrongly = False
    corrupted = 0

    def send(self, endpoint: Endpoint, datagrams: memoryview, step: int) -> bool:
        if not step or len(datagrams) <= step:
            return super().send(endpoint, datagrams, 0)
        if ("udp_gso", False, endpoint) in self.set:
            return all(
                super(CorruptingUdp, self).send(endpoint, datagrams[at : at + step], 0)
                for at in range(0, len(datagrams), step)
            )
        return super().send(endpoint, self._flipped(datagrams, self.cuts_wrongly), step)

    def receive(self) -> Received | None:
        read = super().receive()
        joins = ("udp_gro", False, None) not in self.set
        # The kernel joins what comes close together, however it was sent.
        if read is None or len(read.datagrams) <= 1200 or not (joins and self.joins_wrongly):
            return read
        return read._replace(datagrams=self._flipped(read.datagrams, True))

    def _flipped(self, datagrams: memoryview, wrongly: bool) -> memoryview:
        if not wrongly:
            return datagrams
        self.corrupted += 1
        at = len(datagrams) // 2
        changed = bytearray(datagrams)
        changed[at] ^= 0x10
        return memoryview(changed)


class CutsWrongly(CorruptingUdp):
    cuts_wrongly = True


class JoinsWrongly(CorruptingUdp):
    joins_wrongly = True


QUICK = Settings(timing=Timing(path_probe_retry=0.05), offloads=("udp_gso", "udp_gro"))
"""Trials in tenths of a second."""


@pytest.mark.parametrize(
    ("near", "far", "switched"),
    [(CutsWrongly, CorruptingUdp, "udp_gso"), (CorruptingUdp, JoinsWrongly, "udp_gro")],
    ids=["the sender's cuts wrongly", "the receiver's joins wrongly"],
)
def test_a_kernel_that_corrupts_costs_speed_and_never_data(world: World, near, far, switched):
    async def main() -> None:
        network = MemoryNetwork()
        one = Node(world, "node1", network, make_udp=near, settings=QUICK)
        two = Node(world, "node2", network, make_udp=far, settings=QUICK)
        one.start()
        two.start()
        guilty = one if switched == "udp_gso" else two
        payload = random.Random(5).randbytes(20_000)
        packet = NO_OFFLOAD + udp(one.address, two.address, payload)
        async with asyncio.timeout(60.0):
            while (switched, False) not in [each[:2] for each in guilty.udp.set]:
                one.tun.inject(packet)  # data flows while it is tried
                await asyncio.sleep(0.01)
            guilty.udp.corrupted, two.tun.written[:] = 0, []
            while len(two.tun.written) < 20:
                one.tun.inject(packet)
                await asyncio.sleep(0.01)
        assert set(two.tun.written) == {packet}, "what does arrive is right"
        failed = [each for each in guilty.listener.log if isinstance(each, Report)]
        assert [each.fields["offloads"] for each in failed if each.event == "offload.failed"] == [
            switched
        ]
        for node in (one, two):
            node.close()

    on_loop(main)
