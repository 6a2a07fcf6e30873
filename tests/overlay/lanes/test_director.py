"""The daemon's side: what workers are told, and what peers are. See also `test_together`."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from overlay.effects import Effect, SendControl, TellLane
from overlay.errors import WireError
from overlay.lanes.director import RENEW_AGAIN, TELL_WAITS, UPKEEP_BYTES
from overlay.lanes.messages import (
    PER_MESSAGE,
    Answered,
    Down,
    Key,
    KeyGone,
    Peer,
    PeerGone,
    Ready,
    Routes,
    TooBig,
    Traffic,
    Use,
    Wanted,
    decode_order,
    encode,
)
from overlay.routing.table import Announcement
from overlay.types import NodeId
from overlay.wire.control import decode_untrusted
from overlay.wire.messages import LaneProbe, LaneProbeReply, Lanes
from tests.support.lane_net import LaneNet


@pytest.fixture
def net() -> LaneNet:
    """Two nodes with two lanes each, at rest."""
    net = LaneNet(2, 2)
    net.run(5.0)
    return net


def told(effects: list[Effect]) -> list[object]:
    return [decode_order(one.message) for one in effects if isinstance(one, TellLane)]


def said(effects: list[Effect]) -> list[object]:
    return [decode_untrusted(one.message) for one in effects if isinstance(one, SendControl)]


def test_nothing_new_is_nothing_to_tell(net: LaneNet) -> None:
    director = net.nodes[0].engine.parts.lanes
    director.orders(net.now)
    assert director.orders(net.now) == []


def test_a_new_worker_is_told_everything_but_old_keys(net: LaneNet) -> None:
    node = net.nodes[0]
    director = node.engine.parts.lanes
    director.on_lane(1, None, net.now)
    orders = told(director.on_lane(1, encode(Ready()), net.now))
    assert [type(order).__name__ for order in orders] == ["Local", "Routes", "Peer"]
    assert director.next_deadline() == net.now, "the session must be replaced"
    renewed = director.on_deadline(net.now)
    assert renewed, "a handshake"
    assert director.next_deadline() == net.now + min(RENEW_AGAIN, TELL_WAITS[0])


def test_a_rekey_is_a_key_and_its_use_and_later_the_end_of_the_old_one(net: LaneNet) -> None:
    node, seen = net.nodes[0], []
    told_before = node.act

    def act(lane: int, effects: list[Effect]) -> None:
        seen.extend(told(effects))
        told_before(lane, effects)

    node.act = act  # type: ignore[method-assign]
    for _ in range(2):
        node.act(0, node.engine.parts.peering.renew(net.node_id(1), net.now))
        net.run(1.0)
    kinds = [type(order) for order in seen]
    assert kinds.count(Key) == 2
    assert kinds.count(Use) == 2
    assert KeyGone in kinds
    assert kinds.index(Key) < kinds.index(Use)


def test_a_worker_gets_keys_of_its_own_pairs_and_no_other(net: LaneNet) -> None:
    node = net.nodes[0]
    director = node.engine.parts.lanes
    keypair = node.engine.parts.sessions.current(net.node_id(1))
    assert keypair is not None
    director._workers[1].keys.clear()
    director._workers[1].uses.clear()
    orders = told(director._feed_all({net.node_id(1)}, net.now))
    keys = {one.index: one for one in orders if isinstance(one, Key)}
    key = keys[keypair.local_index]
    for lane in range(16):
        expected = b"".join(keypair.lane_split(1, lane))
        assert key.keys[lane * 64 : lane * 64 + 64] == expected
    assert not any(part in key.keys for part in keypair._split)


def test_lanes_are_told_again_until_it_was_heard(net: LaneNet) -> None:
    director, node = net.nodes[0].engine.parts.lanes, net.node_id(1)
    (message,) = said(director.on_session_up(node, net.now))
    assert isinstance(message, Lanes)
    assert (message.count, message.up) == (2, 3)
    now = net.now
    for wait in TELL_WAITS[:4]:
        assert director.next_deadline() == pytest.approx(now + wait)
        now += wait
        assert said(director.on_deadline(now)) == [message]
    director.on_message(node, LaneProbeReply(0, message.token + 1), now)
    assert director.next_deadline() is not None
    director.on_message(node, LaneProbeReply(0, message.token), now)
    assert director.next_deadline() is None


def test_with_one_lane_it_says_nothing_unasked() -> None:
    net = LaneNet(1, 1)
    net.run(2.0)
    director, node = net.nodes[0].engine.parts.lanes, net.node_id(1)
    assert director.on_session_up(node, net.now) == []
    assert said(director.on_message(node, Lanes(2, 3, 9), net.now)) == [LaneProbeReply(0, 9)]
    assert said(director.on_message(node, LaneProbe(1, 8), net.now)) == [LaneProbeReply(1, 8)]


def test_a_lost_lane_is_told_to_peers_and_its_probes_are_nobodys(net: LaneNet) -> None:
    director, node = net.nodes[0].engine.parts.lanes, net.node_id(1)
    assert told(director.on_message(node, LaneProbeReply(1, 5), net.now)) == [Answered(node, 5)]
    (message,) = said(director.on_lane(1, None, net.now))
    assert isinstance(message, Lanes)
    assert message.up == 1
    assert director.on_message(node, LaneProbeReply(1, 5), net.now) == []
    assert director.on_lane(1, None, net.now) == []


def test_the_peers_lanes_are_passed_on(net: LaneNet) -> None:
    director, node = net.nodes[0].engine.parts.lanes, net.node_id(1)
    (peer,) = told(director.on_message(node, Lanes(5, 0b10111, 1), net.now))
    assert isinstance(peer, Peer)
    assert (peer.lanes, peer.up, peer.live) == (5, 0b10111, True)
    keypairs = net.nodes[0].engine.parts.sessions.keypairs
    assert {index >> 36 for index in keypairs} == {0, 1, 2, 3, 4}


def test_routes_are_told_as_differences_in_pieces(net: LaneNet) -> None:
    parts, node = net.nodes[0].engine.parts, net.node_id(1)
    blocks = list(ip_network("10.0.0.0/8").subnets(new_prefix=20))[: 3 * PER_MESSAGE]
    parts.routes.replace([Announcement(block, node, "block") for block in blocks], net.now)
    orders = [order for order in told(parts.lanes.orders(net.now)) if isinstance(order, Routes)]
    assert sum(len(order.added) for order in orders) == 3 * PER_MESSAGE
    assert max(len(order.added) for order in orders) == PER_MESSAGE
    assert sum(len(order.removed) for order in orders) == 4  # two blocks of each family
    parts.routes.replace([Announcement(block, node, "block") for block in blocks[1:]], net.now)
    (order,) = told(parts.lanes.orders(net.now))
    assert isinstance(order, Routes)
    assert (len(order.added), len(order.removed)) == (0, 1)


def test_a_peer_that_is_forgotten_is_forgotten_by_workers(net: LaneNet) -> None:
    parts, node = net.nodes[0].engine.parts, net.node_id(1)
    parts.peering.forget(node, net.now)
    assert told(parts.lanes.orders(net.now)) == [PeerGone(node)]


def test_what_a_worker_heard_keeps_the_peer_alive(net: LaneNet) -> None:
    director, node = net.nodes[0].engine.parts.lanes, net.node_id(1)
    path = net.nodes[0].engine.parts.paths[node]
    heard = path.heard_at
    assert heard is not None
    director.on_lane(1, encode(Traffic([(node, 1, 1, heard - 1, [])])), net.now)
    assert path.heard_at == heard
    director.on_lane(1, encode(Traffic([(node, 1, 1, heard + 1, [])])), net.now)
    assert path.heard_at == heard + 1


def test_what_a_worker_wants_and_finds_too_big_is_passed_on(net: LaneNet) -> None:
    parts, node = net.nodes[0].engine.parts, net.node_id(1)
    assert parts.lanes.on_lane(1, encode(Wanted([node])), net.now) == []
    sent = 1 + UPKEEP_BYTES
    effects = parts.lanes.on_lane(1, encode(Traffic([(node, sent, 0, None, [])])), net.now)
    net.nodes[0].act(0, effects)
    net.run(1.0)
    assert parts.paths[node].path_mtu == 1500
    parts.lanes.on_lane(1, encode(TooBig(node)), net.now)
    assert parts.paths[node].path_mtu < 1500


def test_a_worker_hears_at_once_that_nobody_can_be_reached(net: LaneNet) -> None:
    lanes = net.nodes[0].engine.parts.lanes
    nobody = NodeId(b"x" * 32)
    assert lanes.on_lane(1, encode(Wanted([nobody])), net.now) == [
        TellLane(1, encode(Down(nobody)))
    ]


def test_packets_of_other_lanes_count_as_use_and_their_upkeep_does_not(net: LaneNet) -> None:
    parts, node = net.nodes[0].engine.parts, net.node_id(1)
    path = parts.paths[node]
    totals = parts.lanes.books.peer_of(1, node)
    sent, used = path.tx_elsewhere, path.used
    report = (node, totals.tx_bytes + 500, totals.rx_bytes + 400, None, [])
    parts.lanes.on_lane(1, encode(Traffic([report])), net.now)
    assert (path.tx_elsewhere, path.used) == (sent + 500, used)
    report = (node, totals.tx_bytes + 500, totals.rx_bytes + 400 + 60_000, None, [])
    parts.lanes.on_lane(1, encode(Traffic([report])), net.now)
    assert (path.tx_elsewhere, path.used) == (sent + 500, used + 1)


def test_a_worker_that_should_not_be_is_refused(net: LaneNet) -> None:
    director = net.nodes[0].engine.parts.lanes
    for lane in (0, 2, 16):
        with pytest.raises(WireError):
            director.on_lane(lane, encode(Ready()), net.now)
    with pytest.raises(WireError):
        director.on_lane(1, b"\x91\x63", net.now)
