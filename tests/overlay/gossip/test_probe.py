"""Probes under way: what is next, and when."""

from __future__ import annotations

from overlay.gossip.probe import LIMIT, NACK_SHARE, Probes, Step
from tests.support.gossips import node_id

A, B, C = node_id(1), node_id(2), node_id(3)


def steps(probes, now):
    return [(pending.node, step) for pending, step in probes.due(now)]


def test_a_probe_is_repeated_then_others_are_asked_and_then_it_is_judged():
    probes = Probes()
    probes.start(A, 1.0, 10.0)
    assert probes.probes(A)
    assert (probes.next_deadline(), steps(probes, 10.4)) == (10.5, [])
    assert steps(probes, 10.5) == [(A, Step.REPEAT)]
    assert (probes.next_deadline(), steps(probes, 11.0)) == (11.0, [(A, Step.INDIRECT)])
    assert steps(probes, 11.9) == []
    assert steps(probes, 12.0) == [(A, Step.VERDICT)]
    assert (len(probes), probes.next_deadline()) == (0, None)


def test_an_answer_ends_it_once_and_only_from_whom_was_asked():
    probes = Probes()
    sequence = probes.start(A, 1.0, 10.0, timed=True)
    assert probes.on_reply(B, sequence) is None
    assert probes.on_reply(A, sequence + 1) is None
    assert probes.on_reply(A, sequence).timed
    assert probes.on_reply(A, sequence) is None
    assert not probes.probes(A)


def test_what_was_sent_twice_is_not_timed():
    probes = Probes()
    sequence = probes.start(A, 1.0, 10.0, timed=True)
    probes.due(10.5)
    assert not probes.on_reply(A, sequence).timed


def test_anything_heard_after_it_was_sent_speaks_for_the_member():
    probes = Probes()
    probes.start(A, 1.0, 10.0)
    probes.on_heard(B, 11.0)
    probes.on_heard(A, 9.9)
    ((pending, _),) = probes.due(10.5)
    assert not pending.heard
    probes.on_heard(A, 10.6)
    assert pending.heard


def test_helpers_that_say_nothing_at_all_are_counted():
    probes = Probes()
    sequence = probes.start(A, 1.0, 10.0)
    probes.due(10.5)
    ((pending, _),) = probes.due(11.0)
    pending.helpers = {B: False, C: False}
    probes.on_help(A, sequence, reached=True)  # was not asked
    probes.on_help(B, sequence + 9, reached=True)  # about what?
    assert (pending.silent_helpers, pending.heard) == (2, False)
    probes.on_help(B, sequence, reached=False)
    assert (pending.silent_helpers, pending.heard) == (1, False)
    probes.on_help(C, sequence, reached=True)
    assert (pending.silent_helpers, pending.heard) == (0, True)


def test_who_helps_says_not_yet_before_the_asker_gives_up():
    probes = Probes()
    sequence = probes.help(A, (B, 77), 1.0, 10.0)
    assert not probes.probes(A)  # not of its own round
    assert probes.next_deadline() == 10.0 + NACK_SHARE
    ((pending, step),) = probes.due(10.8)
    assert (pending.asker, step) == ((B, 77), Step.NACK)
    assert probes.on_reply(A, sequence) is None


def test_a_probe_that_was_asked_for_is_forgotten_in_the_end():
    probes = Probes()
    sequence = probes.ask(A, 42, 10.0)
    assert not probes.probes(A)
    assert steps(probes, 20.0) == [(A, Step.FORGET)]
    assert probes.on_reply(A, sequence) is None


def test_who_slept_gives_everybody_the_time_back():
    probes = Probes()
    probes.start(A, 1.0, 10.0)
    probes.start(B, 4.0, 10.0)
    probes.postpone(100.0, 110.6)
    assert steps(probes, 110.9) == []
    assert steps(probes, 111.1) == [(A, Step.REPEAT)]
    assert probes.next_deadline() > 111.1


def test_the_table_is_bounded_for_those_who_ask():
    probes = Probes()
    for number in range(LIMIT):
        assert not probes.full
        probes.help(A, (B, number), 1.0, 0.0)
    assert probes.full
    probes.drop(A)
    assert len(probes) == 0
