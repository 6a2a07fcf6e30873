"""Which keypair seals and which open: each transition, and both ends starting at once."""

from __future__ import annotations

import pytest

from overlay.session.keyring import FAREWELL, Keyring
from overlay.session.suites import Suite
from overlay.session.transport import Keypair
from tests.support.session_net import (
    Link,
    Network,
    Node,
    two,
    up,
)


class Indexes:
    """An index table that only notes what it is told."""

    def __init__(self) -> None:
        self.known: set[int] = set()

    def add(self, keypair: Keypair) -> None:
        self.known.add(keypair.local_index)

    def confirm(self, keypair: Keypair) -> None:
        assert keypair.local_index in self.known

    def release(self, index: int) -> None:
        self.known.discard(index)


class Ring:
    """A key ring and its indexes, with keypairs named by their index."""

    def __init__(self, *, wins_ties: bool = False) -> None:
        self.indexes = Indexes()
        self.ring = Keyring(self.indexes, wins_ties=wins_ties)
        self.made: dict[int, Keypair] = {}

    def make(self, index: int, *, initiator: bool = False) -> Keypair:
        self.made[index] = Keypair(
            (b"a" * 32, b"b" * 32),
            suite=Suite.CHACHA20_POLY1305,
            local_index=index,
            remote_index=0,
            initiator=initiator,
            created_at=float(index),
            expires_at=index + 180.0,
        )
        return self.made[index]

    def accept(self, index: int) -> None:
        keypair = self.make(index)
        self.indexes.add(keypair)
        self.ring.accept(keypair)

    def complete(self, index: int) -> None:
        self.ring.complete(self.make(index, initiator=True), index)

    def confirm(self, index: int) -> bool:
        return self.ring.confirm(self.made[index], index)

    def slots(self) -> tuple[int | None, ...]:
        """Indexes of previous, current and next; checks that these and what leaves are known."""
        slots = tuple(pair.local_index if pair else None for pair in self.ring.held())
        held = {index for index in slots if index is not None}
        assert held | set(self.leaving()) == self.indexes.known
        return slots

    def leaving(self) -> list[int]:
        """Indexes of keypairs that still open for a moment, oldest first."""
        return [keypair.local_index for keypair, _ in self.ring.leaving]


def test_a_responder_s_keypair_waits_as_next_until_it_is_confirmed():
    ring = Ring()
    ring.accept(1)
    assert ring.slots() == (None, None, 1)
    assert ring.confirm(1)
    assert ring.made[1].confirmed
    assert ring.slots() == (None, 1, None)


def test_an_initiator_s_keypair_is_current_at_once():
    ring = Ring()
    ring.complete(1)
    assert ring.slots() == (None, 1, None)
    ring.complete(2)
    assert ring.slots() == (1, 2, None)
    ring.complete(3)
    assert ring.slots() == (2, 3, None)


def test_a_newer_initiation_takes_only_the_place_of_next():
    ring = Ring()
    ring.complete(1)
    ring.complete(2)
    ring.accept(3)
    ring.accept(4)
    assert ring.slots() == (1, 2, 4)
    assert not ring.confirm(3)
    assert not ring.made[3].confirmed
    assert ring.confirm(4)
    assert ring.slots() == (2, 4, None)
    assert not ring.confirm(4)


@pytest.mark.parametrize("wins", [True, False])
def test_a_tie_goes_to_the_smaller_id_and_both_keypairs_stay(wins):
    ring = Ring(wins_ties=wins)
    ring.complete(1)
    ring.accept(2)
    ring.complete(3)
    assert ring.slots() == (1, 3, 2)
    assert ring.confirm(2) is not wins
    assert ring.slots() == ((2, 3, None) if wins else (3, 2, None))
    assert ring.made[2].confirmed


def test_an_initiation_after_our_own_handshake_is_no_tie():
    ring = Ring(wins_ties=True)
    ring.accept(1)
    ring.complete(2)
    ring.accept(3)
    assert ring.confirm(3)
    assert ring.slots() == (2, 3, None)


def test_expired_keypairs_go_and_the_others_stay():
    ring = Ring()
    ring.complete(1)
    ring.complete(2)
    ring.accept(3)
    ring.ring.expire(180.9)
    assert ring.slots() == (1, 2, 3)
    ring.ring.expire(181.0)
    assert ring.slots() == (None, 2, 3)
    ring.ring.expire(182.0)
    assert ring.slots() == (None, None, 3)


def test_what_was_previous_opens_for_a_moment_longer():
    ring = Ring()
    for index in (1, 2, 3):
        ring.complete(index)
    assert (ring.slots(), ring.leaving()) == ((2, 3, None), [1])
    ring.ring.expire(3.0 + FAREWELL - 0.1)
    assert (ring.slots(), ring.leaving()) == ((2, 3, None), [1])
    ring.ring.expire(3.0 + FAREWELL)
    assert (ring.slots(), ring.leaving()) == ((2, 3, None), [])


def test_no_more_than_two_keypairs_are_on_their_way_out():
    ring = Ring()
    for index in range(1, 7):
        ring.complete(index)
    assert (ring.slots(), ring.leaving()) == ((5, 6, None), [3, 4])
    ring.accept(7)
    assert ring.confirm(7)
    assert (ring.slots(), ring.leaving()) == ((6, 7, None), [4, 5])
    ring.ring.clear()
    assert (ring.slots(), ring.leaving()) == ((None, None, None), [])


def test_leaving_makes_no_keypair_live_longer():
    ring = Ring()
    ring.complete(1)
    ring.complete(2)
    ring.ring.complete(ring.make(180, initiator=True), 180.0)
    ring.ring.expire(180.9)
    assert (ring.slots(), ring.leaving()) == ((2, 180, None), [1])
    ring.ring.expire(181.0)
    assert ring.leaving() == []


@pytest.mark.parametrize("wins", [True, False])
def test_after_a_crossing_what_was_sealed_before_it_still_opens(wins):
    """Three keypairs within a round trip: the old one, ours, theirs."""
    ring = Ring(wins_ties=wins)
    ring.complete(1)
    ring.accept(2)
    ring.complete(3)
    ring.confirm(2)
    assert 1 in ring.leaving()
    assert set(ring.slots()) == {2, 3, None}


def test_dropping_next_and_clearing_leave_no_index_behind():
    ring = Ring()
    ring.complete(1)
    ring.accept(2)
    ring.ring.drop_next(ring.made[2])
    ring.ring.drop_next(ring.made[2])
    assert ring.slots() == (None, 1, None)
    ring.accept(3)
    ring.ring.clear()
    assert ring.slots() == (None, None, None)


def both_connect(network: Network, a: Node, b: Node) -> None:
    a.connect(b)
    b.connect(a)
    network.run(network.now + 0.1)


@pytest.mark.parametrize("delays", [(0.01, 0.01), (0.001, 0.03)])
@pytest.mark.parametrize("seed", range(10))
def test_crossing_handshakes_leave_both_ends_with_keys_that_work(delays, seed):
    network, a, b = two(seed=seed, link=Link(delay=delays))
    both_connect(network, a, b)
    assert up(a, b)
    a.send(b, b"from a")
    b.send(a, b"from b")
    network.run(0.2)
    assert (a.id, b"from a") in b.received
    assert (b.id, b"from b") in a.received
    assert not a.sessions.is_connecting(b.id)
    assert not b.sessions.is_connecting(a.id)


def test_after_a_crossing_both_seal_under_the_keypair_of_the_smaller_id():
    network, a, b = two()
    both_connect(network, a, b)
    smaller = min(a, b, key=lambda node: node.id)
    larger = a if smaller is b else b
    kept = smaller.sessions.sending_keypair(larger.id, network.now)
    other = larger.sessions.sending_keypair(smaller.id, network.now)
    assert kept.initiator
    assert kept.remote_index == other.local_index
    assert smaller.ups(larger) == 1
