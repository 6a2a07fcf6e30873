"""Two real engines over a bad link, each handed over at any moment, in the middle of anything.

What must hold is known without asking either of them:

    - no key seals two bursts with one counter, whichever process did it
    - a packet that was sent is delivered once at most, and by no later process a second time
    - a hand-over makes no handshake: what was up before is up after, under the same keypair
    - what was taken once changes nothing when it comes again
    - once the network is whole, both can talk
"""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from overlay.config import Settings, Timing
from overlay.sim import Link, World, udp
from overlay.wire.header import TYPE_DATA
from tests.sim.worlds import carry
from tests.support.engines import engine_of, node_id
from tests.support.nonces import NonceLog
from tests.support.replays import Caught, caught

NAMES = ("node1", "node2")
GOOD = Link(latency=0.005)
TERRIBLE = Link(latency=0.01, jitter=0.05, loss=0.2, duplication=0.2, reordering=0.3)
OFTEN = Timing(rekey_after=5.0, reject_after=60.0)


class HandOver(RuleBasedStateMachine):
    """node1 and node2 talk; either gets another process now and then."""

    sides = st.integers(0, 1)

    def __init__(self) -> None:
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        self.log = NonceLog().watch(self.patch)
        self.world = World(1, link=GOOD, settings=Settings(timing=OFTEN))
        self.world.add_node("node2")
        self.world.run_until(self.world.converged, timeout=20.0)
        carry(self.world, *NAMES)
        self.world.run(self.world.now + 2.0)
        self.sent: Counter[bytes] = Counter()
        self.seen: list[Caught] = []

    def keypairs(self, side: int) -> list[tuple[int, int, int]]:
        """Index, counter and highest accepted counter of all that a node holds."""
        held = engine_of(self.world, NAMES[side]).parts.sessions.keypairs.values()
        return sorted((one.local_index, one.counter, one.replay.highest) for one in held)

    # -- what the nodes do -------------------------------------------------------------------------

    @rule(side=sides, size=st.sampled_from([0, 900, 4000, 40_000]), times=st.integers(1, 4))
    def send(self, side: int, size: int, times: int) -> None:
        near, far = NAMES[side], NAMES[1 - side]
        ends = [engine_of(self.world, name).parts.holdings.address for name in (near, far)]
        for _ in range(times):
            packet = udp(*ends, len(self.sent).to_bytes(8, "big") + bytes(size))
            self.sent[packet] += 1
            self.world.send_packet(near, packet)

    @rule(side=sides)
    def hand_over(self, side: int) -> None:
        machine, far = self.world[NAMES[side]], node_id(self.world, NAMES[1 - side])
        before, ledger = self.keypairs(side), machine.engine.ledger.view()
        up = machine.engine.parts.sessions.established_at(far)
        if machine.upgrade():
            assert self.keypairs(side) == before
            assert machine.engine.parts.sessions.established_at(far) == up
            assert machine.engine.ledger.view() == ledger
            assert machine.engine.inherited

    @rule(side=sides)
    def renew(self, side: int) -> None:
        machine, far = self.world[NAMES[side]], node_id(self.world, NAMES[1 - side])
        machine.perform(machine.engine.parts.peering.renew(far, machine.now))

    # -- what the network does ---------------------------------------------------------------------

    @rule(seconds=st.sampled_from([0.001, 0.006, 0.02, 0.5, 6.0]))
    def wait(self, seconds: float) -> None:
        self.world.run(self.world.now + seconds)

    @rule(link=st.sampled_from([GOOD, TERRIBLE, Link(loss=1.0)]))
    def weather(self, link: Link) -> None:
        self.world.set_link(*NAMES, link)

    @rule(pick=st.integers(0, 100_000), side=sides)
    def replay(self, pick: int, side: int) -> None:
        """Anything that has arrived comes again, at either, from where it came: nothing happens."""
        self.seen = caught(self.world)
        if not self.seen:
            return
        source, target, datagram = self.seen[pick % len(self.seen)]
        machine = self.world[NAMES[side]]
        if datagram[0] != TYPE_DATA or target != machine.name:
            return
        before, delivered = self.keypairs(side), len(machine.delivered)
        engine = machine.engine
        engine.on_datagrams(memoryview(datagram), 0, source, machine.now)
        assert len(machine.delivered) == delivered
        assert self.keypairs(side) == before

    # -- what must hold ----------------------------------------------------------------------------

    @invariant()
    def no_nonce_comes_twice(self) -> None:
        assert self.log.twice == []

    @invariant()
    def no_packet_comes_twice(self) -> None:
        came = Counter(one for name in NAMES for one in self.world[name].delivered)
        assert all(times <= self.sent[one] for one, times in came.items() if one in self.sent)

    def teardown(self) -> None:
        try:
            self.weather(GOOD)
            self.world.run(self.world.now + 30.0)
            before = [len(self.world[name].delivered) for name in NAMES]
            for side in (0, 1):
                self.hand_over(side)
                self.send(side, 0, 1)
            self.world.run(self.world.now + 6.0)
            after = [len(self.world[name].delivered) for name in NAMES]
            assert after == [count + 1 for count in before]
            self.no_nonce_comes_twice()
            self.no_packet_comes_twice()
        finally:
            self.patch.undo()


TestHandOver = HandOver.TestCase
TestHandOver.settings = settings(max_examples=20, stateful_step_count=30, deadline=None)
