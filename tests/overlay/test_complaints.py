"""Tests of overlay.complaints: a bounded book that forgets, and says little of much."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from overlay.complaints import (
    BOOK_MAX,
    COMPLAINTS_MAX,
    EVIDENCE_MAX,
    KEPT_FOR,
    Complaint,
    Complaints,
)
from overlay.faults import FAULTS, Fault
from overlay.types import NodeId


def node(number: int) -> NodeId:
    return NodeId(number.to_bytes(32, "big"))


def test_what_is_repeated_is_counted_and_keeps_its_beginning() -> None:
    book = Complaints()
    book.note(node(1), Fault.FORGED_RECORD, 10.0, "the first")
    book.note(node(1), Fault.FORGED_RECORD, 12.0, "the second", times=3)
    (entry,) = book.entries.values()
    assert entry == (4, 10.0, 12.0, "the second")
    assert book.take_news() == [Complaint(node(1), Fault.FORGED_RECORD)]
    assert book.take_news() == []


def test_it_is_forgotten_ten_minutes_after_the_last_time() -> None:
    book = Complaints()
    book.note(node(1), Fault.FORGED_RECORD, 0.0)
    book.note(node(2), Fault.FORGED_RECORD, 1.0)
    book.note(node(1), Fault.FORGED_RECORD, 2.0)
    book.expire(1.0 + KEPT_FOR)
    assert [one.node for one in book.entries] == [node(1)]
    book.expire(2.0 + KEPT_FOR)
    assert not book.entries


def test_evidence_is_short_and_can_be_printed() -> None:
    book = Complaints()
    book.note(node(1), Fault.MALFORMED_MESSAGE, 0.0, "\x1b[2J\n" + "x" * 1000)
    (entry,) = book.entries.values()
    assert entry.evidence.isprintable()
    assert len(entry.evidence) <= EVIDENCE_MAX


def test_one_liar_does_not_hide_the_others_from_the_record() -> None:
    book = Complaints()
    for fault in FAULTS:
        book.note(node(1), fault, 1.0)
    book.note(node(2), Fault.FORGED_DEED, 2.0)
    told = book.told()
    assert len(told) == COMPLAINTS_MAX
    assert Complaint(node(2), Fault.FORGED_DEED) in told


def test_what_was_told_is_not_replaced_by_repetitions() -> None:
    book = Complaints()
    for number in range(COMPLAINTS_MAX):
        book.note(node(number), Fault.FORGED_RECORD, float(number))
    told = book.told()
    for number in range(50):
        book.note(node(100 + number), Fault.FORGED_RECORD, 20.0 + number)
        book.note(node(number % 8), Fault.FORGED_RECORD, 20.0 + number)
        assert book.told() == told


def test_a_node_that_is_gone_is_forgotten() -> None:
    book = Complaints()
    book.note(node(1), Fault.FORGED_RECORD, 1.0)
    book.note(node(2), Fault.FORGED_RECORD, 1.0)
    book.forget(node(1))
    assert [one.node for one in book.entries] == [node(2)]


@settings(max_examples=30)
@given(st.lists(st.tuples(st.integers(0, 600), st.sampled_from(FAULTS), st.floats(0, 400))))
def test_it_stays_within_its_bounds(notes: list[tuple[int, Fault, float]]) -> None:
    book, now = Complaints(), 0.0
    for number, fault, wait in notes:
        now += wait
        book.expire(now)
        book.note(node(number), fault, now, "seen")
        book.check_invariants()
    for number in range(2 * BOOK_MAX):
        book.note(node(number), Fault.FORGED_DEED, now)
    book.check_invariants()
    assert len(book.entries) == BOOK_MAX
    assert len(book.news) <= BOOK_MAX
