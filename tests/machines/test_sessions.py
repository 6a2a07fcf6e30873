"""A pair of nodes over a network that loses, repeats, reorders, forges and is listened to.

The oracle is a list of everything that was ever sealed: by whom, for whom, under which key with
which counter, and when. From it follows who may read what:

    - what arrives was sent to whoever reads it, by whom the session says, and arrives once
    - nothing is read later than a session may live
    - no key seals two bursts with one counter
    - a third member, who sees every datagram, reads nothing
    - a datagram that was taken once changes nothing when it comes again
    - once the network is whole, both can talk
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
from overlay.wire.header import TYPE_DATA
from tests.support.session_net import (
    PERFECT,
    PROBE,
    STRANGER,
    TERRIBLE,
    Link,
    Network,
    Node,
    sealed,
)

LATEST = Timing().reject_after + TERRIBLE.delay[1]
"""Seconds after which nothing that was sealed is read: the life of a keypair, and the flight."""

TRIES = 3
"""Rounds of talk after which each has read the other once the network is whole."""


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

    @rule(side=sides)
    def hand_over(self, side: int) -> None:
        """The next process takes over; the old one can neither seal nor open anything."""
        node, now = self.pair[side], self.network.now
        keys = [key.lane_split(0, 1) for key in node.sessions.keypairs.values()]
        old = node.hand_over()
        assert sorted(key.lane_split(0, 1) for key in node.sessions.keypairs.values()) == sorted(
            keys
        )
        assert not any(key.usable(now) for key in old.keypairs.values())

    # -- what the network does ---------------------------------------------------------------------

    @rule(seconds=st.sampled_from([0.01, 0.3, 2.0, 20.0, 130.0]))
    def wait(self, seconds: float) -> None:
        self.network.run(self.network.now + seconds)

    @rule(link=st.sampled_from([PERFECT, TERRIBLE, Link(loss=1.0)]))
    def weather(self, link: Link) -> None:
        self.network.link = link

    @rule(pick=picks, side=sides)
    def replay(self, pick: int, side: int) -> None:
        """Any datagram ever sent comes (again), to either side, from its sender or a stranger."""
        if not self.network.sent:
            return
        source, _, datagram = self.network.sent[pick % len(self.network.sent)]
        node = self.pair[side]
        taken, before = datagram in node.taken, self.state(node)
        node.on_datagram(datagram, source if pick % 2 else STRANGER)
        assert not taken or self.state(node) == before

    @staticmethod
    def state(node: Node) -> tuple[object, ...]:
        return node.sessions.snapshot(), list(node.received), list(node.effects)

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
                if payload == PROBE:
                    continue
                sent = self.sent[payload]
                assert (sent.sender, sent.receiver) == (sender, node.id)
                assert at - sent.at <= LATEST
            for payload, times in Counter(payload for _, payload in node.received).items():
                assert times == 1 or payload == PROBE

    @invariant()
    def the_ear_reads_nothing(self) -> None:
        assert self.ear.received == []
        for node in (*self.pair, self.ear):
            node.sessions.check_invariants()

    def teardown(self) -> None:
        """Whatever happened, two nodes that want to talk can, once the network is whole.

        Not all at once: one may have keys that the other lost when it restarted, until it hears
        from it; and keys may be refused for their age that were good when it looked.
        """
        self.network.link = PERFECT
        self.network.run(self.network.now + 10.0)
        assert any(self.talk() for _ in range(TRIES))
        self.only_the_receiver_reads_once_and_in_time()

    def talk(self) -> bool:
        """Connect, and let each send the other a secret: whether both were read, and no others."""
        for side in (0, 1):
            self.pair[side].connect(self.pair[1 - side])
            self.network.run(self.network.now + 10.0)
        before = [self.secrets(node) for node in self.pair]
        for side in (0, 1):
            self.send(side, 1)
        self.network.run(self.network.now + 1.0)
        return [self.secrets(node) for node in self.pair] == [count + 1 for count in before]

    @staticmethod
    def secrets(node: Node) -> int:
        """How many a node has read. A secret that confirms a keypair causes a probe as well."""
        return sum(payload != PROBE for _, payload in node.received)


TestPairMachine = PairMachine.TestCase
TestPairMachine.settings = settings(max_examples=50, stateful_step_count=40, deadline=None)


def test_a_response_delivered_by_a_stranger_does_not_keep_two_nodes_apart():
    machine = PairMachine()
    machine.connect(side=1)
    machine.connect(side=0)
    machine.wait(0.01)
    machine.replay(pick=2, side=1)
    one, two = machine.pair
    assert two.ups(one) == 1
    machine.wait(0.3)
    assert Counter(one.received)[two.id, PROBE] == 1
    assert Counter(two.received)[one.id, PROBE] == 2  # the second one for the keypair of the tie
    assert machine.talk()


def test_a_tie_that_is_settled_late_delivers_each_secret_once():
    machine = PairMachine()
    machine.connect(side=1)
    machine.connect(side=0)
    machine.wait(0.01)
    machine.weather(Link(loss=1.0))
    machine.wait(0.01)
    one, two = machine.pair
    assert one.sessions.current(two.id).initiator
    assert two.sessions.current(one.id).initiator
    machine.weather(PERFECT)
    assert machine.talk()
    assert Counter(one.received) + Counter(two.received) == Counter(
        [(one.id, b"secret 0"), (two.id, b"secret 1"), (one.id, PROBE)]
    )


def test_a_burst_with_another_segment_number_is_not_read():
    machine = PairMachine()
    machine.connect(side=0)
    machine.wait(0.01)
    machine.wait(0.01)
    _, _, burst = (datagram for _, _, datagram in machine.network.sent)
    assert burst[0] == TYPE_DATA
    machine.damage(pick=2, side=1, at=1, bit=0)
    machine.teardown()


def test_a_restarted_node_whose_first_burst_is_lost_is_understood_from_its_next_one():
    machine = PairMachine()
    machine.connect(side=0)
    machine.wait(0.01)
    machine.restart(side=1)
    machine.connect(side=1)
    machine.wait(0.01)  # the old node's response comes first, the new one's initiation second
    machine.weather(Link(loss=1.0))
    machine.wait(0.01)  # the new node's first burst
    machine.weather(PERFECT)
    one, two = machine.pair
    assert not machine.talk()
    assert (one.id, b"secret 0") not in two.received
    assert (two.id, b"secret 1") in one.received
    assert machine.talk()


def test_a_session_that_ends_with_its_keys_is_made_anew_by_whoever_wants_to_talk():
    machine = PairMachine()
    machine.connect(side=0)
    machine.wait(20.0)
    machine.weather(Link(loss=1.0))
    machine.wait(130.0)  # a rekey was due, but nobody answers
    machine.wait(20.0)
    machine.wait(20.0)
    one, two = machine.pair
    machine.send(side=0, bursts=1)
    machine.send(side=1, bursts=1)
    assert not machine.sent
    assert one.downs()
    assert two.downs()
    machine.weather(PERFECT)
    assert machine.talk()
