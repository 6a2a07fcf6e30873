"""Each item is asked for once, of one; and of another if that one does not send it."""

from __future__ import annotations

from overlay.gossip.wanted import LIMIT, OFFERERS, TRIES, WINDOW, Wanted
from overlay.wire.messages import Want
from tests.support.gossips import TIMING, node_id

A, B, C = node_id(1), node_id(2), node_id(3)
RETRY = TIMING.want_retry


def ids(count, first=0):
    return [number.to_bytes(8, "big") for number in range(first, first + count)]


X, Y = ids(2)


def test_what_two_offer_is_asked_of_the_first_alone():
    wanted = Wanted(TIMING)
    wanted.offer(A, X)
    wanted.offer(B, X)
    wanted.offer(B, Y)
    assert wanted.ask(1.0) == [(A, Want(X)), (B, Want(Y))]
    assert wanted.ask(1.0) == []
    assert X in wanted
    assert wanted.got(X) == [A, B]
    assert wanted.got(X) == ()
    assert X not in wanted
    assert wanted.next_deadline() == 1.0 + RETRY


def test_of_several_that_have_an_item_one_is_asked_that_is_asked_anyway():
    wanted = Wanted(TIMING)
    wanted.offer(A, X)
    wanted.offer(B, Y)
    wanted.offer(A, Y)
    assert wanted.ask(1.0) == [(A, Want(X + Y))]
    wanted.on_deadline(1.0 + RETRY)  # whoever did not answer is not asked again at once
    assert wanted.ask(1.0 + RETRY) == [(A, Want(X)), (B, Want(Y))]


def test_what_does_not_come_is_asked_of_the_next_and_forgotten_in_the_end():
    wanted = Wanted(TIMING)
    wanted.offer(A, X)
    wanted.offer(B, X)
    asked, now = [], 1.0
    while wanted:
        asked += [node for node, _ in wanted.ask(now)]
        now = wanted.next_deadline()
        wanted.on_deadline(now)
    assert asked == [A, B, A, B, A][:TRIES]
    assert wanted.next_deadline() is None
    assert now == 1.0 + TRIES * RETRY


def test_one_node_is_not_asked_for_everything_at_once():
    wanted = Wanted(TIMING)
    for one in ids(3 * WINDOW):
        wanted.offer(A, one)
    ((_, first),) = wanted.ask(1.0)
    assert first.ids == b"".join(ids(WINDOW))
    assert wanted.ask(1.1) == []
    for one in ids(10):
        wanted.got(one)
    assert wanted.ask(1.2) == [(A, Want(b"".join(ids(10, WINDOW))))]


def test_a_node_that_is_asked_enough_does_not_keep_others_from_being_asked():
    wanted = Wanted(TIMING)
    for one in ids(WINDOW + 5):
        wanted.offer(A, one)
    wanted.offer(B, ids(1, 9999)[0])
    asked = dict(wanted.ask(1.0))
    assert set(asked) == {A, B}


def test_the_table_is_bounded():
    wanted = Wanted(TIMING)
    for one in ids(LIMIT + 100):
        wanted.offer(A, one)
    assert len(wanted) == LIMIT
    for number in range(2 * OFFERERS):
        wanted.offer(node_id(number), X)
    assert len(wanted.got(X)) == OFFERERS
