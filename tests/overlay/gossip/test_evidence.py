"""Tests of overlay.gossip.evidence."""

from __future__ import annotations

from overlay.gossip.evidence import Evidence
from overlay.views import NodeState
from overlay.wire.claims import ClaimState


def test_who_started_and_lives_is_plain():
    evidence = Evidence()
    assert evidence.plain
    evidence.heard_at = evidence.rtt = 1.0
    assert evidence.plain
    evidence.state = ClaimState.SUSPECT
    assert not evidence.plain
    evidence.state, evidence.incarnation = ClaimState.ALIVE, 1
    assert not evidence.plain


def test_all_of_it_is_handed_over():
    assert set(Evidence.HANDED.codecs) == set(Evidence.__slots__)
    one, other = Evidence(), Evidence()
    one.state, one.heard_at, one.rtt, one.misses = ClaimState.DEAD, 3.0, 0.01, 2
    one.reported, one.proof, one.incarnation = NodeState.SUSPECT, b"p", 4
    other.HANDED.put(other, one.HANDED.read(one.HANDED.write(one)))
    assert [getattr(other, name) for name in Evidence.__slots__] == [
        getattr(one, name) for name in Evidence.__slots__
    ]
