"""Proofs: nodes with several lanes are handed over, and no key seals twice with one counter.

`LaneNet.check` looks at all that was ever sent, after every `run`.
"""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.lane_net import LaneNet
from tests.support.nonces import NonceLog


def up(net: LaneNet) -> bool:
    """Whether every lane of every node can send now."""
    return all(worker.settled for node in net.nodes for worker in node.workers.values())


def wait(net: LaneNet, seconds: float = 10.0) -> None:
    for _ in range(int(seconds / 0.1)):
        net.run(0.1)
        if up(net):
            return
    raise AssertionError("lanes do not come up")


def retired(net: LaneNet, number: int) -> None:
    """Tell peers, and wait until they know, as the process around an engine does."""
    node = net.nodes[number]
    node.act(0, node.engine.retire_lanes(net.now))
    for _ in range(20):
        net.run(0.02)
        if node.engine.lanes_retired:
            return
    raise AssertionError("peers do not answer")


def test_packets_to_all_lanes_arrive_while_one_end_is_handed_over_in_good_order(monkeypatch):
    log = NonceLog().watch(monkeypatch)
    net = LaneNet(2, 2)
    wait(net)
    packets = []
    for _ in range(4):
        for lane in (0, 1):
            packets.append((net.send(0, lane, 1), 1))
        net.run(0.05)
        retired(net, 1)
        packets += [(net.send(0, lane, 1), 1) for lane in (0, 1)]
        net.run(0.02)  # what was on its way to a lane is there
        net.nodes[1].hand_over()
        for _ in range(10):
            packets += [(net.send(0, lane, 1), 1) for lane in (0, 1)]
            packets.append((net.send(1, 0, 0), 0))
            net.run(0.02)
        wait(net)
        packets.append((net.send(1, 1, 0), 0))
        net.run(0.1)
    assert [net.arrived(packet, at) for packet, at in packets] == [1] * len(packets)
    assert log.twice == []


def test_lanes_that_do_not_end_after_all_are_used_again():
    net = LaneNet(2, 2)
    wait(net)
    retired(net, 1)
    node = net.nodes[1]
    node.act(0, node.engine.keep_lanes(net.now))
    net.run(1.0)
    told = net.nodes[0].engine.parts.lanes.of_peers[node.engine.parts.local]
    assert (told.count, told.up) == (2, 0b11)
    packets = [net.send(0, lane, 1) for lane in (0, 1)]
    net.run(0.5)
    assert [net.arrived(packet, 1) for packet in packets] == [1, 1]


def test_what_lanes_have_counted_goes_over_though_nobody_said_that_they_ended():
    net = LaneNet(2, 2)
    wait(net)
    for number in (0, 1):
        net.send(number, 1, 1 - number)
    net.run(0.5)
    node = net.nodes[0]
    for report in node.workers[1].stats(0.0):
        node.act(0, node.engine.on_lane(1, report, net.now))
    books = node.engine.parts.lanes.books
    before = books.view(node.engine.ledger)
    assert before.sent > node.engine.ledger.view().sent
    data = node.engine.hand_over(net.now)
    node.engine = node._make_engine(data)
    node.act(0, node.engine.start(net.now))
    assert node.engine.parts.lanes.books.view(node.engine.ledger) == before


@pytest.mark.parametrize("lanes", [1, 3])
def test_with_another_number_of_lanes_peers_are_told(lanes):
    net = LaneNet(2, 2)
    wait(net)
    net.nodes[0].hand_over(lanes=lanes)
    net.run(1.0)
    wait(net)
    for lane in (0, 1):
        packet = net.send(1, lane, 0)
        net.run(0.5)
        assert net.arrived(packet, 0) == 1
    said = net.nodes[1].engine.parts.lanes.of_peers[net.node_id(0)]
    assert said.count == lanes
    assert said.up == (1 << lanes) - 1


def test_a_new_lane_gets_no_keypair_that_the_old_process_had():
    net = LaneNet(2, 2)
    wait(net)
    old = {key.local_index for key in net.nodes[0].engine.parts.sessions.keypairs.values()}
    net.nodes[0].hand_over()
    worker = net.nodes[0].workers[1]
    assert not {key.local_index for key in worker._keypairs.values()} & old
    wait(net)
    assert not {key.local_index for key in worker._keypairs.values()} & old
    for _ in range(3):
        packet = net.send(0, 1, 1)
        net.run(0.1)
        assert net.arrived(packet, 1) == 1


ACTS = st.lists(
    st.tuples(
        st.sampled_from(["send", "send", "send", "hand over", "wait", "kill", "replay", "rekey"]),
        st.integers(0, 1),
        st.integers(0, 1),
        st.integers(0, 10_000),
    ),
    min_size=5,
    max_size=40,
)


@settings(max_examples=12, deadline=None)
@given(acts=ACTS, seed=st.integers(0, 100))
def test_whatever_happens_no_nonce_and_no_packet_comes_twice(acts, seed):
    with pytest.MonkeyPatch.context() as patch:
        log, rng = NonceLog().watch(patch), random.Random(seed)
        net = LaneNet(2, 2, seed=seed)
        net.copies = lambda _: rng.choice((0, 1, 1, 1, 1, 2))
        net.run(1.0)
        for act, number, lane, pick in acts:
            node = net.nodes[number]
            match act:
                case "send" if lane == 0 or lane in node.workers:
                    net.send(number, lane, 1 - number)
                case "hand over":
                    node.hand_over()
                case "kill" if 1 in node.workers:
                    node.kill(1)
                    node.spawn(1)
                case "replay":
                    net.replay(net.wire[pick % len(net.wire)])
                case "rekey":
                    renewed = node.engine.parts.peering.renew(net.node_id(1 - number), net.now)
                    node.act(0, renewed)
                case _:
                    net.run(rng.choice((0.01, 0.3, 2.0)))
            net.run(rng.choice((0.0, 0.003, 0.02)))  # checks
        assert log.twice == []
        net.copies = lambda _: 1
        net.run(6.0)
        wait(net)
        packets = [net.send(number, 1, 1 - number) for number in (0, 1)]
        net.run(1.0)
        assert [net.arrived(packet, 1 - number) for number, packet in enumerate(packets)] == [1, 1]
