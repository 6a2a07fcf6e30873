"""Claims are a semilattice; states follow from them; evidence is counted."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.gossip.member import LOSS_WINDOW, Members
from overlay.wire.claims import ClaimState
from tests.support.gossips import DEAD, READY, SUSPECT, TIMING, claim, node_id

A, B = node_id(1), node_id(2)
STATES = st.sampled_from(ClaimState)
CLAIMS = st.lists(st.builds(claim, st.sampled_from([A, B]), STATES, st.integers(0, 3)), max_size=8)
LIMIT = TIMING.refute_within


def make(claims=(), now=0.0):
    members = Members(TIMING)
    for node in (A, B):
        members.add(node, 1, 0.0)
    members.told = True
    for each in claims:
        members.merge(each, now)
    members.check_invariants()
    return members


def shown(members):
    return [members.claim(node).rank for node in (A, B)], members.root


@given(CLAIMS)
def test_the_greatest_claim_of_each_member_holds(claims):
    expected = [
        max([(1, 0, 0), *(one.rank for one in claims if one.node == node)]) for node in (A, B)
    ]
    assert shown(make(claims))[0] == expected


@given(CLAIMS, CLAIMS)
def test_merging_claims_is_commutative(left, right):
    assert shown(make(left + right)) == shown(make(right + left))


@given(CLAIMS, CLAIMS, CLAIMS)
def test_merging_claims_is_associative(first, second, third):
    both = make(first + second)
    both_claims = [both.claim(node) for node in (A, B)]
    other = make(second + third)
    other_claims = [other.claim(node) for node in (A, B)]
    assert shown(make(both_claims + third)) == shown(make(first + other_claims))


@given(CLAIMS)
def test_merging_claims_is_idempotent(claims):
    members = make(claims)
    before = shown(members)
    assert not any(members.merge(one, 1.0) for one in claims)
    assert shown(members) == before


def test_suspicion_and_refutation_go_back_and_forth_by_incarnations():
    members = make()
    assert members.state(A, 1.0) is READY
    for incarnation in range(3):
        assert members.merge(claim(A, ClaimState.SUSPECT, incarnation), 1.0)
        assert members.state(A, 1.0) is SUSPECT
        assert not members.merge(claim(A, ClaimState.ALIVE, incarnation), 1.0)
        assert members.merge(claim(A, ClaimState.ALIVE, incarnation + 1), 1.0)
        assert members.state(A, 1.0) is READY
    assert members.root != make().root
    assert members.notable() == [A]


def test_word_of_a_death_counts_at_once_only_if_there_was_suspicion():
    members = make([claim(A, ClaimState.SUSPECT)], now=1.0)
    members.merge(claim(A, ClaimState.DEAD), 1.0 + LIMIT)
    members.merge(claim(B, ClaimState.DEAD), 1.0 + LIMIT)
    assert members.state(A, 1.0 + LIMIT) is DEAD
    assert members.state(B, 1.0 + LIMIT) is SUSPECT
    assert members.next_sentence() == 1.0 + 2 * LIMIT
    assert members.take_sentenced(1.1 + LIMIT) == []
    assert members.take_sentenced(1.0 + 2 * LIMIT) == [B]
    assert members.state(B, 1.0 + 2 * LIMIT) is DEAD


def test_who_contradicts_in_time_was_never_dead():
    members = make([claim(A, ClaimState.DEAD)], now=1.0)
    members.merge(claim(A, ClaimState.ALIVE, 1), 2.0)
    assert members.state(A, 100.0) is READY
    assert members.next_sentence() is None


def test_the_time_to_contradict_does_not_run_while_this_node_sleeps():
    members = make([claim(A, ClaimState.DEAD)], now=1.0)
    members.postpone(10.0)
    assert members.state(A, 1.0 + LIMIT) is SUSPECT
    assert members.next_sentence() == 11.0 + LIMIT
    members.check_invariants()


def test_a_later_boot_clears_everything_and_an_earlier_one_is_not_heard():
    members = make([claim(A, ClaimState.DEAD, 2)], now=1.0)
    assert members.add(A, 2, 5.0)
    assert members.state(A, 5.0) is READY
    assert members.root == make().root
    assert not members.merge(claim(A, ClaimState.DEAD, 9), 6.0)
    assert not members.merge(claim(A, ClaimState.DEAD, boot=3), 6.0)  # its record comes first
    assert not members.add(A, 2, 7.0)
    members.check_invariants()


def test_who_was_never_heard_is_suspect_until_somebody_has_told_what_is_believed():
    members = Members(TIMING)
    members.add(A, 1, 0.0)
    assert members.state(A, 1.0) is SUSPECT
    members.told = True
    assert members.state(A, 1.0) is READY
    assert members.change(A, 1.0) is None  # that is no news to anybody
    members.on_heard(A, 2.0)
    assert members.change(A, 2.5) == (A, READY, 0.5)
    assert members.change(A, 2.5) is None


def test_the_proof_that_was_checked_is_kept():
    members = make([claim(A, ClaimState.ALIVE, 1)])
    forged = claim(A, ClaimState.SUSPECT, 1)._replace(proof=bytes(64))
    members.merge(forged, 1.0)
    assert members.claim(A).proof == claim(A, ClaimState.ALIVE, 1).proof


def test_what_is_known_of_a_member_goes_with_it():
    members = make([claim(A, ClaimState.DEAD, 1)])
    members.remove(A)
    members.remove(A)
    assert (A in members, len(members), members.root) == (False, 1, make().root)
    assert members.view(A, 1.0) is None
    assert not members.merge(claim(A, ClaimState.DEAD), 1.0)
    assert not members.on_heard(A, 1.0)
    members.on_probed(A, True)
    members.check_invariants()


def test_round_trips_are_smoothed_and_losses_counted_over_a_window():
    members = make()
    assert members.view(A, 1.0).loss is None
    members.on_probed(A, True, 0.08)
    members.on_probed(A, True, 0.16)
    assert members.view(A, 1.0).rtt == members.round_trip(A) == pytest.approx(0.09)
    assert members.round_trip(B) == members.round_trip(node_id(99)) == 0.0
    members.on_probed(A, False)
    assert members.view(A, 1.0).loss == pytest.approx(1 / 3)
    assert members.view(A, 1.0).reached
    members.on_probed(A, False)
    assert not members.view(A, 1.0).reached
    members.on_session(A)
    assert members.view(A, 1.0).reached
    for answered in itertools.islice(itertools.cycle([True, False, False, False]), 40):
        members.on_probed(A, answered)
    assert members.view(A, 1.0).loss == 0.75
    for _ in range(LOSS_WINDOW):
        members.on_probed(A, True)
    assert members.view(A, 1.0).loss == 0.0
    members.check_invariants()


def test_evidence_is_dated_by_the_latest():
    members = make()
    assert members.view(A, 9.0).seen is None
    assert members.on_heard(A, 5.0)
    assert not members.on_heard(A, 4.0)
    assert members.view(A, 9.0).seen == 4.0
    assert members.heard_at(A) == 5.0


def test_who_contradicts_is_no_longer_out_of_reach_until_probes_fail_again():
    members = make([claim(A, ClaimState.SUSPECT, 0)])
    for _ in range(3):
        members.on_probed(A, False)
    assert not members.view(A, 1.0).reached
    members.merge(claim(A, ClaimState.ALIVE, 1), 2.0)
    assert (members.view(A, 2.0).state, members.view(A, 2.0).reached) == (READY, True)
    for _ in range(2):
        members.on_probed(A, False)
    assert not members.view(A, 4.0).reached
