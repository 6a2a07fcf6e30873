"""Proofs: whoever is killed and started again has its sessions back in a moment.

One node of a cluster dies and starts at once, while another one exchanges packets with it that is
not its neighbour, so that nothing but packets connects the two. What is measured is virtual time
from the start to the first packet, in each direction.
"""

from __future__ import annotations

import pytest

from overlay.sim import Link, World, udp
from tests.sim.worlds import settled
from tests.support.engines import engine_of, node_id

STALL = 1.0
"""Seconds at most."""


def strangers(world: World, name: str) -> list[str]:
    """Nodes that gossip with others than `name`."""
    near = engine_of(world, name).parts.gossip.neighbours()
    return [one for one in world.machines if one != name and node_id(world, one) not in near]


def stall(world: World, near: str, far: str, *, back: bool, off: float) -> list[float]:
    """Seconds until packets arrive again at `far`, which is killed, and at `near`."""
    address = {one: engine_of(world, one).parts.holdings.address for one in (near, far)}

    def flow(until: float) -> None:
        while world.now < until:
            world.send_packet(near, udp(address[near], address[far], b"there"))
            if back and world[far].live:
                world.send_packet(far, udp(address[far], address[near], b"back"))
            world.run(world.now + 0.02)

    def arrived(name: str, count: int) -> float:
        began = world.now
        while len(world[name].delivered) == count:
            assert world.now < began + 10.0
            flow(world.now + 0.02)
        return world.now - began

    flow(world.now + 10.0)
    world.crash(far)
    flow(world.now + off)
    before = {one: len(world[one].delivered) for one in address}
    world[far].start()
    return [arrived(one, before[one]) for one in ((far, near) if back else (far,))]


@pytest.mark.parametrize(
    ("nodes", "back", "off"),
    [(2, True, 0.0), (2, False, 2.0), (24, True, 0.0), (24, False, 0.0), (24, False, 2.0)],
)
def test_packets_flow_again_within_a_second_of_the_start(nodes, back, off):
    world = settled(nodes, link=Link(latency=0.02), keep_datagrams=False)
    near = strangers(world, "node2")[0] if nodes > 9 else "node1"
    assert max(stall(world, near, "node2", back=back, off=off)) <= STALL


def test_where_many_die_and_start_nobody_shakes_hands_more_than_it_must():
    world = settled(20, link=Link(latency=0.005))
    world.run(world.now + 5.0)
    for name in world.machines:
        world.crash(name)
    world.run(world.now + 1.0)
    began = world.now
    for name in world.machines:
        world[name].start()
    world.run(world.now + 8.0)
    assert world.settled()
    initiations = [
        one
        for one in world.trace._entries
        if hasattr(one, "fate") and one.fate.datagram[0] == 1 and one.at >= began
    ]
    # Each greets its eight neighbours, or is greeted by them.
    assert len(initiations) <= 20 * 9
