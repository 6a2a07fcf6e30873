"""Tests of overlay.engine: joiners and strangers, who may do little or nothing."""

from __future__ import annotations

import random
from functools import cache
from ipaddress import IPv4Address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from overlay.admission import join_signed_bytes
from overlay.channel import Channel
from overlay.config import Settings, Timing
from overlay.effects import SendDatagram
from overlay.keys import SigningKey, StaticKey
from overlay.session.joiner import JoinSession
from overlay.sim import World, udp
from overlay.sim.trace import Passage
from overlay.wire.burst import BlockKind, block
from overlay.wire.handshake import JoinerHello
from overlay.wire.header import TYPE_DATA, TYPE_INITIATION, TYPE_RESPONSE
from overlay.wire.messages import BlockRequest, Goodbye, JoinRequest, Message, Probe, Refusal
from overlay.wire.token import JoinToken
from overlay.wire.virtio import NO_OFFLOAD
from tests.sim.worlds import settled
from tests.support.engines import STRANGER, burst, drops, engine_of, everything, give, newly_dropped
from tests.support.pcap import all_frames


def passed(world: World, source: str, target: str) -> list[bytes]:
    """Everything that arrived from one machine at another, in order."""
    return [
        entry.fate.datagram
        for entry in world.trace._entries
        if isinstance(entry, Passage)
        and (entry.source, entry.destination) == (source, target)
        and entry.fate.arrivals
        and entry.fate.arrivals[0] < world.now
    ]


# -- joiners -----------------------------------------------------------------------------------


class Joining:
    """A process with a token and a session, and no certificate."""

    def __init__(self, world: World) -> None:
        token = JoinToken.parse(world["node1"].mint_token())
        rng = random.Random(7)
        self.world = world
        self.token = token.id
        self.signing, self.static = SigningKey(rng.randbytes(32)), StaticKey(rng.randbytes(32))
        session = JoinSession(
            static=self.static,
            hello=JoinerHello(token.id, self.signing.public, (1, 2)),
            secret=token.secret,
            member=token.member,
            member_static=token.static,
            timing=Timing(),
            entropy=rng.randbytes,
        )
        (answer,) = give(world, "node1", session.start(world.now))
        assert isinstance(answer, SendDatagram)
        keypair = session.on_response_untrusted(answer.datagram, world.now)
        assert keypair is not None
        self.keypair = keypair
        self.channel = Channel(keypair, Timing(), Settings().limits)

    def say(self, message: Message) -> list[Message]:
        """What the member answers, decrypted."""
        answers: list[Message] = []
        for datagram in self.channel.seal(message):
            for effect in give(self.world, "node1", datagram):
                if isinstance(effect, SendDatagram):
                    size = effect.segment_size or len(effect.datagram)
                    for at in range(0, len(effect.datagram), size):
                        piece = effect.datagram[at : at + size]
                        answers += self.channel.open_untrusted(piece, self.world.now)
        return answers


@pytest.mark.parametrize("message", [Probe(1), BlockRequest(1), Goodbye(), Refusal(1, "x", "y")])
def test_a_joiner_may_ask_to_join_and_nothing_else(message: Message) -> None:
    world = settled(2)
    joiner = Joining(world)
    before = drops(world, "node1")
    owned = len(engine_of(world, "node1").parts.holdings.owned())
    assert joiner.say(message) == []
    assert newly_dropped(world, "node1", before) == {"bad_control": 1}
    assert len(engine_of(world, "node1").parts.holdings.owned()) == owned
    assert [node.name for node in world["node1"].snapshot().nodes] == ["node1", "node2"]
    engine_of(world, "node1").ledger.check_invariants()


def test_a_joiners_packets_are_not_delivered() -> None:
    world = settled(2)
    pod = world["node1"].add_pod("web")
    joiner = Joining(world)
    packet = NO_OFFLOAD + udp(IPv4Address("10.244.9.9"), pod.address, b"let me in")
    datagram = burst(joiner.keypair, block(BlockKind.OFFLOADED, packet))
    before = drops(world, "node1")
    assert give(world, "node1", datagram) == []
    assert newly_dropped(world, "node1", before) == {"spoofed_source": 1}
    assert world["node1"].delivered == []


def test_a_joiner_that_asks_properly_is_answered_in_its_own_session() -> None:
    world = settled(2)
    joiner = Joining(world)
    (answer,) = joiner.say(JoinRequest(9, "newcomer", joiner.static.public, bytes(64)))
    assert answer == Refusal(9, "bad-signature", "the request is not signed by who sent it")


def test_a_joiner_may_only_have_the_key_certified_that_it_proved_to_hold() -> None:
    world = settled(2)
    joiner = Joining(world)
    another = StaticKey(bytes(32)).public
    token = joiner.token
    signature = joiner.signing.sign("join", join_signed_bytes(token, another, "newcomer"))
    (answer,) = joiner.say(JoinRequest(9, "newcomer", another, signature))
    assert isinstance(answer, Refusal)
    assert answer.code == "bad-key"


def test_a_joiner_that_asks_a_member_without_the_authority_hears_nothing() -> None:
    world = settled(2)
    joiner = Joining(world)
    engine = engine_of(world, "node1")
    engine.parts.book = None
    assert joiner.say(JoinRequest(9, "newcomer", joiner.static.public, bytes(64))) == []
    engine.ledger.check_invariants()


# -- strangers ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("datagram", "reason"),
    [
        (b"", "truncated"),
        (b"\x04", "truncated"),
        (bytes(16), "truncated"),
        (bytes(17), "unknown_type"),
        (b"\x05" + bytes(40), "unknown_type"),
        (b"\x45" + bytes(60), "unknown_type"),
        (bytes([TYPE_DATA, 1, 0, 0]) + bytes(60), "bad_header"),
        (bytes([TYPE_DATA, 0, 64, 0]) + bytes(60), "bad_header"),
        (bytes([TYPE_DATA, 0, 0, 1]) + bytes(60), "bad_header"),
        (bytes([TYPE_DATA, 0, 0, 0, 1, 2, 3, 4]) + bytes(60), "unknown_index"),
        (bytes([TYPE_INITIATION]) + bytes(40), "bad_handshake"),
        (bytes([TYPE_INITIATION]) + bytes(500), "bad_handshake"),
        (bytes([TYPE_RESPONSE]) + bytes(150), "unknown_index"),
        (bytes([3]) + bytes(71), "unknown_index"),
    ],
)
def test_what_a_stranger_sends_is_counted_by_reason_and_not_answered(
    datagram: bytes, reason: str
) -> None:
    world = settled(2)
    before = drops(world, "node1")
    assert give(world, "node1", datagram) == []
    assert newly_dropped(world, "node1", before) == {reason: 1}
    engine_of(world, "node1").ledger.check_invariants()


@cache
def quiet_world() -> World:
    """Three nodes that have talked a while. One for all examples: none may change it."""
    world = settled(3)
    for name in world.machines:
        world[name].add_pod(f"{name}-pod")
    world.run(world.now + 3.0)
    first, second, _ = (pod.address for pod in world["node1"].snapshot().pods)
    for payload in (b"x", b"y" * 5_000):
        world.send_packet("node2", udp(second, first, payload))
    world.run(world.now + 1.5)
    return world


@cache
def caught() -> list[bytes]:
    """What somebody on the path saw: every handshake, some data, some of it for others."""
    world = quiet_world()
    here = passed(world, "node2", "node1")
    elsewhere = passed(world, "node2", "node3")[-10:] + passed(world, "node1", "node2")[-10:]
    return [one for one in here if one[0] != TYPE_DATA] + here[-40:] + elsewhere


@st.composite
def hostile(draw: st.DrawFn) -> bytes:
    """Random bytes, or a datagram that was caught: repeated, cut, lengthened, or a bit changed."""
    if draw(st.booleans()):
        head = draw(st.sampled_from([b"", *(bytes([kind]) for kind in range(1, 5))]))
        return head + draw(st.binary(max_size=300))
    datagram = draw(st.sampled_from(caught()))
    match draw(st.integers(0, 3)):
        case 0:
            return datagram
        case 1:
            return datagram[: draw(st.integers(0, len(datagram) - 1))]
        case 2:
            return datagram + draw(st.binary(min_size=1, max_size=20))
        case _:
            flipped = bytearray(datagram)
            flipped[draw(st.integers(0, len(datagram) - 1))] ^= 1 << draw(st.integers(0, 7))
            return bytes(flipped)


@given(hostile(), st.sampled_from(["stranger", "node1", "node2", "node3"]))
@settings(max_examples=150)
def test_before_authentication_nothing_changes(datagram: bytes, sender: str) -> None:
    world = quiet_world()
    source = STRANGER if sender == "stranger" else world[sender].endpoint
    engine = engine_of(world, "node1")
    before, was = everything(engine, world.now), engine.ledger.view()
    delivered = len(world["node1"].delivered)
    assert give(world, "node1", datagram, source) == []
    assert everything(engine, world.now) == before
    assert len(world["node1"].delivered) == delivered
    now = engine.ledger.view()
    lost = sum(now.drops.values()) - sum(was.drops.values())
    assert now.received - was.received == lost + now.queued - was.queued
    engine.ledger.check_invariants()
    engine.parts.inbound.check_invariants()


def test_no_captured_frame_makes_a_node_answer_or_stumble(vectors) -> None:
    world = settled(2)
    engine = engine_of(world, "node1")
    before = everything(engine, world.now)
    for frame in all_frames(vectors / "pcaps"):
        assert engine.on_datagrams(memoryview(frame), 0, STRANGER, world.now) == []
    assert everything(engine, world.now) == before
    assert world["node1"].delivered == []
    engine.ledger.check_invariants()


def test_no_captured_frame_read_from_the_tun_makes_a_node_stumble(vectors) -> None:
    world = settled(2)
    engine = engine_of(world, "node1")
    for frame in all_frames(vectors / "pcaps"):
        effects = engine.on_packet(NO_OFFLOAD + frame[:60_000], world.now)
        assert [effect for effect in effects if not isinstance(effect, SendDatagram)] == []
    engine.ledger.check_invariants()
    engine.outbound.check_invariants()
