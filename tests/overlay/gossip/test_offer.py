"""An offer is repeated until confirmed, but not for ever."""

from __future__ import annotations

import pytest

from overlay.config import Timing
from overlay.gossip.offer import Offer
from overlay.types import NodeId
from overlay.wire.messages import Digest, DigestEntry, Want

A = NodeId(b"a" * 32)
B = NodeId(b"b" * 32)
TIMING = Timing(request_retry=0.5, leave_after=3.0)
ENTRIES = (DigestEntry(b"k", 1, bytes(8)),)
DIGEST = Digest(ENTRIES, complete=False)


@pytest.fixture
def offer():
    return Offer(ENTRIES, [A, B], TIMING, 10.0)


def test_it_is_made_to_all_and_repeated_to_those_that_did_not_confirm(offer):
    assert offer.current() == [(A, DIGEST), (B, DIGEST)]
    assert offer.next_deadline() == 10.5
    assert offer.on_deadline(10.4) == []
    assert offer.on_want(A, Want(())) is None
    assert offer.on_deadline(10.5) == [(B, DIGEST)]
    assert offer.next_deadline() == 11.0
    assert (offer.confirmed, offer.done) == (1, False)


def test_a_want_for_keys_is_not_a_confirmation(offer):
    assert offer.on_want(A, Want((b"k",))) is None
    assert offer.confirmed == 0


def test_it_is_done_when_all_have_confirmed(offer):
    offer.on_want(A, Want(()))
    offer.on_want(A, Want(()))
    offer.on_want(B, Want(()))
    assert (offer.confirmed, offer.done, offer.next_deadline()) == (2, True, None)
    assert offer.on_deadline(20.0) == []


def test_it_is_done_when_time_is_up(offer):
    offer.on_want(A, Want(()))
    at = 10.0
    while (deadline := offer.next_deadline()) is not None:
        assert deadline > at
        at = deadline
        offer.on_deadline(at)
    assert at == 13.0
    assert (offer.confirmed, offer.done) == (1, True)


def test_a_stranger_cannot_confirm(offer):
    offer.on_want(NodeId(b"x" * 32), Want(()))
    assert offer.confirmed == 0


def test_a_member_that_is_gone_is_not_waited_for(offer):
    offer.drop(A)
    offer.on_want(B, Want(()))
    assert (offer.confirmed, offer.done) == (1, True)


def test_with_nobody_to_tell_it_is_done_at_once():
    assert Offer(ENTRIES, [], TIMING, 0.0).done


def test_a_long_offer_is_confirmed_part_by_part():
    entries = [DigestEntry(b"%040d" % n, 1, bytes(8)) for n in range(1200)]
    offer = Offer(entries, [A], TIMING, 0.0)
    parts = [offer.current()[0][1]]
    while (following := offer.on_want(A, Want(()))) is not None:
        assert offer.current() == [(A, following)]
        parts.append(following)
    assert len(parts) > 1
    assert [entry for part in parts for entry in part.entries] == entries
    assert (offer.confirmed, offer.done) == (1, True)
