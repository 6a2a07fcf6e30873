"""Liveness follows from direct evidence and time alone."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from overlay.config import Timing
from overlay.gossip.member import LOSS_WINDOW, Answer, Change, Members
from overlay.types import NodeId
from overlay.views import NodeState

A = NodeId(b"a" * 32)
B = NodeId(b"b" * 32)
TIMING = Timing(probe_interval=2.0, suspect_after=6.0, dead_after=30.0)


@pytest.fixture
def members():
    members = Members(TIMING)
    members.add(A, 100.0)
    return members


@pytest.mark.parametrize(
    ("silence", "state"),
    [
        (0.0, NodeState.READY),
        (5.99, NodeState.READY),
        (6.0, NodeState.SUSPECT),
        (29.99, NodeState.SUSPECT),
        (30.0, NodeState.DEAD),
        (3000.0, NodeState.DEAD),
    ],
)
def test_state_follows_from_the_length_of_silence(members, silence, state):
    members.on_heard(A, 200.0)
    assert members.state(A, 200.0 + silence) is state


def test_a_member_never_heard_is_suspect_then_dead(members):
    assert members.state(A, 100.0) is NodeState.SUSPECT
    assert members.changes(129.9) == []
    assert members.next_deadline() == 130.0
    assert members.changes(130.0) == [Change(A, NodeState.DEAD, 30.0)]
    assert members.next_deadline() is None


def test_each_change_is_reported_once(members):
    assert members.on_heard(A, 101.0) == Change(A, NodeState.READY, 1.0)
    assert members.on_heard(A, 102.0) is None
    assert members.changes(108.0) == [Change(A, NodeState.SUSPECT, 6.0)]
    assert members.changes(108.0) == []
    assert members.changes(132.0) == [Change(A, NodeState.DEAD, 30.0)]
    members.add(B, 132.0)
    assert members.changes(162.0) == [Change(B, NodeState.DEAD, 30.0)]
    members.check_invariants(162.0)
    assert members.on_heard(A, 140.0) == Change(A, NodeState.READY, 38.0)
    members.check_invariants(200.0)


def test_evidence_older_than_what_is_known_changes_nothing(members):
    members.on_heard(A, 110.0)
    members.on_heard(A, 105.0)
    assert members.view(A, 112.0).seen == 2.0


def test_a_stranger_leaves_no_trace(members):
    assert members.on_heard(B, 101.0) is None
    assert members.on_probe_reply(B, 1, 101.0) is None
    assert members.view(B, 101.0) is None
    assert B not in members
    assert members.nodes() == [A]


def test_adding_twice_keeps_the_evidence(members):
    members.on_heard(A, 101.0)
    assert not members.add(A, 102.0)
    assert members.view(A, 103.0).seen == 2.0
    members.remove(A)
    members.remove(A)
    assert len(members) == 0


def test_rtt_is_smoothed_by_an_eighth(members):
    members.on_heard(A, 100.0)
    assert members.view(A, 100.0).rtt is None
    for at, rtt in ((101.0, 0.5), (102.0, 0.25)):
        sequence = members.new_probe(A, at)
        assert members.on_probe_reply(A, sequence, at + rtt) == Answer(rtt, None)
    assert members.view(A, 103.0).rtt == 0.5 - 0.25 / 8


def test_a_probe_to_a_silent_member_says_nothing_about_the_path(members):
    """It may have waited for a handshake; the reply still counts as one."""
    sequence = members.new_probe(A, 100.0, token=9)
    assert members.on_probe_reply(A, sequence, 104.0) == Answer(4.0, 9)
    assert members.view(A, 104.0).rtt is None
    assert members.view(A, 104.0).loss == 0.0


def test_a_reply_counts_once(members):
    sequence = members.new_probe(A, 100.0)
    assert members.on_probe_reply(A, sequence, 101.0) is not None
    assert members.on_probe_reply(A, sequence, 101.5) is None
    assert members.on_probe_reply(A, sequence + 1, 101.5) is None


def test_loss_counts_probes_that_had_time_to_be_answered(members):
    assert members.view(A, 100.0).loss is None
    answered = members.new_probe(A, 100.0)
    members.new_probe(A, 101.0)
    members.on_probe_reply(A, answered, 100.1)
    assert members.view(A, 102.9).loss == 0.0
    assert members.view(A, 103.0).loss == 0.5


def test_loss_forgets_all_but_the_last_probes(members):
    for at in range(LOSS_WINDOW):
        members.new_probe(A, 100.0 + at)
    assert members.view(A, 200.0).loss == 1.0
    for at in range(LOSS_WINDOW):
        members.on_probe_reply(A, members.new_probe(A, 200.0 + at), 200.5 + at)
    assert members.view(A, 300.0).loss == 0.0


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["heard", "wait", "add", "remove"]),
        st.sampled_from([A, B]),
        st.floats(0.0, 40.0),
    ),
    max_size=30,
)


@settings(max_examples=100)
@given(EVENTS)
def test_calls_at_the_deadlines_report_every_change(events):
    """A driver that wakes up exactly at `next_deadline` never shows an outdated state."""
    members, now = Members(TIMING), 0.0
    for what, node, wait in events:
        end = now + wait
        while (at := members.next_deadline()) is not None and at <= end:
            before = at
            members.changes(at)
            members.check_invariants(at)
            assert members.next_deadline() is None or members.next_deadline() > before
        now = end
        if what == "heard":
            members.on_heard(node, now)
        elif what == "add":
            members.add(node, now)
        elif what == "remove":
            members.remove(node)
        members.check_invariants(now)
