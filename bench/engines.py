"""Engines in this process, joined by function calls: everything between two TUNs but the kernel.

    engine 1 --transmit--> a list ... on_datagrams --> engine 2 --deliver--> a counter

The cluster, its certificates and what its members know of each other come from a simulated world.
The engines are then made anew around what that world stored, with edges that cost next to nothing,
and are introduced to each other until sessions are up and the path MTU is found.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from ipaddress import IPv4Network
from itertools import permutations
from typing import Final

from node.errors import NodeError
from overlay.config import Settings
from overlay.effects import Effect, SendDatagram
from overlay.engine import Engine
from overlay.sim import Machine, World, udp
from overlay.types import Address, BlockIndex, Endpoint
from overlay.wire.virtio import NO_OFFLOAD

CIDR: Final = IPv4Network("10.128.0.0/11")
"""8,192 blocks of /24: enough for 10,000 routes in two families."""

EPOCH: Final = 1_767_225_600.0
SETTLING: Final = 20.0
"""Virtual seconds after which sessions are up and path MTUs are found."""
STEP: Final = 0.05

Sent = tuple[Endpoint, bytes, int]
"""Whereto, the datagrams back to back, and their size."""


class Node:
    """One engine with captured edges.

    Attributes:
        engine: what is measured.
        endpoint: its underlay address.
        sent: what it handed to UDP while `keep` is set.
        delivered: how many packets it wrote to its TUN.
        address: its own in the pod network.

    Args:
        machine: of a simulated world; what it stored is where the engine starts.
        seed: of everything random.
        extra_blocks: more blocks that the node is to announce as used.
    """

    def __init__(self, machine: Machine, seed: str, extra_blocks: Sequence[BlockIndex]) -> None:
        member, state = machine.membership, machine.stored
        self.endpoint = machine.endpoint
        self.keep = True
        self.sent: list[Sent] = []
        self.delivered = 0
        self.address = _own_address(machine)
        self.engine = Engine(
            identity=member.identity,
            cluster=member.cluster,
            psk=member.psk,
            state=replace(state, blocks_in_use=(*state.blocks_in_use, *extra_blocks)),
            settings=Settings(),
            entropy=random.Random(f"{seed}/{machine.name}").randbytes,
            rng=random.Random(seed),
            epoch=EPOCH,
            endpoints=(self.endpoint,),
            deliver=self._deliver,
            transmit=self._transmit,
            authorities=member.authorities,
        )

    def _deliver(self, packet: memoryview) -> bool:
        self.delivered += 1
        return True

    def _transmit(self, endpoint: Endpoint, datagrams: memoryview, segment_size: int) -> bool:
        if self.keep:
            self.sent.append((endpoint, bytes(datagrams), segment_size))
        return True

    def perform(self, effects: Iterable[Effect]) -> None:
        """Keep what is to be sent; nobody waits for anything else."""
        for effect in effects:
            if isinstance(effect, SendDatagram):
                self.sent.append((effect.endpoint, effect.datagram, effect.segment_size))

    def take_sent(self) -> list[Sent]:
        """What was sent since the last call."""
        taken, self.sent = self.sent, []
        return taken

    def drops(self) -> int:
        """How many packets and datagrams it has lost so far."""
        return sum(self.engine.ledger.view().drops.values())

    def routes(self) -> int:
        """How many routes its table has, of both families."""
        return len(self.engine.parts.routes)


class Cluster:
    """Several engines that know each other and have sessions.

    Attributes:
        nodes: the founder last, since it is the one with many blocks.
        now: virtual seconds, monotonic.

    Args:
        nodes: how many, with pods between which packets can go.
        routes: how many routes every node is to have; at least what the nodes need themselves.

    Raises:
        NodeError: the cluster has not that many blocks. Nothing else.
    """

    def __init__(self, nodes: int = 2, routes: int = 0) -> None:
        world = World(seed=1, cidr=CIDR, keep_datagrams=False)
        names = [f"node{number}" for number in range(2, nodes + 2)]
        for name in names:
            world.add_node(name)
            world.run_until(world.converged, timeout=30.0)
        own = 2 * (nodes + 1)  # a block of each node, in both families
        extra = _free_blocks(world, max(routes - own, 0) // 2)
        self.nodes = [Node(world[name], "bench", ()) for name in names]
        self.nodes.append(Node(world[world.founder], "bench", extra))
        self.now = world.now + 1.0
        self._settle()

    def _settle(self) -> None:
        for node in self.nodes:
            node.perform(node.engine.start(self.now))
        until = self.now + SETTLING
        while self.now < until:
            self.now += STEP
            for node in self.nodes:
                node.perform(node.engine.on_deadline(self.now))
            if until - self.now < SETTLING / 2:  # before, not all have learned all routes
                self._talk()
            self.carry()
        for node in self.nodes:
            node.delivered = 0

    def _talk(self) -> None:
        """Everybody sends everybody a packet: only paths that carry some have their MTU found."""
        for sender, receiver in permutations(self.nodes, 2):
            packet = NO_OFFLOAD + udp(sender.address, receiver.address, b"")
            sender.perform(sender.engine.on_packet(packet, self.now))

    def carry(self) -> None:
        """Bring everything that was sent to where it goes, and what that causes, until quiet."""
        places = {node.endpoint: node for node in self.nodes}
        while waiting := [(node, sent) for node in self.nodes for sent in node.take_sent()]:
            for sender, (endpoint, datagrams, size) in waiting:
                there = places[endpoint]
                view = memoryview(datagrams)
                there.perform(there.engine.on_datagrams(view, size, sender.endpoint, self.now))


def _own_address(machine: Machine) -> Address:
    address = machine.snapshot().address
    assert address is not None, "a settled machine has a block"
    return address


def _free_blocks(world: World, count: int) -> tuple[BlockIndex, ...]:
    """Blocks of the founder that nobody uses; the first ones were given to those that came."""
    machine = world[world.founder]
    free = machine.engine.parts.holdings.free()
    return tuple(_last(free, count))


def _last(blocks: Sequence[BlockIndex], count: int) -> Iterator[BlockIndex]:
    if count > len(blocks):
        why = f"{count} blocks are needed for so many routes, {len(blocks)} are free"
        raise NodeError(why, "measure with fewer routes")
    yield from blocks[len(blocks) - count :]
