"""Nodes with several lanes together: nonces, replay, crashes, rekeys, and packets that arrive."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from overlay.types import DEFAULT_PORT
from overlay.wire.header import Header
from tests.support.lane_net import LaneNet


def ready(*lanes: int, seed: int = 1) -> LaneNet:
    """A net in which every lane has proven its ways."""
    net = LaneNet(*lanes, seed=seed)
    net.run(5.0)
    return net


@pytest.mark.parametrize("counts", [(2, 2), (2, 1), (1, 2), (3, 2), (2, 3), (4, 16), (1, 1)])
def test_every_lane_reaches_the_peer_whatever_its_number_of_lanes(counts: tuple[int, int]) -> None:
    net = ready(*counts)
    for source, to in ((0, 1), (1, 0)):
        for lane in range(counts[source]):
            packet = net.send(source, lane, to)
            net.run(0.1)
            assert net.arrived(packet, to) == 1
            if lane:
                receiver = lane % counts[to]
                assert net.way(source, lane, to) == (receiver, receiver != 0)


def test_with_one_lane_nothing_of_it_is_on_the_wire() -> None:
    net = ready(1, 1)
    assert {header.lane for header, _ in net.data()} == {0}
    assert {one.target.port for one in net.wire} == {6875}


def test_a_packet_that_comes_before_any_session_waits_and_leaves() -> None:
    net = LaneNet(2, 2)
    packet = net.send(0, 1, 1)
    assert net.arrived(packet, 1) == 0
    net.run(2.0)
    assert net.arrived(packet, 1) == 1


def test_a_blocked_port_means_lane_0_and_an_opened_one_the_lane_again() -> None:
    net = LaneNet(2, 2)
    net.blocked = {(net.nodes[1].host, 6876)}
    net.run(5.0)
    assert net.way(0, 1, 1) == (0, False)
    assert net.arrived(net.send(0, 1, 1), 1) == 0
    net.run(0.1)
    assert len(net.nodes[1].delivered) == 1
    net.blocked = set()
    net.run(40.0)
    assert net.way(0, 1, 1) == (1, True)


def test_a_port_that_is_blocked_later_is_found_out_under_traffic() -> None:
    net = ready(2, 2)
    assert net.way(0, 1, 1) == (1, True)
    net.blocked = {(net.nodes[1].host, 6876)}
    for _ in range(20):
        net.send(0, 1, 1)
        net.run(1.0)
    assert net.way(0, 1, 1) == (0, False)
    packet = net.send(0, 1, 1)
    net.run(0.1)
    assert net.arrived(packet, 1) == 1


def test_a_rekey_loses_nothing_on_any_lane() -> None:
    net = ready(3, 3)
    packets: list[tuple[bytes, int]] = []
    for step in range(300):
        if step == 50:
            net.nodes[0].act(0, net.nodes[0].engine.parts.peering.renew(net.node_id(1), net.now))
        if step == 150:
            net.nodes[1].act(0, net.nodes[1].engine.parts.peering.renew(net.node_id(0), net.now))
        for lane in range(3):
            packets.append((net.send(0, lane, 1), 1))
            packets.append((net.send(1, lane, 0), 0))
        net.run(0.002)
    net.run(1.0)
    assert [packet for packet, at in packets if net.arrived(packet, at) != 1] == []
    used = {header.receiver for header, one in net.data() if header.lane == 0x11}
    assert len(used) >= 4, "the lanes did not change over"


def test_ordinary_rekeys_go_on_for_hours() -> None:
    net = ready(2, 2)
    for _ in range(40):
        net.run(15.0)
        packets = [(net.send(0, 1, 1), 1), (net.send(1, 1, 0), 0)]
        net.run(0.1)
        assert [net.arrived(packet, at) for packet, at in packets] == [1, 1]
    assert net.way(0, 1, 1) == (1, True)
    worker = net.nodes[0].workers[1]
    assert len(worker._keypairs) <= 3 * 2, "old keys are not let go"


def test_the_lane_after_a_crash_has_no_key_of_the_one_before() -> None:
    net = ready(2, 2)
    for _ in range(20):
        net.send(0, 1, 1)
        net.run(0.01)
    captured = [
        one
        for header, one in net.data()
        if header.lane == 0x11 and one.target.host == net.nodes[1].host
    ]
    assert len(captured) >= 20
    old = {Header.decode_untrusted(one.datagram).receiver for one in captured}
    held = set(net.nodes[1].workers[1]._keypairs)
    net.nodes[1].kill(1)
    net.nodes[1].spawn(1)
    assert not net.nodes[1].workers[1]._keypairs
    net.run(3.0)
    fresh = net.nodes[1].workers[1]
    assert fresh._keypairs
    assert not held & set(fresh._keypairs)
    # Only what comes from here on may be read by it, and what was captured is not.
    delivered, dropped = len(net.nodes[1].delivered), Counter(fresh.ledger.drops)
    for one in captured:
        net.replay(one)
    net.run(0.1)
    assert len(net.nodes[1].delivered) == delivered
    assert sum(fresh.ledger.drops.values()) - sum(dropped.values()) == len(captured)
    # The one that was killed had sent, too: its successor counts from 0 under other keys.
    packet = net.send(1, 1, 0)
    net.run(0.1)
    assert net.arrived(packet, 0) == 1
    sent = {h.receiver for h, one in net.data() if h.lane == 0x11 and one.at > net.now - 0.2}
    assert not sent & old


def test_while_a_lane_is_gone_its_share_goes_to_lane_0() -> None:
    net = ready(2, 2)
    net.nodes[1].kill(1)
    net.run(0.1)
    assert net.way(0, 1, 1) == (0, False)
    packet = net.send(0, 1, 1)
    net.run(0.1)
    assert net.arrived(packet, 1) == 1
    net.nodes[1].spawn(1)
    net.run(1.0)
    assert net.way(0, 1, 1) == (1, True)


def test_other_lanes_lose_nothing_while_one_is_replaced() -> None:
    net = ready(3, 3)
    packets: list[tuple[bytes, int]] = []
    for step in range(200):
        if step == 20:
            net.nodes[1].kill(1)
        if step == 60:
            net.nodes[1].spawn(1)
        for lane in (0, 2):
            packets.append((net.send(0, lane, 1), 1))
            packets.append((net.send(1, lane, 0), 0))
        net.run(0.005)
    net.run(1.0)
    assert [packet for packet, at in packets if net.arrived(packet, at) != 1] == []


def test_a_lane_that_is_younger_than_the_keypair_of_a_new_session_gets_another_one() -> None:
    net = LaneNet(2, 2)
    near = net.nodes[0]
    net.run(0.006)
    # Both ends started. The initiation of node 1 was answered; the response to ours is lost.
    (half_open,) = near.engine.parts.sessions.held(net.node_id(1))
    assert not half_open.confirmed
    near.kill(1)
    near.spawn(1)
    net.blocked = {(near.host, DEFAULT_PORT)}
    net.run(0.006)
    net.blocked = set()
    net.run(0.005)
    assert near.engine.parts.sessions.current(net.node_id(1)) is half_open
    assert near.workers[1]._keypairs == {}
    net.run(1.0)
    assert net.way(0, 1, 1) == (1, True)
    packet = net.send(0, 1, 1)
    net.run(0.1)
    assert net.arrived(packet, 1) == 1


def test_what_a_crashed_lane_held_and_counted_stays_in_the_books() -> None:
    net = LaneNet(2, 1)
    net.copies = lambda _: 0
    for _ in range(7):
        net.send(0, 1, 1)
    net.nodes[0].kill(1)
    ledger = net.nodes[0].engine.snapshot(net.now).ledger
    assert ledger.drops["lane_lost"] == 7
    net.check()


def test_a_peer_that_left_takes_its_keys_along() -> None:
    net = ready(2, 2)
    engine = net.nodes[0].engine
    engine.parts.peering.forget(net.node_id(1), net.now)
    net.nodes[0].act(0, engine.flush(net.now))
    net.nodes[0].act(0, engine._settle([], net.now))
    worker = net.nodes[0].workers[1]
    assert (worker._keypairs, worker._remotes) == ({}, {})


def test_a_goodbye_ends_the_session_in_all_lanes() -> None:
    net = ready(2, 2)
    net.nodes[1].act(0, net.nodes[1].engine.stop(net.now))
    net.blocked = {(net.nodes[1].host, 6875), (net.nodes[1].host, 6876)}
    net.run(0.1)
    assert net.way(0, 1, 1) is None or not net.nodes[0].workers[1]._remotes[net.node_id(1)].live


def test_lanes_of_three_nodes_do_not_mix() -> None:
    net = ready(2, 3, 2)
    for source in range(3):
        for lane in range(net.nodes[source].lanes):
            for to in {0, 1, 2} - {source}:
                packet = net.send(source, lane, to)
                net.run(0.05)
                assert [net.arrived(packet, at) for at in range(3)] == [
                    int(at == to) for at in range(3)
                ]


ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("send"), st.integers(0, 1), st.integers(0, 2)),
        st.tuples(st.just("kill"), st.integers(0, 1), st.integers(1, 2)),
        st.tuples(st.just("spawn"), st.integers(0, 1), st.integers(1, 2)),
        st.tuples(st.just("renew"), st.integers(0, 1), st.just(0)),
        st.tuples(st.just("run"), st.integers(1, 400), st.just(0)),
        st.tuples(st.just("replay"), st.integers(0, 1 << 20), st.just(0)),
    ),
    max_size=40,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@example(actions=[("run", 1, 0), ("kill", 0, 1)], loss=0.2, seed=1)
@given(actions=ACTIONS, loss=st.sampled_from([0.0, 0.2]), seed=st.integers(0, 5))
def test_whatever_happens_no_nonce_and_no_packet_comes_twice_and_lanes_recover(
    actions: list[tuple[str, int, int]], loss: float, seed: int
) -> None:
    net = LaneNet(3, 2, seed=seed)
    rng = random.Random(seed)
    net.copies = lambda _: 0 if rng.random() < loss else 1 + (rng.random() < 0.1)
    for what, first, second in actions:
        node = net.nodes[first % 2]
        match what:
            case "send" if second == 0 or second in node.workers:
                net.send(first, second, 1 - first)
            case "kill" if second in node.workers:
                node.kill(second)
            case "spawn" if 0 < second < node.lanes and second not in node.workers:
                node.spawn(second)
            case "renew":
                peer = net.node_id(1 - first)
                node.act(0, node.engine.parts.peering.renew(peer, net.now))
            case "run":
                net.run(first / 100)
            case "replay" if net.wire:
                net.replay(net.wire[first % len(net.wire)])
        net.check()
    net.copies = lambda _: 1
    for node in net.nodes:
        for lane in range(1, node.lanes):
            if lane not in node.workers:
                node.spawn(lane)
    net.run(60.0)
    for source in (0, 1):
        for lane in range(net.nodes[source].lanes):
            packet = net.send(source, lane, 1 - source)
            net.run(0.1)
            assert net.arrived(packet, 1 - source) == 1


def test_a_lane_that_sealed_much_has_the_session_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    net = ready(2, 2)
    near, far = net.nodes[0], net.node_id(1)
    worker, sessions = near.workers[1], near.engine.parts.sessions
    pair = worker._paths[far].keypair
    assert pair is not None
    monkeypatch.setattr("overlay.session.transport.REKEY_COUNTER", 1000)
    # What the other end's lane 1 has opened must not move it first: nobody asks it for reports.
    while pair.counter < 1000:
        net.send(0, 1, 1)
        net.run(0.001)
        report(net, 0, 1)
        assert worker._paths[far].keypair is pair
    before = sessions.current(far)
    report(net, 0, 1)
    report(net, 0, 1)  # the handshake that it asks for runs already
    net.run(1.0)
    after = sessions.current(far)
    assert after is not before
    assert worker._paths[far].keypair.local_index == after.local_index
    report(net, 0, 1)
    net.run(3.0)
    assert sessions.current(far) is after


def report(net: LaneNet, number: int, lane: int) -> None:
    """What the process of a lane does every second."""
    node = net.nodes[number]
    for one in node.workers[lane].stats(0.0):
        node.act(0, node.engine.on_lane(lane, one, net.now))
