"""Tests of overlay.peering: sessions, paths and control messages of one node with its peers."""

from __future__ import annotations

import pytest

from overlay.config import Settings, Timing
from overlay.effects import Effect, Report, SendDatagram
from overlay.forwarding.path import BASE_PATH_MTU, PeerPath
from overlay.peering import MAX_WAITING, Peering
from overlay.sim import Link, World, udp
from overlay.sim.trace import Passage
from overlay.types import Endpoint, NodeId
from overlay.wire.control import encode
from overlay.wire.header import HEADER_SIZE, TYPE_DATA, TYPE_INITIATION, TYPE_RESPONSE
from overlay.wire.messages import Probe
from tests.sim.worlds import carry, settled

STRANGER = Endpoint("203.0.113.9", 999)
NOWHERE = Endpoint("203.0.113.1", 6875)
TIMING = Timing()


def peering_of(world: World, name: str) -> Peering:
    return world[name].engine.parts.peering


def node_id(world: World, name: str) -> NodeId:
    return world[name].membership.identity.node


def path_to(world: World, name: str, seen_by: str) -> PeerPath:
    return peering_of(world, seen_by).paths[node_id(world, name)]


def sent(world: World, source: str, target: str, kind: int, since: float = 0.0) -> list[bytes]:
    """Datagrams of a type that one machine sent to another."""
    return [
        entry.fate.datagram
        for entry in world.trace._entries
        if isinstance(entry, Passage)
        and (entry.source, entry.destination) == (source, target)
        and entry.at >= since
        and entry.fate.datagram[0] == kind
    ]


def inject(world: World, name: str, datagram: bytes, source: Endpoint) -> list[Effect]:
    """Give a machine one datagram from anywhere; its effects are executed."""
    machine = world[name]
    effects = machine.engine.on_datagrams(memoryview(datagram), 0, source, world.now)
    machine.perform(effects)
    return effects


# -- roaming -----------------------------------------------------------------------------------


def test_a_peer_that_moves_is_answered_at_its_new_address() -> None:
    world = settled(2)
    world.run(world.now + 3.0)
    world["node1"].add_pod("web")
    world["node2"].add_pod("db")
    world["node2"].move(STRANGER)
    world.run(world.now + TIMING.probe_interval * 3)
    path = path_to(world, "node2", seen_by="node1")
    assert path.endpoint == STRANGER
    (moved,) = world.trace.notes("peer.moved", "node1")
    assert moved.fields["endpoint"] == str(STRANGER)
    web, db = world["node1"].snapshot().pods
    world.send_packet("node1", udp(web.address, db.address, b"there you are"))
    world.run(world.now + 0.1)
    assert world["node2"].delivered[-1].endswith(b"there you are")
    assert world["node2"].snapshot().sessions[0].established < world.now - 3.0  # the same session


def test_a_burst_under_an_older_keypair_moves_nothing() -> None:
    """It is late, or from a machine whose session a second one with its identity took over."""
    world = settled(2)
    peering, node = peering_of(world, "node1"), node_id(world, "node2")
    old = peering.sessions.current(node)
    world["node2"].perform(peering_of(world, "node2").renew(node_id(world, "node1"), world.now))
    world.run(world.now + 1.0)
    assert peering.sessions.current(node) is not old
    assert old in peering.sessions.held(node)
    before = peering.paths[node].endpoint
    assert peering.on_moved(old, STRANGER, world.now) == []
    assert peering.paths[node].endpoint == before


def test_a_new_path_starts_from_the_base_size_and_is_measured_again() -> None:
    world = settled(2)
    carry(world, "node1", "node2")
    world.run(world.now + 3.0)
    assert path_to(world, "node2", "node1").path_mtu == 1500
    world.set_link("node1", "node2", Link(mtu=1400))
    world["node2"].move(STRANGER)
    seen = set()
    for _ in range(100):
        world.run(world.now + 0.05)
        path = path_to(world, "node2", "node1")
        if path.endpoint == STRANGER:
            seen.add(path.path_mtu)
            carry(world, "node1", "node2")
    assert seen == {BASE_PATH_MTU, 1400}


@pytest.mark.parametrize("how", ["flipped", "repeated", "cut short"])
def test_what_does_not_authenticate_moves_no_path(how: str) -> None:
    world = settled(2)
    carry(world, "node1", "node2")
    world.run(world.now + 3.0)
    datagram = sent(world, "node2", "node1", TYPE_DATA)[-1]
    if how == "flipped":
        fresh = peering_of(world, "node2").send(
            node_id(world, "node1"), encode(Probe(1)), world.now
        )
        assert isinstance(fresh[0], SendDatagram)
        datagram = fresh[0].datagram[:-1] + bytes([fresh[0].datagram[-1] ^ 1])
    elif how == "cut short":
        datagram = datagram[:-1]
    assert inject(world, "node1", datagram, STRANGER) == []
    path = path_to(world, "node2", seen_by="node1")
    assert path.endpoint == world["node2"].endpoint
    assert path.path_mtu == 1500


def test_an_initiation_sent_again_from_elsewhere_moves_nothing() -> None:
    world = settled(2)
    world.run(world.now + 3.0)
    # node2 starts a new handshake; somebody catches its initiation and is faster.
    world.cut("node2", "node1", one_way=True)
    began = world.now
    world["node2"].perform(peering_of(world, "node2").renew(node_id(world, "node1"), world.now))
    (initiation,) = sent(world, "node2", "node1", TYPE_INITIATION, since=began)
    before = path_to(world, "node2", "node1").keypair
    answers = inject(world, "node1", initiation, STRANGER)
    assert [effect.endpoint for effect in answers if isinstance(effect, SendDatagram)] == [STRANGER]
    path = path_to(world, "node2", "node1")
    assert (path.endpoint, path.keypair) == (world["node2"].endpoint, before)


def test_a_keypair_nobody_has_proved_to_hold_moves_no_path() -> None:
    world = settled(2)
    peering, path = peering_of(world, "node1"), path_to(world, "node2", "node1")
    keypair = path.keypair
    assert keypair is not None
    keypair.confirmed = False
    assert peering.on_moved(keypair, STRANGER, world.now) == []
    keypair.confirmed = True
    assert peering.on_moved(keypair, path.endpoint, world.now) == []
    effects = peering.on_moved(keypair, STRANGER, world.now)
    assert isinstance(effects[0], Report)
    assert path.endpoint == STRANGER


# -- addresses ---------------------------------------------------------------------------------


def two_addresses(world: World) -> None:
    """node2 announces an address where nobody is, and behind it its real one."""
    machine = world["node2"]
    endpoints = (NOWHERE, machine.endpoint)
    machine.perform(machine.engine.on_endpoints(endpoints, world.now))
    world.run(world.now + 3.0)


def test_with_no_answer_at_one_address_the_next_is_tried() -> None:
    world = settled(2)
    two_addresses(world)
    # node1 must find node2 by itself: nothing comes from there before it answers.
    world.crash("node1")
    world["node2"].engine.parts.peering.forget(node_id(world, "node1"), world.now)
    world.restart("node1")
    assert path_to(world, "node2", "node1").endpoint == NOWHERE
    took = world.run_until(lambda: bool(world["node1"].snapshot().sessions), timeout=10.0)
    assert took <= 2 * TIMING.handshake_retry + 1.0
    assert path_to(world, "node2", "node1").endpoint == world["node2"].endpoint


def test_a_silent_peers_other_address_is_tried_while_its_session_stays_where_it_is() -> None:
    world = settled(2)
    peering, peer = peering_of(world, "node1"), node_id(world, "node2")
    path, here = peering.paths[peer], world["node2"].endpoint
    peering.introduce(peer, world["node2"].membership.identity.static.public, (here, NOWHERE))
    world.crash("node2")
    (first,) = peering.renew(peer, world.now)
    world["node1"].perform([first])
    began = world.now
    world.run(began + 5 * TIMING.handshake_retry)
    tried = [
        entry.destination
        for entry in world.trace._entries
        if isinstance(entry, Passage)
        and entry.fate.datagram[0] == TYPE_INITIATION
        and entry.at >= began
    ]
    assert tried[:3] == ["node2", str(NOWHERE), "node2"]
    assert path.endpoint == here
    assert path.keypair is not None


def test_once_the_session_is_up_no_other_address_is_tried() -> None:
    world = settled(2)
    two_addresses(world)
    world.restart("node1")
    world.run(world.now + 10.0)
    peering = peering_of(world, "node1")
    assert peering.paths[node_id(world, "node2")].endpoint == world["node2"].endpoint
    began = world.now
    world.run(world.now + 20.0)
    assert sent(world, "node1", str(NOWHERE), TYPE_INITIATION, since=began) == []


def test_a_handshake_given_up_leaves_the_next_address_to_the_next_try() -> None:
    world = settled(2)
    peering, peer = peering_of(world, "node1"), node_id(world, "node2")
    path = peering.paths[peer]
    static = world["node2"].membership.identity.static.public
    candidates = (Endpoint("192.0.2.1", 1), Endpoint("192.0.2.2", 2), Endpoint("192.0.2.3", 3))
    peering.introduce(peer, static, candidates)
    assert path.endpoint == world["node2"].endpoint  # a session is up: its address stays
    seen = []
    for _ in range(4):
        peering.on_session_down(peer)
        seen.append(path.endpoint)
    assert seen == [*candidates, world["node2"].endpoint]  # and where it answered before


def test_a_peer_without_a_known_address_is_not_called() -> None:
    world = settled(2)
    peering, static = peering_of(world, "node1"), world["node2"].membership.identity.static.public
    stranger = NodeId(b"s" * 32)
    peering.introduce(stranger, static, ())
    assert peering.connect(stranger, world.now) == []
    assert peering.renew(stranger, world.now) == []


def test_a_node_that_is_forgotten_leaves_nothing_behind() -> None:
    world = settled(2)
    peering, peer = peering_of(world, "node1"), node_id(world, "node2")
    del world["node1"].engine.parts.catalog.nodes[peer]
    peering.forget(peer, world.now)
    assert peer not in peering.paths
    assert peering.sessions.sending_keypair(peer, world.now) is None
    assert peering.send(peer, encode(Probe(1)), world.now) == []
    assert peering.connect(peer, world.now) == []
    peering.on_session_down(peer)
    peering.forget(peer, world.now)
    peering.on_deadline(world.now + 100.0)


# -- control messages --------------------------------------------------------------------------


def without_session(world: World) -> tuple[Peering, NodeId]:
    """node1 has just started and has no session with node2 yet."""
    world.crash("node1")
    world.restart("node1")
    assert not world["node1"].snapshot().sessions
    return peering_of(world, "node1"), node_id(world, "node2")


def test_messages_wait_for_the_session_and_arrive_in_order() -> None:
    world = settled(2)
    _, peer = without_session(world)
    tokens = range(5)
    for token in tokens:
        world["node1"].perform(world["node1"].engine.probe(peer, token, world.now))
    assert world["node1"].answered == []
    world.run(world.now + 1.0)
    assert [answer.token for answer in world["node1"].answered] == list(tokens)


def test_no_more_than_so_many_messages_wait_and_the_oldest_go_first() -> None:
    world = settled(2)
    peering, peer = without_session(world)
    for token in range(MAX_WAITING + 10):
        peering.send(peer, encode(Probe(token)), world.now)
    released = peering._waiting[peer]
    assert list(released) == [encode(Probe(token)) for token in range(10, MAX_WAITING + 10)]


def test_what_waits_is_lost_when_the_handshake_is_given_up() -> None:
    world = settled(2)
    peering, peer = without_session(world)
    world.crash("node2")
    peering.send(peer, encode(Probe(1)), world.now)
    world.run(world.now + TIMING.handshake_give_up + 1.0)
    assert peer not in peering._waiting or len(peering._waiting[peer]) < MAX_WAITING
    assert world.trace.notes("session.down", "node1")


def test_what_must_not_be_said_after_all_is_dropped() -> None:
    world = settled(2)
    peering, peer = without_session(world)
    world["node1"].perform(world["node1"].engine.probe(peer, 7, world.now))
    peering.drop_waiting()
    world.run(world.now + 1.0)
    assert world["node1"].answered == []
    assert world["node1"].snapshot().sessions


def test_a_message_for_nobody_goes_nowhere() -> None:
    world = settled(1)
    assert peering_of(world, "node1").send(NodeId(bytes(32)), encode(Probe(1)), world.now) == []


def test_control_messages_count_as_traffic_of_the_path() -> None:
    world = settled(2)
    path = path_to(world, "node2", "node1")
    before = path.tx_bytes
    (effect,) = peering_of(world, "node1").send(path.node, encode(Probe(1)), world.now)
    assert isinstance(effect, SendDatagram)
    assert path.tx_bytes - before == len(effect.datagram) > HEADER_SIZE


# -- renewal -----------------------------------------------------------------------------------


def test_a_silent_peers_session_is_renewed_while_it_is_up() -> None:
    world = settled(2)
    world.run(world.now + 3.0)
    world.crash("node2")
    silent_at = world.now
    world.run(silent_at + TIMING.silent_after - 0.5)
    assert sent(world, "node1", "node2", TYPE_INITIATION, since=silent_at) == []
    world.run(silent_at + TIMING.silent_after + 2.5)
    assert sent(world, "node1", "node2", TYPE_INITIATION, since=silent_at)
    assert world["node1"].snapshot().sessions  # the old keys stay: it may be the path


def test_a_dead_peer_is_called_now_and_then_with_an_initiation_that_is_not_repeated() -> None:
    world = settled(2)
    world.crash("node2")
    world.run(world.now + 200.0)  # and what was begun before has ended
    began = world.now
    world.run(began + 60.0)
    calls = sent(world, "node1", "node2", TYPE_INITIATION, since=began)
    assert 20 <= len(calls) <= 40
    world["node1"].engine.parts.peering.sessions.check_invariants()


def test_a_call_ends_no_session_and_no_rekeying() -> None:
    world = settled(2, settings=Settings(timing=Timing.quick()))
    world.run(world.now + 3.0)
    peer = node_id(world, "node2")
    world.cut("node2", "node1")
    call = peering_of(world, "node1").send(peer, encode(Probe(1)), world.now, once=True)
    assert len(call) == 2  # the message under the session, and one initiation
    world["node1"].perform(call)
    began = world.now
    world.run(world.now + 1.5)
    assert len(sent(world, "node1", "node2", TYPE_INITIATION, since=began)) == 1
    assert world["node1"].snapshot().sessions
    world.heal()
    world.run(world.now + 30.0)
    (session,) = world["node1"].snapshot().sessions
    assert session.rekeyed > began + 10.0


def test_a_peer_that_lost_its_keys_answers_the_renewal() -> None:
    world = settled(2)
    world.run(world.now + 3.0)
    world.crash("node2")
    world.cut("node2", "node1", one_way=True)  # it cannot make itself heard first
    world.restart("node2")
    world.run(world.now + 10.0)
    world.heal()
    world.run(world.now + 6.0)
    assert sent(world, "node2", "node1", TYPE_RESPONSE)
    world["node2"].add_pod("db")
    world.run(world.now + 1.0)
    assert any(pod.name == "db" for pod in world["node1"].snapshot().pods)


def test_rekeying_changes_neither_path_nor_measured_size() -> None:
    world = settled(2, settings=Settings(timing=Timing.quick()))
    carry(world, "node1", "node2")
    world.run(world.now + 3.0)
    before = path_to(world, "node2", "node1")
    keypair, endpoint = before.keypair, before.endpoint
    world.run(world.now + 20.0)
    after = path_to(world, "node2", "node1")
    assert after.keypair is not keypair
    assert (after.endpoint, after.path_mtu) == (endpoint, 1500)
