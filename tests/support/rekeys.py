"""Two nodes under load that make new keys all the time, over links that lose datagrams.

What is lost is decided by the number of the packet alone, not by chance: the same packets are lost
whether keys are replaced or not. So every packet that does not arrive and was not chosen was lost
to rekeying. Handshakes and control messages are lost by a seeded generator.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass

import pytest

from overlay.config import Settings, Timing
from overlay.sim import Link, World, udp
from overlay.sim.machine import Machine
from overlay.types import Endpoint
from overlay.wire.header import TYPE_INITIATION
from tests.support.engines import engine_of, node_id
from tests.support.nonces import NonceLog

EVERY = 2.0
"""Seconds between rekeys."""

REJECT = 20.0
"""Seconds until a keypair is given up: long enough for a handshake on a bad day."""

NEVER = 1e6
PERIOD = 0.02
"""Seconds between packets in each direction."""

HEADERS = 28
"""Bytes of IPv4 and UDP."""

LINK = Link(latency=0.01, jitter=0.01, reordering=0.05, duplication=0.01, held_back=0.03)
NODES = ("node1", "node2")


@dataclass
class Outcome:
    """What came of one run."""

    sent: set[bytes]
    """Packets, by what is in them."""
    chosen: set[bytes]
    """Those that the links lost."""
    arrived: Counter[bytes]
    initiations: int
    keys: int
    """Receiver indexes that carried data."""
    drops: Counter[str]
    log: NonceLog

    @property
    def lost_otherwise(self) -> set[bytes]:
        """Packets that did not arrive though the links carried them."""
        return self.sent - self.chosen - self.arrived.keys()

    @property
    def twice(self) -> set[bytes]:
        """Packets that arrived more than once."""
        return {payload for payload, times in self.arrived.items() if times > 1}


class Weather:
    """Loses packets by their number, and everything else by chance.

    Args:
        patch: undone by the caller.
        loss: share of what is no packet that is lost.
        seed: of that.
    """

    def __init__(self, patch: pytest.MonkeyPatch, loss: float, seed: int) -> None:
        self._loss = loss
        self._rng = random.Random(f"{seed}/weather")
        self._is_packet = False
        self.lose_next = False
        transmit = Machine._transmit

        def packets(machine: Machine, endpoint: Endpoint, data: memoryview, size: int) -> bool:
            if self.lose_next:
                return True
            self._is_packet = True
            try:
                return transmit(machine, endpoint, data, size)
            finally:
                self._is_packet = False

        patch.setattr(Machine, "_transmit", packets)

    def begin(self, patch: pytest.MonkeyPatch, world: World) -> None:
        """Lose what is no packet, from now on."""
        carry = world.underlay.send

        def send(*arguments: object) -> None:
            if self._is_packet or self._rng.random() >= self._loss:
                carry(*arguments)

        patch.setattr(world.underlay, "send", send)


def run(
    patch: pytest.MonkeyPatch,
    seed: int,
    *,
    seconds: float,
    rekeys: bool = True,
    together: bool = False,
    loss: float = 0.05,
) -> Outcome:
    """One run.

    Args:
        patch: undone by the caller.
        seed: of everything.
        seconds: of virtual time.
        rekeys: whether keys are replaced every `EVERY` seconds.
        together: whether both ends start handshakes then, within a round trip.
        loss: share of packets, and of all other datagrams, that is lost.
    """
    log = NonceLog().watch(patch)
    timing = Timing(rekey_after=EVERY, reject_after=REJECT)
    if not rekeys:
        timing = Timing(rekey_after=NEVER, reject_after=2 * NEVER)
    weather = Weather(patch, loss, seed)
    world = World(seed, link=LINK, settings=Settings(timing=timing))
    world.add_node("node2")
    world.run_until(world.converged, timeout=30.0)
    pods = {name: world[name].add_pod(f"{name}-pod") for name in NODES}
    world.run(world.now + 3.0)
    weather.begin(patch, world)
    if together and rekeys:
        start_together(world, random.Random(f"{seed}/together"))
    before = {name: len(world[name].delivered) for name in NODES}
    choose, began = random.Random(f"{seed}/choice"), world.now
    sent, chosen = set[bytes](), set[bytes]()
    while world.now < began + seconds:
        for near, far in (NODES, NODES[::-1]):
            payload = len(sent).to_bytes(8, "big") + bytes(choose.choice((0, 100, 1200, 3000)))
            weather.lose_next = choose.random() < loss
            if weather.lose_next:
                chosen.add(payload)
            world.send_packet(near, udp(pods[near].address, pods[far].address, payload))
            weather.lose_next = False
            sent.add(payload)
        world.run(world.now + PERIOD)
    world.run(world.now + 1.0)
    arrived = Counter(
        packet[HEADERS:] for name in NODES for packet in world[name].delivered[before[name] :]
    )
    world.check_invariants()
    return Outcome(
        sent=sent,
        chosen=chosen,
        arrived=arrived,
        initiations=sum(one[0] == TYPE_INITIATION for one in world.trace.datagrams()),
        keys=len(log.used),
        drops=sum((Counter(engine_of(world, name).ledger.drops) for name in NODES), Counter()),
        log=log,
    )


def start_together(world: World, rng: random.Random) -> None:
    """Both ends start a handshake every `EVERY` seconds, at most 30 ms apart."""

    def renew(near: str, far: str) -> None:
        machine = world[near]
        effects = machine.engine.parts.peering.renew(node_id(world, far), machine.now)
        machine.perform(machine.engine._settle(effects, machine.now))

    def both() -> None:
        for near, far in (NODES, NODES[::-1]):
            at = world.now + 0.03 * rng.random()
            world.clock.at(at, lambda near=near, far=far: renew(near, far))

    world.every(EVERY, both)
