"""Tests of overlay.session.heirs: the next process goes on with every keypair, at its counter.

What happens when both ends are handed over again and again, in the middle of anything, is the
business of `tests.machines.test_sessions`.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from overlay.config import Limits, Settings
from overlay.errors import CapacityError
from overlay.session.heirs import ALL, SESSIONS, gather, spend, take_over
from overlay.session.replay import REJECT_COUNTER
from overlay.session.sessions import Sessions
from tests.support.session_net import PROBE, STRANGER, Link, Network, sealed, two, up


def test_the_next_process_goes_on_under_the_same_keys_with_the_next_counter():
    network, a, b = two()
    a.connect(b)
    network.run(1.0)
    assert a.send(b, b"one")
    counters = {
        side.id: side.sessions.current(other.id).counter for side, other in ((a, b), (b, a))
    }
    handshakes = len(network.sent)
    a.hand_over()
    assert up(a, b)
    assert a.sessions.current(b.id).counter == counters[a.id]
    a.send(b, b"two")
    b.send(a, b"three")
    network.run(2.0)
    assert [payload for _, payload in b.received if payload != PROBE] == [b"one", b"two"]
    assert (b.id, b"three") in a.received
    assert len(network.sent) == handshakes + 2


def test_everything_that_is_shown_of_sessions_is_the_same_but_for_a_handshake_of_ours():
    network, a, b = two()
    c = network.add(3)
    a.knows(c)
    c.knows(a)
    a.connect(b)
    network.run(1.0)
    a.hand_over()
    before = a.sessions.snapshot()
    a.hand_over()
    assert a.sessions.snapshot() == before
    network.link = Link(loss=1.0)
    a.connect(c)
    a.hand_over()
    assert a.sessions.is_connecting(c.id)  # begun anew, with another index
    assert a.sessions.snapshot().indexes[0] == before.indexes[0]


def test_a_half_open_keypair_goes_over_because_its_maker_may_use_it_already():
    network, a, b = two()
    a.connect(b)
    network.run(0.011)  # the initiation has arrived, the response is on its way
    assert len(b.sessions.snapshot().indexes[2]) == 1
    b.hand_over()
    network.run(1.0)
    assert (a.id, PROBE) in b.received
    assert up(a, b)
    assert len(a.sessions.keypairs) == len(b.sessions.keypairs) == 1


def test_what_was_opened_before_is_not_opened_after():
    network, a, b = two()
    a.connect(b)
    network.run(1.0)
    a.send(b, b"once")
    network.run(2.0)
    seen = [datagram for source, _, datagram in network.sent if source == a.endpoint]
    b.hand_over()
    before, received = b.sessions.snapshot(), list(b.received)
    for datagram in seen:
        b.on_datagram(datagram, STRANGER)
    assert b.received == received
    assert b.sessions.snapshot() == before


def test_the_old_process_seals_nothing_more():
    network, a, b = two()
    a.connect(b)
    network.run(1.0)
    keypair = a.sessions.current(b.id)
    a.hand_over()
    assert not keypair.usable(network.now)
    with pytest.raises(CapacityError):
        sealed(keypair, b"twice")
    assert keypair.counter == REJECT_COUNTER


def test_windows_of_a_peers_other_lanes_go_over():
    network, a, b = two()
    a.connect(b)
    network.run(1.0)
    a.sessions.set_lanes(b.id, 3)
    of_lanes = {index: one for index, one in a.sessions.keypairs.items() if one.lane}
    assert len(of_lanes) == 2
    for one in of_lanes.values():
        assert one.replay.accept(7)
    a.hand_over()
    assert {index for index, one in a.sessions.keypairs.items() if one.lane} == of_lanes.keys()
    for index in of_lanes:
        assert not a.sessions.keypairs[index].replay.check(7)
        assert a.sessions.keypairs[index].replay.check(8)


def test_where_there_is_room_for_fewer_half_open_keypairs_the_oldest_go():
    network = Network()
    b = network.add(1)
    others = [network.add(number) for number in range(2, 6)]
    b.knows(*others)
    for other in reversed(others):  # those that are known first call last
        other.knows(b)
        network.now += 0.001
        other.connect(b)
    network.link = Link(loss=1.0)
    network.run(0.02)
    assert len(b.sessions.snapshot().indexes[2]) == 4
    handed = SESSIONS.read(gather(b.sessions))
    spend(b.sessions)
    fewer = Sessions(
        **{**b._arguments, "settings": replace(Settings(), limits=Limits(half_open=2))}
    )
    take_over(fewer, handed)
    fewer.check_invariants()
    made = sorted(one.created_at for one in b.sessions.table.half_open())
    assert sorted(one.created_at for one in fewer.table.half_open()) == made[2:]
    assert made[1] < made[2]


def test_stamps_and_copies_go_over():
    network, a, b = two()
    a.connect(b)
    network.run(1.0)
    stamp = a.sessions.voice.stamp(-1)
    a.hand_over()
    assert a.sessions.voice.stamp(-1) == stamp + 1
    [initiation] = [data for source, _, data in network.sent if source == a.endpoint][:1]
    b.hand_over()
    before = b.sessions.snapshot()
    b.on_datagram(initiation, a.endpoint)
    assert "seen before" in str(b.refused[-1])
    assert b.sessions.snapshot() == before
    assert ALL.put is None
