"""A pair of nodes over a network that loses, repeats, reorders, forges and is listened to.

The oracle is a list of everything that was ever sealed: by whom, for whom, under which key with
which counter, and when. From it follows who may read what:

    - what arrives was sent to whoever reads it, by whom the session says, and arrives once
    - nothing is read later than a session may live
    - no key seals two bursts with one counter
    - a third member, who sees every datagram, reads nothing
"""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from dataclasses import dataclass

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from overlay.config import Timing
from overlay.errors import AuthError, WireError
from overlay.types import NodeId
from tests.support.session_net import PERFECT, STRANGER, TERRIBLE, Link, Network, Node, sealed

LATEST = Timing().reject_after + TERRIBLE.delay[1]
"""Seconds after which nothing that was sealed is read: the life of a keypair, and the flight."""


@dataclass(frozen=True)
class Sent:
    """One sealed burst."""

    sender: NodeId
    receiver: NodeId
    at: float


class Heard(list[tuple[NodeId, bytes]]):
    """What a node has read, and when it read each."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network
        self.times: list[float] = []

    def append(self, one: tuple[NodeId, bytes]) -> None:
        self.times.append(self.network.now)
        super().append(one)


class PairMachine(RuleBasedStateMachine):
    """Nodes 1 and 2 talk; node 3 is a member, too, and sees all that they send."""

    sides = st.sampled_from([0, 1])
    picks = st.integers(0, 10_000)

    def __init__(self) -> None:
        super().__init__()
        self.network = Network(seed=1, link=PERFECT)
        self.boots = [1, 1]
        self.pair = [self.start(number, 1) for number in (1, 2)]
        self.ear = self.network.add(3)
        self.ids = [node.id for node in self.pair]
        self.meet()
        self.sent: dict[bytes, Sent] = {}
        self.sealed: Counter[tuple[bytes, int]] = Counter()

    def start(self, number: int, boot: int) -> Node:
        node = self.network.add(number, boot=boot)
        node.received = Heard(self.network)
        return node

    def meet(self) -> None:
        one, two = self.pair
        one.knows(two, self.ear)
        two.knows(one, self.ear)
        self.ear.knows(one, two)

    # -- what the nodes do -------------------------------------------------------------------------

    @rule(side=sides)
    def connect(self, side: int) -> None:
        self.pair[side].connect(self.pair[1 - side])

    @rule(side=sides, bursts=st.integers(1, 3))
    def send(self, side: int, bursts: int) -> None:
        here, there = self.pair[side], self.pair[1 - side]
        for _ in range(bursts):
            keypair = here.sessions.sending_keypair(there.id, self.network.now)
            if keypair is None:
                return
            payload = b"secret %d" % len(self.sent)
            self.sent[payload] = Sent(here.id, there.id, self.network.now)
            # What lanes derive from the sending key tells keys apart as well as the key itself.
            self.sealed[keypair.lane_split(0, 1)[0], keypair.counter] += 1
            self.network.send(here, there.endpoint, sealed(keypair, payload))

    @rule(side=sides)
    def restart(self, side: int) -> None:
        self.boots[side] += 1
        self.pair[side] = self.start(side + 1, self.boots[side])
        self.meet()

    # -- what the network does ---------------------------------------------------------------------

    @rule(seconds=st.sampled_from([0.01, 0.3, 2.0, 20.0, 130.0]))
    def wait(self, seconds: float) -> None:
        self.network.run(self.network.now + seconds)

    @rule(link=st.sampled_from([PERFECT, TERRIBLE, Link(loss=1.0)]))
    def weather(self, link: Link) -> None:
        self.network.link = link

    @rule(pick=picks, side=sides)
    def replay(self, pick: int, side: int) -> None:
        """Any datagram ever sent comes again, to either side, from its sender or a stranger."""
        if self.network.sent:
            source, _, datagram = self.network.sent[pick % len(self.network.sent)]
            self.pair[side].on_datagram(datagram, source if pick % 2 else STRANGER)

    @rule(pick=picks, side=sides, at=picks, bit=st.integers(0, 7))
    def damage(self, pick: int, side: int, at: int, bit: int) -> None:
        """One bit of a datagram is another one: nothing of it is read."""
        if not self.network.sent:
            return
        _, _, datagram = self.network.sent[pick % len(self.network.sent)]
        changed = bytearray(datagram)
        changed[at % len(changed)] ^= 1 << bit
        node = self.pair[side]
        before = len(node.received)
        with suppress(AuthError, WireError):
            node.on_datagram(bytes(changed), STRANGER)
        assert len(node.received) == before

    @rule(pick=picks)
    def overhear(self, pick: int) -> None:
        if self.network.sent:
            source, _, datagram = self.network.sent[pick % len(self.network.sent)]
            self.ear.on_datagram(datagram, source)

    # -- what must hold ----------------------------------------------------------------------------

    @invariant()
    def no_key_seals_twice_with_one_counter(self) -> None:
        assert not [use for use, times in self.sealed.items() if times > 1]

    @invariant()
    def only_the_receiver_reads_once_and_in_time(self) -> None:
        for node in self.pair:
            for (sender, payload), at in zip(node.received, node.received.times, strict=True):
                if payload == b"probe":
                    continue
                sent = self.sent[payload]
                assert (sent.sender, sent.receiver) == (sender, node.id)
                assert at - sent.at <= LATEST
            for payload, times in Counter(payload for _, payload in node.received).items():
                assert times == 1 or payload == b"probe"

    @invariant()
    def the_ear_reads_nothing(self) -> None:
        assert self.ear.received == []
        for node in (*self.pair, self.ear):
            node.sessions.check_invariants()

    def teardown(self) -> None:
        """Whatever happened, two nodes that want to talk can, once the network is whole."""
        self.network.link = PERFECT
        self.network.run(self.network.now + 10.0)
        for side in (0, 1):
            self.pair[side].connect(self.pair[1 - side])
            self.network.run(self.network.now + 10.0)
        before = [len(node.received) for node in self.pair]
        for side in (0, 1):
            self.send(side, 1)
        self.network.run(self.network.now + 1.0)
        assert [len(node.received) for node in self.pair] == [count + 1 for count in before]
        self.only_the_receiver_reads_once_and_in_time()


TestPairMachine = PairMachine.TestCase
TestPairMachine.settings = settings(max_examples=50, stateful_step_count=40, deadline=None)
