"""Tests of overlay.engine: one node as a whole."""

from __future__ import annotations

import random
from contextlib import suppress
from ipaddress import IPv4Address

import pytest

from overlay.answers import BURST
from overlay.config import Settings, Timing
from overlay.effects import (
    Persist,
    ProbeAnswered,
    Report,
    SendControl,
    SendDatagram,
    SessionDown,
    SessionUp,
)
from overlay.errors import OverlayError, StateError
from overlay.sim import Link, World, udp
from overlay.types import NodeId
from overlay.wire.burst import BlockKind, block
from overlay.wire.control import encode
from overlay.wire.messages import Goodbye, JoinGrant, JoinRequest, Message, Probe, Refusal
from overlay.wire.virtio import NO_OFFLOAD
from tests.sim.worlds import LOSSY, carry, settled
from tests.support.engines import (
    STRANGER,
    burst,
    control,
    drops,
    engine_of,
    everything,
    give,
    keypair_of,
    newly_dropped,
    node_id,
)

UNOWNED = IPv4Address("10.244.200.1")
TIMING = Timing()


# -- life --------------------------------------------------------------------------------------


def test_the_first_thing_a_start_does_is_to_store_the_boot_counter() -> None:
    world = settled(2)
    world.crash("node2")
    machine = world["node2"]
    machine.start()
    assert engine_of(world, "node2").parts.record.versions.boot == 2
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
