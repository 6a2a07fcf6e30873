"""Tests of overlay.tending: sessions live as long as somebody uses them, and no longer."""

from __future__ import annotations

import pytest

from overlay.config import Timing
from overlay.gossip.machine import Gossip
from overlay.sim import World, udp
from overlay.tending import YOUNG
from overlay.wire.control import encode
from overlay.wire.header import TYPE_INITIATION
from overlay.wire.messages import Probe
from tests.overlay.test_peering import node_id, path_to, peering_of, sent
from tests.sim.worlds import carry, settled
from tests.support.clusters import make_identity

TIMING = Timing()


@pytest.fixture
def quiet(monkeypatch) -> World:
    """Two nodes with a pod each, and nothing between them but what the tests send."""
    world = settled(2)
    world["node1"].add_pod("web")
    world["node2"].add_pod("db")
    world.run(world.now + 3.0)
    monkeypatch.setattr(Gossip, "on_deadline", lambda _gossip, _now: [])
    monkeypatch.setattr(Gossip, "next_deadline", lambda _gossip: None)
    world.run(world.now + 1.0)
    return world


def packet(world: World) -> None:
    """One datagram from node1's pod to node2's. Nobody answers it."""
    db, web = world["node1"].snapshot().pods
    if db.name != "db":
        db, web = web, db
    world.send_packet("node1", udp(web.address, db.address, b"one way"))


def send_for(world: World, seconds: int) -> None:
    for _ in range(seconds):
        packet(world)
        world.run(world.now + 1.0)


def test_a_session_nobody_uses_ends_at_both_ends_and_nothing_of_it_stays(quiet: World) -> None:
    quiet.run(quiet.now + TIMING.idle_after + 3.0)
    for name in ("node1", "node2"):
        parts = quiet[name].engine.parts
        assert not quiet[name].snapshot().sessions
        assert not parts.sessions.keypairs
        assert len(parts.sessions.due) == 0
        assert parts.peering.mtus.next_deadline() is None
    began = quiet.now
    quiet.run(began + TIMING.idle_after + 3.0)
    assert not quiet["node1"].engine.parts.paths
    assert not quiet["node2"].engine.parts.paths
    quiet.run(began + 300.0)
    assert sent(quiet, "node1", "node2", TYPE_INITIATION, since=began) == []
    assert sent(quiet, "node2", "node1", TYPE_INITIATION, since=began) == []


def test_what_waits_for_one_that_cannot_be_called_keeps_its_path_no_longer(quiet: World) -> None:
    peering, stranger = peering_of(quiet, "node1"), make_identity(9)
    peering.introduce(stranger.node, stranger.static.public, ())
    assert peering.send(stranger.node, encode(Probe(1)), quiet.now) == []
    quiet.run(quiet.now + TIMING.idle_after - 1.0)
    assert stranger.node in peering.paths
    quiet.run(quiet.now + 4.0)
    assert stranger.node not in peering.paths


def test_a_packet_brings_the_session_back(quiet: World) -> None:
    quiet.run(quiet.now + 2 * TIMING.idle_after + 6.0)
    assert not quiet["node1"].engine.parts.paths
    packet(quiet)
    quiet.run(quiet.now + 0.5)
    assert quiet["node2"].delivered[-1].endswith(b"one way")


def test_packets_in_one_direction_keep_a_session_and_renew_nothing(quiet: World) -> None:
    began = quiet.now
    send_for(quiet, int(TIMING.idle_after) + 10)
    assert quiet["node1"].snapshot().sessions
    assert quiet["node2"].snapshot().sessions
    assert sent(quiet, "node1", "node2", TYPE_INITIATION, since=began) == []
    assert len(quiet["node2"].delivered) == int(TIMING.idle_after) + 10


def test_messages_keep_a_session_and_those_about_the_path_do_not(quiet: World) -> None:
    peering, peer = peering_of(quiet, "node1"), node_id(quiet, "node2")
    for _ in range(5):
        quiet["node1"].perform(peering.send(peer, encode(Probe(1)), quiet.now))
        quiet.run(quiet.now + TIMING.idle_after / 2)
    assert quiet["node1"].snapshot().sessions


def test_a_peer_that_restarted_is_noticed_by_a_flow_in_one_direction(quiet: World) -> None:
    send_for(quiet, 3)
    quiet.crash("node2")
    quiet.cut("node2", "node1")  # it cannot greet when it starts
    quiet.restart("node2")
    quiet.run(quiet.now + 1.0)
    quiet.heal()
    quiet["node2"].engine.parts.peering.forget(node_id(quiet, "node1"), quiet.now)
    began, before = quiet.now, len(quiet["node2"].delivered)
    send_for(quiet, int(TIMING.silent_after) + 3)
    assert sent(quiet, "node1", "node2", TYPE_INITIATION, since=began)
    assert len(quiet["node2"].delivered) > before


def test_silence_is_no_reason_where_nothing_was_sent(quiet: World) -> None:
    quiet.crash("node2")
    began = quiet.now
    quiet.run(began + 3 * TIMING.silent_after)
    assert sent(quiet, "node1", "node2", TYPE_INITIATION, since=began) == []


def test_an_empty_burst_shows_life_and_is_not_answered_by_another(quiet: World) -> None:
    packet(quiet)
    quiet.run(quiet.now + 5.0)  # the path is measured: what follows is not answered
    packet(quiet)
    quiet.run(quiet.now + 0.1)
    shown = []
    for name in ("node1", "node2"):
        peering = peering_of(quiet, name)
        keep = peering.keep_alive

        def noting(path, now, name=name, keep=keep):
            shown.append(name)
            return keep(path, now)

        peering.keep_alive = noting
    quiet.run(quiet.now + 10.0)
    assert shown == ["node2"]
    assert dict(quiet["node1"].snapshot().ledger.drops) == {}
    heard = path_to(quiet, "node2", "node1").heard_at
    assert heard is not None


def test_replays_stay_refused_after_a_session_has_lapsed(quiet: World) -> None:
    began = quiet.now
    peering = peering_of(quiet, "node2")
    quiet["node2"].perform(peering.renew(node_id(quiet, "node1"), quiet.now))
    quiet.run(quiet.now + 1.0)
    (initiation,) = sent(quiet, "node2", "node1", TYPE_INITIATION, since=began)
    quiet.run(quiet.now + 2 * TIMING.idle_after + 6.0)
    assert not quiet["node1"].engine.parts.paths
    machine = quiet["node1"]
    effects = machine.engine.on_datagrams(
        memoryview(initiation), 0, quiet["node2"].endpoint, quiet.now
    )
    assert effects == []
    assert machine.snapshot().ledger.drops["replayed"] == 1


def test_what_waits_for_a_session_keeps_its_path(quiet: World) -> None:
    quiet.run(quiet.now + 2 * TIMING.idle_after + 6.0)
    quiet.crash("node2")
    peering, peer = peering_of(quiet, "node1"), node_id(quiet, "node2")
    packet(quiet)
    assert not peering.is_quiet(peer)
    quiet.run(quiet.now + TIMING.handshake_give_up + 1.0)
    assert peering.is_quiet(peer)
    quiet.run(quiet.now + TIMING.idle_after + 3.0)
    assert peer not in peering.paths


def test_a_keypair_that_sealed_much_is_replaced_before_its_time(monkeypatch) -> None:
    """By its initiator alone, in a second or two, and once."""
    monkeypatch.setattr("overlay.session.transport.REKEY_COUNTER", 400)
    world = settled(2)
    sessions = world["node1"].engine.parts.sessions
    other = node_id(world, "node2")
    first = sessions.current(other)
    while sessions.current(other).counter < 400 and sessions.current(other).replay.highest < 400:
        assert sessions.current(other) is first
        carry(world, "node1", "node2")
        world.run(world.now + 0.01)
    began, initiations = (
        world.now,
        sum(one[0] == TYPE_INITIATION for one in world.trace.datagrams()),
    )
    assert began - first.created_at < TIMING.rekey_after / 4
    world.run(began + 2.5)
    second = sessions.current(other)
    assert second is not first
    assert sum(one[0] == TYPE_INITIATION for one in world.trace.datagrams()) == initiations + 1
    world.run(began + 10.0)
    assert sessions.current(other) is second


# -- a peer that has started again -------------------------------------------------------------


def initiations(world: World, since: float) -> int:
    return len(sent(world, "node1", "node2", TYPE_INITIATION, since=since))


def restarted(world: World, boot: int) -> None:
    """node1 hears of a record of node2 with this boot; what it does about it is done."""
    machine, node = world["node1"], node_id(world, "node2")
    machine.perform(machine.engine.parts.tending.on_restart(node, boot, world.now))


def test_a_peer_that_says_it_started_again_gets_a_handshake_at_once(quiet: World) -> None:
    began = quiet.now
    restarted(quiet, boot=2)
    assert initiations(quiet, began) == 1
    quiet.run(quiet.now + 0.5)
    assert quiet["node1"].snapshot().sessions


def test_not_if_it_has_shaken_hands_since_or_there_is_no_session(quiet: World) -> None:
    began, node = quiet.now, node_id(quiet, "node2")
    sessions = quiet["node1"].engine.parts.sessions
    sessions.peers[node].stamp = 2 << 32 | 5
    restarted(quiet, boot=2)
    assert initiations(quiet, began) == 0
    restarted(quiet, boot=3)
    assert initiations(quiet, began) == 1
    quiet.run(quiet.now + 2 * TIMING.idle_after)
    began = quiet.now
    assert not quiet["node1"].engine.parts.paths
    restarted(quiet, boot=4)
    assert initiations(quiet, began) == 0


@pytest.mark.parametrize("answers", [True, False])
def test_a_young_session_gets_one_after_a_second_of_silence(quiet: World, answers: bool) -> None:
    restarted(quiet, boot=2)
    quiet.run(quiet.now + 1.1)
    keypair = path_to(quiet, "node1", "node2").keypair
    assert quiet.now - keypair.created_at < YOUNG
    began = quiet.now
    restarted(quiet, boot=3)
    assert initiations(quiet, began) == 0
    for _ in range(6):
        if answers:
            send_back(quiet)
        quiet.run(quiet.now + 0.5)
    assert initiations(quiet, began) == (0 if answers else 1)


def send_back(world: World) -> None:
    """One datagram from node2's pod to node1's."""
    pods = {pod.name: pod.address for pod in world["node1"].snapshot().pods}
    world.send_packet("node2", udp(pods["db"], pods["web"], b"back"))
