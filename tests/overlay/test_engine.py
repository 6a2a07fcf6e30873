"""Tests of overlay.engine: one node as a whole."""

from __future__ import annotations

import random
from contextlib import suppress
from functools import cache
from ipaddress import IPv4Address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from overlay.admission import join_signed_bytes
from overlay.answers import BURST
from overlay.channel import Channel
from overlay.config import Settings, Timing
from overlay.effects import (
    Effect,
    Persist,
    ProbeAnswered,
    Report,
    SendControl,
    SendDatagram,
    SessionDown,
    SessionUp,
)
from overlay.engine import Engine
from overlay.errors import OverlayError, StateError
from overlay.keys import SigningKey, StaticKey
from overlay.session.joiner import JoinSession
from overlay.session.transport import Keypair
from overlay.sim import Link, World, udp
from overlay.sim.trace import Passage
from overlay.types import Endpoint, NodeId
from overlay.views import Snapshot
from overlay.wire.burst import TAG_SIZE, BlockKind, block
from overlay.wire.control import encode
from overlay.wire.handshake import JoinerHello
from overlay.wire.header import TYPE_DATA, TYPE_INITIATION, TYPE_RESPONSE, Header
from overlay.wire.messages import (
    BlockRequest,
    Goodbye,
    JoinGrant,
    JoinRequest,
    Message,
    Probe,
    Refusal,
)
from overlay.wire.token import JoinToken
from overlay.wire.virtio import NO_OFFLOAD
from tests.sim.worlds import LOSSY, carry, settled
from tests.support.pcap import all_frames

STRANGER = Endpoint("203.0.113.9", 999)
UNOWNED = IPv4Address("10.244.200.1")
TIMING = Timing()


def engine_of(world: World, name: str) -> Engine:
    return world[name].engine


def node_id(world: World, name: str) -> NodeId:
    return world[name].membership.identity.node


def drops(world: World, name: str) -> dict[str, int]:
    return dict(world[name].snapshot().ledger.drops)


def newly_dropped(world: World, name: str, before: dict[str, int]) -> dict[str, int]:
    after = drops(world, name)
    return {
        reason: count - before.get(reason, 0)
        for reason, count in after.items()
        if count != before.get(reason, 0)
    }


def give(world: World, name: str, datagram: bytes, source: Endpoint = STRANGER) -> list[Effect]:
    """One datagram for a node; the effects are not executed."""
    return engine_of(world, name).on_datagrams(memoryview(datagram), 0, source, world.now)


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


def keypair_of(world: World, name: str, peer: str) -> Keypair:
    keypair = engine_of(world, name).parts.paths[node_id(world, peer)].keypair
    assert keypair is not None
    return keypair


def burst(keypair: Keypair, plaintext: bytes) -> bytes:
    """One datagram with one burst, sealed by hand."""
    header = Header(TYPE_DATA, receiver=keypair.remote_index, counter=keypair.next_counter())
    sealed = bytearray(len(plaintext) + TAG_SIZE)
    keypair.seal_into(header.counter, plaintext, header.associated_data(), sealed)
    return header.encode() + sealed


def control(keypair: Keypair, message: Message | bytes) -> bytes:
    """A burst with one control message."""
    encoded = message if isinstance(message, bytes) else encode(message)
    return burst(keypair, block(BlockKind.CONTROL, encoded))


def everything(engine: Engine, now: float) -> tuple[object, ...]:
    """All state of a node but its counters."""
    parts = engine.parts
    shown = engine.snapshot(now)
    paths = [
        (path.node, path.endpoint, path.keypair, path.path_mtu, path.heard_at, path.rx_bytes)
        for path in parts.paths.values()
    ]
    return (
        [getattr(shown, field) for field in Snapshot.__slots__ if field != "ledger"],
        parts.sessions.snapshot(),
        dict(parts.gossip.snapshot(now)),
        parts.store.items(),
        parts.holdings.stored(),
        parts.registrar.encode() if parts.registrar else b"",
        parts.registrar.tokens.encode() if parts.registrar else b"",
        parts.peering.next_deadline(),
        parts.gossip.next_deadline(),
        paths,
    )


# -- life --------------------------------------------------------------------------------------


def test_the_first_thing_a_start_does_is_to_store_the_boot_counter() -> None:
    world = settled(2)
    world.crash("node2")
    machine = world["node2"]
    machine.start()
    assert engine_of(world, "node2").parts.holdings.versions.boot == 2
    fresh = settled(1)
    fresh.restart("node1")
    engine = engine_of(fresh, "node1")
    effects = engine.start(fresh.now)
    assert isinstance(effects[0], Persist)


def test_a_clean_stop_drops_the_sessions_at_once_and_keeps_the_routes() -> None:
    world = settled(3)
    world.run(world.now + 3.0)
    before = world["node1"].snapshot().routes
    world["node2"].stop()
    world.run(world.now + 0.1)
    shown = world["node1"].snapshot()
    assert {session.node for session in shown.sessions} == {"node3"}
    assert {route.prefix for route in shown.routes} == {route.prefix for route in before}
    down = world.trace.notes("session.down", "node1")
    assert [note.fields["why"] for note in down] == ["the peer said goodbye"]


def test_a_deadline_that_comes_early_does_nothing() -> None:
    world = settled(3)
    engine = engine_of(world, "node2")
    # Further ahead than probes may go out early to share a wake-up.
    while engine.next_deadline() < world.now + 0.15:
        world.run(world.now + 0.01)
    deadline, before = engine.next_deadline(), everything(engine, world.now)
    assert engine.on_deadline(world.now) == []
    assert everything(engine, world.now) == before
    assert engine.next_deadline() == deadline


def test_what_the_parts_say_to_each_other_does_not_leave_the_engine() -> None:
    world = World(2, link=LOSSY, settings=Settings(timing=Timing.quick()))
    seen: set[type] = set()
    original = world["node1"].perform

    def watch(effects) -> None:
        effects = list(effects)
        seen.update(type(effect) for effect in effects)
        original(effects)

    world["node1"].perform = watch  # type: ignore[method-assign]
    for number in range(2, 5):
        world.add_node(f"node{number}")
    world.run(30.0)
    world.crash("node3")
    world["node2"].stop()
    world.run(70.0)
    assert not seen & {SendControl, SessionUp, SessionDown}
    assert {SendDatagram, Persist, Report} <= seen


def test_a_probe_that_was_asked_for_is_answered_with_its_token() -> None:
    world = settled(2)
    machine, peer = world["node1"], node_id(world, "node2")
    machine.perform(machine.engine.probe(peer, 42, world.now))
    world.run(world.now + 0.1)
    (answer,) = machine.answered
    assert answer == ProbeAnswered(peer, 42, pytest.approx(0.02, abs=0.001))
    with pytest.raises(StateError):
        machine.engine.probe(NodeId(bytes(32)), 1, world.now)


# -- control messages --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\xc1",
        b"\x92\x01",  # cut short
        bytes.fromhex("92010f") + b"x",  # bytes behind it
        bytes.fromhex("9163"),  # number 99
        bytes.fromhex("9201a161"),  # text where an integer is needed
        JoinRequest(1, "name", bytes(32), bytes(64)),  # only a joiner says that
        JoinGrant(1, b"", b"", bytes(32), ()),  # only a joiner hears that
    ],
)
def test_control_garbage_is_counted_and_changes_nothing(message: Message | bytes) -> None:
    world = settled(2)
    world.run(world.now + 1.0)
    engine, before = engine_of(world, "node1"), drops(world, "node1")
    datagram = control(keypair_of(world, "node2", "node1"), message)
    shown = engine.snapshot(world.now)
    assert give(world, "node1", datagram, world["node2"].endpoint) == []
    assert newly_dropped(world, "node1", before) == {"bad_control": 1}
    after = engine.snapshot(world.now)
    assert (after.nodes, after.routes, after.blocks) == (shown.nodes, shown.routes, shown.blocks)
    engine.ledger.check_invariants()


def test_a_bad_message_does_not_spoil_the_good_ones_in_its_burst() -> None:
    world = settled(2)
    blocks = [b"\xc1", encode(Probe(1)), b"\xc1"]
    plaintext = b"".join(block(BlockKind.CONTROL, each) for each in blocks)
    before = drops(world, "node1")
    datagram = burst(keypair_of(world, "node2", "node1"), plaintext)
    effects = give(world, "node1", datagram, world["node2"].endpoint)
    assert len([effect for effect in effects if isinstance(effect, SendDatagram)]) == 1
    assert newly_dropped(world, "node1", before) == {"bad_control": 2}
    engine_of(world, "node1").ledger.check_invariants()


def test_a_refusal_nobody_waits_for_is_ignored() -> None:
    world = settled(2)
    message = Refusal(1, "no-free-block", "late")
    datagram = control(keypair_of(world, "node2", "node1"), message)
    assert give(world, "node1", datagram, world["node2"].endpoint) == []


def test_goodbye_ends_the_session_and_what_waits_for_it_is_lost_by_name() -> None:
    world = settled(2)
    world["node1"].add_pod("web")
    world["node2"].add_pod("db")
    world.run(world.now + 1.0)
    datagram = control(keypair_of(world, "node2", "node1"), Goodbye())
    world["node1"].perform(give(world, "node1", datagram, world["node2"].endpoint))
    assert world["node1"].snapshot().sessions == ()
    world.check_invariants()


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
            timing=TIMING,
            entropy=rng.randbytes,
        )
        (answer,) = give(world, "node1", session.start(world.now))
        assert isinstance(answer, SendDatagram)
        keypair = session.on_response_untrusted(answer.datagram, world.now)
        assert keypair is not None
        self.keypair = keypair
        self.channel = Channel(keypair, TIMING, Settings().limits)

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
    engine.parts.registrar = None
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
        (bytes([TYPE_RESPONSE]) + bytes(150), "bad_handshake"),
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
    for answer in give(world, "node1", datagram, source):
        # To a member's own initiation that was sent again: told so, which nobody else can read.
        assert answer.endpoint == source
        assert (datagram[0], answer.datagram[0]) == (TYPE_INITIATION, TYPE_RESPONSE)
        assert len(answer.datagram) < len(datagram)
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


# -- packets -----------------------------------------------------------------------------------


def test_a_pod_hears_at_once_that_there_is_no_route_but_not_too_often() -> None:
    world = settled(2)
    pod = world["node1"].add_pod("web")
    for number in range(100):
        world.send_packet("node1", udp(pod.address, UNOWNED, b"%d" % number))
    answers = world["node1"].delivered
    assert len(answers) == BURST
    assert all(packet[9] == 1 and packet[20] == 3 for packet in answers)  # ICMP, unreachable
    assert {packet[16:20] for packet in answers} == {pod.address.packed}
    assert {packet[12:16] for packet in answers} == {world["node1"].snapshot().address.packed}
    assert drops(world, "node1")["no_route"] == 100
    engine_of(world, "node1").ledger.check_invariants()


def test_a_node_without_a_block_answers_nobody() -> None:
    world = World(1)
    world.add_node("node2")
    world.send_packet("node2", udp(IPv4Address("10.244.0.9"), UNOWNED, b"?"))
    assert world["node2"].delivered == []


def test_many_packets_in_one_pass_leave_as_one_burst() -> None:
    world = settled(2)
    one, two = world["node1"].add_pod("one"), world["node2"].add_pod("two")
    world.run(world.now + 1.0)
    carry(world, "node1", "node2")  # its path is measured, once
    world.run(world.now + 1.0)
    engine = engine_of(world, "node1")
    counter = keypair_of(world, "node1", "node2").counter
    for number in range(50):
        packet = NO_OFFLOAD + udp(one.address, two.address, b"%d" % number)
        engine.outbound.room()[: len(packet)] = packet
        engine.outbound.accept(len(packet), world.now)
    assert engine.flush(world.now) == []
    assert keypair_of(world, "node1", "node2").counter == counter + 1
    world.run(world.now + 0.1)
    delivered = world["node2"].delivered[1:]
    assert [packet[28:] for packet in delivered] == [b"%d" % n for n in range(50)]


def test_a_packet_for_a_peer_without_a_session_starts_one_and_arrives() -> None:
    world = settled(2)
    one, two = world["node1"].add_pod("one"), world["node2"].add_pod("two")
    world.run(world.now + 1.0)
    world.restart("node1")
    effects = engine_of(world, "node1").on_packet(
        NO_OFFLOAD + udp(one.address, two.address, b"first"), world.now
    )
    world["node1"].perform(effects)
    world.run(world.now + 0.2)
    assert world["node2"].delivered[-1].endswith(b"first")


def test_a_route_that_ends_is_forgotten_by_flows_that_used_it() -> None:
    world = settled(3)
    one, two = world["node1"].add_pod("one"), world["node3"].add_pod("two")
    world.run(world.now + 1.0)
    packet = udp(one.address, two.address, b"hello")
    world.send_packet("node1", packet)
    world.run(world.now + 0.1)
    assert len(world["node3"].delivered) == 1
    world["node3"].leave()
    world.run(world.now + 1.0)
    before = drops(world, "node1")
    world.send_packet("node1", packet)
    assert newly_dropped(world, "node1", before) == {"no_route": 1}
    assert len(world["node1"].delivered) == 1  # and the pod is told so


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_books_balance_whatever_happens(seed: int) -> None:
    """Packets good and bad, garbage, cuts, crashes, pods coming and going, in any order."""
    rng = random.Random(seed)
    world = settled(3, seed=seed, link=Link.terrible())
    for name in world.machines:
        world[name].add_pod("first")
    for step in range(250):
        machine = world[rng.choice(list(world.machines))]
        addresses = [pod.address for each in world.live() for pod in each.snapshot().pods]
        with suppress(OverlayError):
            match rng.randrange(9):
                case 0 | 1 | 2 | 3:
                    source, target = (rng.choice([*addresses, UNOWNED]) for _ in range(2))
                    payload = bytes(rng.choice([1, 100, 1400, 9_000, 60_000]))
                    machine.send_packet(udp(source, target, payload))
                case 4:
                    machine.send_packet(rng.randbytes(rng.randrange(80)))
                case 5:
                    machine.receive(rng.randbytes(rng.randrange(1, 2_000)), 0, STRANGER)
                case 6:
                    machine.add_pod(f"pod{step}")
                case 7 if rng.random() < 0.3:
                    world.restart(machine.name)
                case 8:
                    world.cut("node1", "node2") if step % 2 else world.heal()
        for each in world.live():
            parts = each.engine.parts
            parts.ledger.check_invariants()
            parts.outbound.check_invariants()
            parts.inbound.check_invariants()
        world.run(world.now + rng.uniform(0.0, 0.05))
    world.heal()
    world.run(world.now + TIMING.handshake_give_up + 5.0)
    for each in world.live():
        assert each.snapshot().ledger.queued == 0
        each.engine.ledger.check_invariants()
