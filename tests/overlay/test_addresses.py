"""Tests of overlay.addresses: which address of a peer comes next."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from overlay.addresses import ANSWERED, Addresses
from overlay.types import Endpoint, NodeId

PEER = NodeId(bytes(32))
ONE, TWO, THREE, FOUR = (Endpoint(f"192.0.2.{n}", 1) for n in range(1, 5))


def some(*told: Endpoint, without: frozenset[Endpoint] = frozenset()) -> Addresses:
    addresses = Addresses(lambda endpoint: endpoint not in without)
    addresses.tell(PEER, told)
    return addresses


def test_where_it_answered_comes_behind_what_its_record_says() -> None:
    addresses = some(ONE)
    for endpoint in (TWO, THREE, FOUR, THREE):
        addresses.answer(PEER, endpoint)
    assert addresses.of(PEER) == (ONE, THREE, FOUR)
    assert len(addresses.answered[PEER]) == ANSWERED


def test_the_same_record_again_is_no_news() -> None:
    addresses = some(ONE)
    assert not addresses.tell(PEER, (ONE,))
    assert addresses.tell(PEER, (TWO,))


def test_what_must_not_be_used_is_not_offered_and_comes_back_when_it_may() -> None:
    bad: set[Endpoint] = {ONE, TWO}
    addresses = Addresses(lambda endpoint: endpoint not in bad)
    addresses.tell(PEER, (ONE, TWO))
    assert addresses.of(PEER) == ()
    assert addresses.after(PEER, ONE) is None
    bad.remove(TWO)
    assert addresses.after(PEER, ONE) == TWO


@given(st.lists(st.sampled_from([ONE, TWO, THREE, FOUR]), unique=True, min_size=1))
def test_all_come_in_turn_wherever_one_begins(told: list[Endpoint]) -> None:
    addresses = some(*told)
    tried, seen = addresses.after(PEER, None), set()
    for _ in told:
        seen.add(tried)
        tried = addresses.after(PEER, tried)
    assert seen == set(told)


def test_a_handshake_is_repeated_at_the_next_address_when_one_had_its_time() -> None:
    addresses = some(ONE, TWO)
    addresses.begin(PEER, ONE, 0.0)
    assert list(addresses.rotate(lambda _: True, 1.0, 0.5)) == []
    assert list(addresses.rotate(lambda _: True, 1.0, 1.0)) == [(PEER, TWO)]
    assert list(addresses.rotate(lambda _: True, 1.0, 2.0)) == [(PEER, ONE)]
    assert list(addresses.rotate(lambda _: False, 1.0, 9.0)) == []
    assert list(addresses.rotate(lambda _: True, 1.0, 99.0)) == [], "it is over"


def test_one_address_alone_is_not_rotated() -> None:
    addresses = some(ONE)
    addresses.begin(PEER, ONE, 0.0)
    assert list(addresses.rotate(lambda _: True, 1.0, 5.0)) == []


def test_who_is_dropped_is_known_by_where_it_answered_and_who_is_forgotten_by_nothing() -> None:
    addresses = some(ONE)
    addresses.answer(PEER, TWO)
    addresses.drop(PEER)
    assert addresses.of(PEER) == (TWO,)
    addresses.forget(PEER)
    assert addresses.of(PEER) == ()
