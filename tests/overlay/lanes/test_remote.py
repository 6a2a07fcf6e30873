"""One peer as a worker sees it: what is proven is used, the best of it, and nothing else."""

from __future__ import annotations

import math
from itertools import count

import pytest

from overlay.lanes.messages import Key, Peer
from overlay.lanes.remote import (
    CONFIRM_AFTER,
    CONFIRM_TRIES,
    CONFIRM_WAIT,
    FAREWELL,
    PROBE_WAITS,
    Probing,
    Remote,
    ViaFirst,
)
from overlay.session.transport import Keypair
from overlay.types import Endpoint, NodeId

NODE = NodeId(b"n" * 32)
LIFE = 180.0


class Bench:
    """Lane 3 of a node, a peer with four lanes, and a clock."""

    def __init__(self, *, lanes: int = 4, up: int = 0xF) -> None:
        self.keypairs: dict[int, Keypair] = {}
        self.remote = Remote(NODE, 3, self.keypairs, count(100).__next__)
        self.now = 10.0
        self.tell(lanes=lanes, up=up)

    def tell(self, *, host: str = "192.0.2.1", port: int = 7000, lanes: int = 4, up: int = 15):
        self.remote.on_peer(
            Peer(NODE, host, port, 1400, lanes, up, live=True, singly=False), self.now
        )

    def key(self, index: int, *, use: bool = True) -> None:
        keys = bytes((index + place) % 256 for place in range(1024))
        self.remote.on_key(Key(NODE, index, index + 1000, 1, self.now, self.now + LIFE, keys))
        if use:
            self.remote.on_use(index, self.now)

    def probes(self) -> list[Probing]:
        probes = self.remote.on_deadline(self.now)
        self.remote.check_invariants()
        return probes

    def answer(self, *probes: Probing) -> None:
        for probe in probes:
            self.remote.on_answered(probe.token, self.now)

    def way(self) -> tuple[int, int, Endpoint] | None:
        path = self.remote.path
        if path.keypair is None:
            return None
        assert path.endpoint is not None
        return path.keypair.local_index, path.keypair.lane, path.endpoint


DIRECT, SHARED = 0x33, 0x30


def test_two_ways_are_probed_and_none_is_used_before_an_answer() -> None:
    bench = Bench()
    bench.key(7)
    probes = bench.probes()
    assert [(probe.keypair.lane, probe.endpoint) for probe in probes] == [
        (SHARED, ("192.0.2.1", 7000)),
        (DIRECT, ("192.0.2.1", 7003)),
    ]
    assert [isinstance(probe.endpoint, ViaFirst) for probe in probes] == [True, False]
    assert bench.way() is None
    assert bench.remote.path.endpoint is not None, "packets must wait, not be refused"
    assert not bench.remote.settled
    bench.answer(probes[0])
    assert bench.way() == (7, SHARED, ("192.0.2.1", 7000))
    bench.answer(probes[1])
    assert bench.way() == (7, DIRECT, ("192.0.2.1", 7003))
    assert bench.remote.path.path_mtu == 1400
    assert bench.remote.settled


def test_an_answer_to_nothing_proves_nothing() -> None:
    bench = Bench()
    bench.key(7)
    bench.probes()
    bench.remote.on_answered(99, bench.now)
    assert bench.way() is None


def test_everything_any_lane_of_the_peer_seals_is_opened_at_once() -> None:
    bench = Bench()
    bench.key(7, use=False)
    assert sorted(bench.keypairs) == [7 | (lane << 4 | 3) << 32 for lane in range(4)]
    bench.tell(lanes=6)
    assert len(bench.keypairs) == 6
    bench.remote.clear()
    assert bench.keypairs == {}


def test_unanswered_probes_become_rare_and_never_stop() -> None:
    bench = Bench(lanes=1)
    bench.key(7)
    waits = []
    for _ in range(len(PROBE_WAITS) + 2):
        assert len(bench.probes()) == 1
        waits.append(bench.remote.next_deadline() - bench.now)
        bench.now = bench.remote.next_deadline()
        if bench.now > 10.0 + LIFE:
            break
    assert waits[: len(PROBE_WAITS)] == pytest.approx(PROBE_WAITS)


def test_the_old_keypair_seals_until_the_new_one_is_proven() -> None:
    bench = Bench()
    bench.key(7)
    bench.answer(*bench.probes())
    bench.now += 120
    bench.key(8)
    shared, direct = bench.probes()
    assert bench.way() == (7, DIRECT, ("192.0.2.1", 7003))
    bench.answer(shared)
    assert bench.way() == (7, DIRECT, ("192.0.2.1", 7003)), "direct is better, also when older"
    bench.answer(direct)
    assert bench.way() == (8, DIRECT, ("192.0.2.1", 7003))


def test_an_expired_keypair_is_not_used_and_its_keys_go() -> None:
    bench = Bench()
    bench.key(7)
    bench.answer(*bench.probes())
    bench.now += 120
    bench.key(8)
    bench.answer(bench.probes()[0])
    bench.now += 61
    bench.probes()
    assert bench.way() == (8, SHARED, ("192.0.2.1", 7000))
    assert {index & 0xFFFF for index in bench.keypairs} == {8}


def test_a_keypair_the_daemon_let_go_still_opens_for_a_while() -> None:
    bench = Bench()
    bench.key(7)
    bench.answer(*bench.probes())
    bench.remote.on_key_gone(7, bench.now)
    assert bench.way() is not None
    bench.now += FAREWELL - 0.1
    bench.probes()
    assert bench.keypairs
    bench.now += 0.2
    bench.probes()
    assert bench.keypairs == {}
    assert bench.way() is None


def test_a_keypair_is_made_once_so_that_its_counters_go_on() -> None:
    bench = Bench()
    bench.key(7)
    first = bench.keypairs[7 | 0x33 << 32]
    bench.tell(up=0x7)
    bench.tell(up=0xF)
    assert bench.keypairs[7 | 0x33 << 32] is first
    bench.key(7)
    assert bench.keypairs[7 | 0x33 << 32] is first, "also when it is told twice"


def test_a_new_address_must_be_proven_for_the_direct_way_alone() -> None:
    bench = Bench()
    bench.key(7)
    bench.answer(*bench.probes())
    bench.tell(host="192.0.2.9")
    assert bench.way() == (7, SHARED, ("192.0.2.9", 7000))
    (again,) = bench.probes()
    assert again.endpoint == ("192.0.2.9", 7003)
    bench.answer(again)
    assert bench.way() == (7, DIRECT, ("192.0.2.9", 7003))


def test_late_answers_for_the_old_address_prove_nothing() -> None:
    bench = Bench()
    bench.key(7)
    shared, direct = bench.probes()
    bench.answer(shared)
    bench.tell(host="192.0.2.9")
    bench.answer(direct)
    assert bench.way() == (7, SHARED, ("192.0.2.9", 7000))


def test_a_lane_of_the_peer_that_is_down_is_left_at_once() -> None:
    bench = Bench()
    bench.key(7)
    bench.answer(*bench.probes())
    bench.tell(up=0x7)
    assert bench.way() == (7, SHARED, ("192.0.2.1", 7000))
    assert bench.probes() == []
    bench.tell(up=0xF)
    bench.answer(*bench.probes())
    assert bench.way() == (7, DIRECT, ("192.0.2.1", 7003))


def test_another_lane_that_is_down_changes_nothing() -> None:
    bench = Bench()
    bench.key(7)
    bench.answer(*bench.probes())
    bench.tell(up=0xD)
    assert bench.way() == (7, DIRECT, ("192.0.2.1", 7003))
    assert bench.probes() == []


def test_traffic_on_a_direct_way_is_confirmed_and_silence_ends_it() -> None:
    bench = Bench()
    bench.key(7)
    bench.answer(*bench.probes())
    bench.now += CONFIRM_AFTER
    assert bench.probes() == [], "nothing was sent, so there is nothing to confirm"
    bench.remote.path.tx_bytes += 1
    bench.now += CONFIRM_AFTER
    (probe,) = bench.probes()
    bench.answer(probe)
    assert bench.way() == (7, DIRECT, ("192.0.2.1", 7003))
    bench.remote.path.tx_bytes += 1
    bench.now += CONFIRM_AFTER
    for _ in range(CONFIRM_TRIES):
        assert len(bench.probes()) == 1
        assert bench.way() == (7, DIRECT, ("192.0.2.1", 7003))
        bench.now += CONFIRM_WAIT
    bench.probes()
    assert bench.way() == (7, SHARED, ("192.0.2.1", 7000))
    bench.answer(*bench.probes())
    assert bench.way() == (7, DIRECT, ("192.0.2.1", 7003))


def test_without_an_endpoint_nothing_is_sent() -> None:
    bench = Bench()
    bench.tell(host="", port=0)
    bench.key(7)
    assert bench.probes() == []
    assert bench.remote.path.endpoint is None
    assert bench.remote.next_deadline() > bench.now


def test_without_a_session_there_is_nothing_to_do() -> None:
    bench = Bench()
    assert bench.remote.next_deadline() == math.inf
    bench.key(7)
    bench.remote.on_use(0, bench.now)
    assert bench.probes() == []
