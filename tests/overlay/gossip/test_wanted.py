"""Each item is asked for once, of one; and of another if that one does not send it."""

from __future__ import annotations

from itertools import pairwise

import pytest

from overlay.gossip.wanted import (
    FEW,
    HOLLOW,
    HOLLOW_LINE,
    LIMIT,
    LINE,
    LONGEST,
    OFFERERS,
    PER_ITEM,
    ROUND_TRIPS,
    STEADY,
    TRIES,
    TRIES_OF_MANY,
    WINDOW,
    Wanted,
)
from overlay.wire.messages import Want
from tests.support.gossips import TIMING, node_id

A, B, C, D = (node_id(number) for number in range(1, 5))
RETRY = TIMING.want_retry


def make(**round_trips):
    """With round trip times of the nodes with these names, 0 for all others."""
    by_node = {globals()[name]: seconds for name, seconds in round_trips.items()}
    return Wanted(TIMING, lambda node: by_node.get(node, 0.0))


def ids(count, first=0):
    return [number.to_bytes(8, "big") for number in range(first, first + count)]


X, Y = ids(2)


def test_what_two_offer_is_asked_of_the_first_alone():
    wanted = make()
    wanted.offer(A, X)
    wanted.offer(B, X)
    wanted.offer(B, Y)
    assert wanted.ask(1.0) == [(A, Want(X)), (B, Want(Y))]
    assert wanted.ask(1.0) == []
    assert X in wanted
    assert wanted.got(X) == [A, B]
    assert wanted.got(X) == ()
    assert X not in wanted
    assert wanted.next_deadline() == pytest.approx(1.0 + RETRY + 2 * PER_ITEM)


def test_of_several_that_have_an_item_one_is_asked_that_is_asked_anyway():
    wanted = make()
    wanted.offer(A, X)
    wanted.offer(B, Y)
    wanted.offer(A, Y)
    assert wanted.ask(1.0) == [(A, Want(X + Y))]


def repeated(wanted, now=1.0):
    """Whom it asks at each time, until it has forgotten everything; and those times."""
    asked, times = [], []
    while wanted:
        asked.append([node for node, _ in wanted.ask(now)])
        times.append(now)
        now = wanted.next_deadline()
        wanted.on_deadline(now)
    assert wanted.next_deadline() is None
    return asked, [*times, now]


def waits(times):
    return [later - sooner for sooner, later in pairwise(times)]


def test_what_does_not_come_is_asked_of_more_and_more_and_forgotten_in_the_end():
    wanted = make()
    for node in (A, B, C, D):
        wanted.offer(node, X)
    asked, times = repeated(wanted)
    assert asked[:4] == [[A], [B, C], [D, A, B], [C, D, A]]
    assert len(asked) == TRIES
    first = RETRY + PER_ITEM
    assert waits(times) == pytest.approx([first * 2 ** (n // STEADY) for n in range(TRIES)])


def test_who_alone_has_it_is_asked_again_and_again():
    wanted = make()
    wanted.offer(A, X)
    assert repeated(wanted)[0] == [[A]] * TRIES


def test_of_two_that_were_asked_one_brings_it_and_both_are_free_again():
    wanted = make()
    for node in (A, B, C):
        wanted.offer(node, X)
    wanted.ask(1.0)
    wanted.on_deadline(wanted.next_deadline())
    assert len(wanted.ask(2.0)) == 2
    wanted.got(X)
    for one in ids(WINDOW, 100):
        wanted.offer(B, one)
    ((_, want),) = wanted.ask(3.0)
    assert want.ids == b"".join(ids(WINDOW, 100))


def test_the_wait_follows_the_round_trip_of_who_is_asked_up_to_a_bound():
    wanted = make(A=0.1)
    wanted.offer(A, X)
    _, times = repeated(wanted)
    first = ROUND_TRIPS * 0.1 + PER_ITEM
    assert waits(times)[:3] == pytest.approx([first, first, first])
    assert waits(times)[-1] == LONGEST


def test_where_much_is_under_way_the_wait_is_longer_and_nobody_is_asked_beside_another():
    wanted = make()
    for one in ids(FEW + 1):
        wanted.offer(A, one)
        wanted.offer(B, one)
    wanted.ask(1.0)
    at = wanted.next_deadline()
    assert at == pytest.approx(1.0 + RETRY + (FEW + 1) * PER_ITEM)
    wanted.on_deadline(at)
    assert wanted.ask(at) == [(B, Want(b"".join(ids(FEW + 1))))]


def test_where_much_is_wanted_it_is_forgotten_sooner():
    wanted = make()
    for one in ids(FEW + 1):
        wanted.offer(A, one)
    asked, _ = repeated(wanted)
    assert asked == [[A]] * TRIES_OF_MANY


def test_a_short_wait_does_not_end_behind_a_longer_one():
    wanted = make(A=0.2)
    wanted.offer(A, X)
    wanted.ask(1.0)
    wanted.offer(B, Y)
    wanted.ask(1.1)
    assert wanted.next_deadline() == pytest.approx(1.1 + RETRY + 2 * PER_ITEM)
    wanted.on_deadline(wanted.next_deadline())
    assert wanted.is_waiting
    assert wanted.next_deadline() == pytest.approx(1.0 + ROUND_TRIPS * 0.2 + PER_ITEM)


@pytest.mark.parametrize(("comes", "lacks"), [(X, Y), (Y, X)])
def test_of_two_that_were_asked_for_together_the_one_that_did_not_come_is_asked_for_again(
    comes, lacks
):
    wanted = make()
    wanted.offer(A, X)
    wanted.offer(A, Y)
    assert wanted.ask(1.0) == [(A, Want(X + Y))]
    wanted.got(comes)
    assert wanted.next_deadline() == pytest.approx(1.0 + RETRY + 2 * PER_ITEM)
    wanted.on_deadline(wanted.next_deadline())
    assert wanted.ask(2.0) == [(A, Want(lacks))]
    wanted.got(lacks)
    assert wanted.next_deadline() is None


def test_who_wants_again_what_came_waits_from_then_on():
    wanted = make()
    wanted.offer(A, X)
    wanted.offer(A, Y)
    wanted.ask(1.0)
    wanted.got(X)
    wanted.offer(B, X)
    wanted.ask(1.1)
    wanted.on_deadline(wanted.next_deadline())
    assert wanted.ask(1.2) == [(A, Want(Y))]
    wanted.got(Y)
    assert wanted.next_deadline() == pytest.approx(1.1 + RETRY + 2 * PER_ITEM)


def test_one_node_is_not_asked_for_everything_at_once():
    wanted = make()
    for one in ids(3 * WINDOW):
        wanted.offer(A, one)
    ((_, first),) = wanted.ask(1.0)
    assert first.ids == b"".join(ids(WINDOW))
    assert wanted.ask(1.1) == []
    for one in ids(10):
        wanted.got(one)
    assert wanted.ask(1.2) == [(A, Want(b"".join(ids(10, WINDOW))))]


def test_a_node_that_is_asked_enough_does_not_keep_others_from_being_asked():
    wanted = make()
    for one in ids(WINDOW + 5):
        wanted.offer(A, one)
    wanted.offer(B, ids(1, 9999)[0])
    asked = dict(wanted.ask(1.0))
    assert set(asked) == {A, B}


def test_one_that_offers_much_and_sends_nothing_keeps_nobody_from_being_asked():
    wanted = make()
    for one in ids(2 * LIMIT, 100):
        wanted.offer(A, one)
    wanted.ask(1.0)
    wanted.offer(B, X)
    assert wanted.ask(1.1) == [(B, Want(X))]
    assert wanted.got(X) == [B]


def test_the_table_is_bounded():
    wanted = make()
    for number, one in enumerate(ids(LIMIT + 100)):
        wanted.offer(node_id(number // LINE), one)
    assert len(wanted) == LIMIT
    wanted = make()
    for one in ids(LIMIT):
        wanted.offer(A, one)
    assert len(wanted) == LINE
    for number in range(2 * OFFERERS):
        wanted.offer(node_id(number), X)
    assert len(wanted.got(X)) == OFFERERS


# -- inventions ------------------------------------------------------------------------------------


def test_who_offers_inventions_without_end_slows_down_nobody_elses_items():
    """C offers what does not exist; X, of which one question is lost, is asked for as ever."""
    wanted, now, numbers = make(), 1.0, iter(range(100, 10**6))
    for _ in range(20):
        for _ in range(4 * FEW):
            wanted.offer(C, next(numbers).to_bytes(8, "big"))
        wanted.ask(now)
        now += 0.2
        wanted.on_deadline(now)
    for node in (A, B, D):
        wanted.offer(node, X)
    askings = []
    for _ in range(40):
        wanted.offer(C, next(numbers).to_bytes(8, "big"))
        askings += [node for node, want in wanted.ask(now) if X in want.ids]
        now += 0.2
        wanted.on_deadline(now)
    assert askings[:3] == [A, B, D]
    assert len(askings) > TRIES, "several at a time, and as often as where little is wanted"


def test_who_sends_what_it_offers_is_asked_for_as_much_as_ever():
    wanted = make()
    for one in ids(4 * HOLLOW):
        wanted.offer(A, one)
    (asked,) = wanted.ask(1.0)
    wanted.on_deadline(wanted.next_deadline())
    wanted.ask(5.0)
    for one in ids(4 * HOLLOW):
        wanted.got(one)
    for one in ids(LINE, first=1000):
        wanted.offer(A, one)
    assert asked[0] == A
    assert len(wanted) == LINE


def test_who_sent_nothing_of_much_may_have_little_waiting():
    wanted, now = make(), 1.0
    for one in ids(WINDOW):
        wanted.offer(C, one)
    for _ in range(TRIES + 1):
        wanted.ask(now)
        now += 5.0
        wanted.on_deadline(now)
    before = len(wanted)
    for one in ids(LINE, first=5000):
        wanted.offer(C, one)
    assert len(wanted) - before <= HOLLOW_LINE
