"""Offers: repeated until each member has said that it lacks nothing."""

from __future__ import annotations

from overlay.config import Timing
from overlay.gossip.offer import Offer
from overlay.gossip.sync import CHUNK
from overlay.types import NodeId
from overlay.wire.messages import Have, Want

A, B = NodeId(b"a" * 32), NodeId(b"b" * 32)
X = b"identity"
NOTHING = Want(b"")


def make_offer(ids=(X,), nodes=(A, B)):
    return Offer(ids, nodes, Timing(), 0.0)


def test_every_member_is_offered_the_same():
    assert make_offer().current() == [(node, Have(X, confirm=True)) for node in (A, B)]


def test_an_empty_want_confirms_and_another_does_not():
    offer = make_offer()
    assert offer.on_want(A, Want(X)) is None
    assert offer.confirmed == 0
    offer.on_want(A, NOTHING)
    offer.on_want(A, NOTHING)
    assert (offer.confirmed, offer.done) == (1, False)
    offer.on_want(B, NOTHING)
    assert (offer.confirmed, offer.done, offer.next_deadline()) == (2, True, None)


def test_a_long_offer_is_confirmed_part_by_part():
    ids = [number.to_bytes(8, "big") for number in range(CHUNK // 8 + 1)]
    offer = make_offer(ids, nodes=(A,))
    ((_, first),) = offer.current()
    second = offer.on_want(A, NOTHING)
    assert len(first.ids) == CHUNK
    assert second == Have(ids[-1], confirm=True)
    assert offer.current() == [(A, second)]
    assert offer.on_want(A, NOTHING) is None
    assert offer.done


def test_it_is_repeated_to_whoever_has_not_confirmed_until_time_is_up():
    timing, offer = Timing(), make_offer()
    offer.on_want(B, NOTHING)
    assert offer.on_deadline(timing.request_retry - 0.01) == []
    rounds, now = 0, 0.0
    while (now := offer.next_deadline()) is not None:
        repeated = offer.on_deadline(now)
        rounds += bool(repeated)
        assert all(node == A for node, _ in repeated)
        last = now
    assert last == timing.leave_after
    assert rounds == round(timing.leave_after / timing.request_retry) - 1
    assert (offer.done, offer.confirmed) == (True, 1)


def test_who_is_no_member_any_more_is_not_waited_for():
    offer = make_offer()
    offer.drop(A)
    offer.drop(A)
    offer.on_want(B, NOTHING)
    assert offer.done


def test_an_offer_of_nothing_to_nobody_is_over():
    assert make_offer(ids=(), nodes=()).done
