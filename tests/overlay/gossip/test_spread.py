"""How items travel: offered once, asked for once, and found by comparing when all that is lost."""

from __future__ import annotations

import pytest

from overlay.complaints import Complaint
from overlay.config import Limits
from overlay.faults import Fault
from overlay.gossip.damping import SUPPRESS
from overlay.gossip.spread import (
    ANSWERS,
    ANSWERS_AHEAD,
    COMPARE_FOR,
    MANY,
    NEWS_LIMIT,
    PUSHED_BYTES,
    Spread,
)
from overlay.gossip.store import Store
from overlay.gossip.sync import CHUNK, MESSAGES_PER_TURN, buckets_of
from overlay.gossip.wanted import PER_ITEM
from overlay.wire.items import Item, item_id
from overlay.wire.messages import ROOT_SIZE, Buckets, Delta, Have, Ids, Summary, Want
from tests.support.gossips import TIMING, node_id, sent

A, B, C = (node_id(number) for number in range(1, 4))
ITEM = Item(b"k", 1, b"x")
OLD, NEW = Item(b"k", 1, b""), Item(b"k", 2, b"")
LARGE = Item(b"large", 1, bytes(PUSHED_BYTES + 1))
SOON = TIMING.offer_interval


def make(items=(), neighbours=(A, B, C), admit=lambda item: True):
    spread = Spread(Store(admit, Limits()), TIMING, lambda: neighbours, lambda node: 0.0)
    spread.store.merge(items)
    return spread


def ids(*items):
    return b"".join(map(item_id, items))


# -- own items -------------------------------------------------------------------------------------


def test_a_small_own_change_goes_whole_to_all_neighbours_at_once():
    spread = make()
    assert sent(spread.publish([ITEM], 1.0)) == [(node, Delta((ITEM,))) for node in (A, B, C)]
    assert spread.publish([ITEM], 2.0) == []
    assert spread.learned == []


def test_a_large_own_change_is_offered():
    spread = make()
    assert sent(spread.publish([LARGE], 1.0)) == [(node, Have(ids(LARGE))) for node in (A, B, C)]
    assert sent(spread.on_message(A, Want(ids(LARGE)), 1.1)) == [(A, Delta((LARGE,)))]


def test_an_own_item_that_changes_all_the_time_is_not_announced_any_more():
    spread = make()
    announced = [bool(spread.publish([Item(b"k", version, b"")], 1.0)) for version in range(1, 31)]
    assert announced == [True] * int(SUPPRESS) + [False] * 10
    assert spread.store.get(b"k").version == 30
    assert spread.damping.suppressed == 10


# -- news ------------------------------------------------------------------------------------------


def test_news_is_offered_to_who_did_not_bring_it():
    spread = make()
    spread.on_message(A, Have(ids(ITEM)), 1.0)
    assert sent(spread.on_message(B, Have(ids(ITEM)), 1.0)) == []
    said = sent(spread.on_message(A, Delta((ITEM,)), 1.1))
    assert said == [(C, Have(ids(ITEM)))]
    assert spread.learned == [ITEM]
    assert sent(spread.on_message(B, Delta((ITEM,)), 1.2)) == []
    assert spread.learned == [ITEM]


def test_more_news_soon_after_waits_and_goes_together():
    spread = make(neighbours=(A, B))
    first, second, third = (Item(b"%d" % number, 1, b"") for number in range(3))
    assert sent(spread.on_message(A, Delta((first,)), 1.0)) == [(B, Have(ids(first)))]
    assert spread.on_message(A, Delta((second,)), 1.01) == []
    assert spread.on_message(A, Delta((third,)), 1.02) == []
    assert spread.next_deadline() == 1.0 + SOON
    assert sent(spread.on_deadline(1.0 + SOON)) == [(B, Have(ids(second, third)))]
    assert spread.on_deadline(9.0) == []
    assert spread.next_deadline() is None


def test_what_a_neighbour_offers_meanwhile_or_is_superseded_is_no_news_to_it():
    spread = make(neighbours=(A, B))
    spread.on_message(A, Delta((Item(b"first", 1, b""),)), 1.0)
    spread.on_message(A, Delta((OLD, ITEM._replace(key=b"other"))), 1.01)
    spread.on_message(A, Delta((NEW,)), 1.02)
    spread.on_message(B, Have(ids(ITEM._replace(key=b"other"))), 1.03)
    assert sent(spread.on_deadline(1.0 + SOON)) == [(B, Have(ids(NEW)))]


def test_who_is_no_neighbour_any_more_is_not_offered_anything():
    neighbours = [A, B]
    spread = make(neighbours=neighbours)
    spread.on_message(A, Delta((Item(b"first", 1, b""),)), 1.0)
    spread.on_message(A, Delta((ITEM,)), 1.01)
    neighbours.remove(B)
    assert spread.on_deadline(1.0 + SOON) == []


def test_news_that_flaps_is_kept_but_not_passed_on():
    spread = make(neighbours=(A, B))
    offered = 0
    for version in range(1, 41):
        now = version * 2 * SOON
        offered += len(sent(spread.on_message(A, Delta((Item(b"k", version, b""),)), now)))
    assert SUPPRESS <= offered < 40
    assert spread.store.get(b"k").version == 40


def test_what_waits_for_a_neighbour_is_bounded():
    spread = make(neighbours=(A, B))
    spread.on_message(A, Delta((ITEM,)), 1.0)
    many = tuple(Item(b"%d" % number, 1, b"") for number in range(NEWS_LIMIT + 10))
    spread.on_message(A, Delta(many), 1.01)
    said = sent(spread.on_deadline(1.0 + SOON), Have)
    assert sum(len(message.ids) for _, message in said) == 8 * NEWS_LIMIT


# -- wanting ---------------------------------------------------------------------------------------


def test_only_what_is_unknown_is_asked_for_and_only_of_one():
    spread = make([ITEM])
    other = Item(b"other", 1, b"")
    assert sent(spread.on_message(A, Have(ids(ITEM, other)), 1.0)) == [(A, Want(ids(other)))]
    assert spread.on_message(B, Have(ids(ITEM, other)), 1.1) == []
    at = 1.0 + TIMING.want_retry + PER_ITEM
    assert sent(spread.on_deadline(at)) == [(B, Want(ids(other))), (A, Want(ids(other)))]
    spread.on_message(B, Delta((other,)), 1.7)
    assert spread.on_message(C, Have(ids(other)), 1.8) == []


def test_what_is_wanted_soon_after_a_want_goes_together():
    spread = make()
    first, second, third = (Item(b"%d" % number, 1, b"") for number in range(3))
    assert sent(spread.on_message(A, Have(ids(first)), 1.0)) == [(A, Want(ids(first)))]
    assert spread.on_message(B, Have(ids(second)), 1.01) == []
    assert spread.on_message(C, Have(ids(third, second)), 1.02) == []
    assert spread.next_deadline() == 1.0 + SOON
    said = sent(spread.on_deadline(1.0 + SOON))
    assert said == [(B, Want(ids(second))), (C, Want(ids(third)))]
    assert spread.next_deadline() == pytest.approx(1.0 + TIMING.want_retry + PER_ITEM)


def test_after_many_ids_the_next_wait_longer():
    spread = make(neighbours=(A, B))
    many = [Item(b"%d" % number, 1, b"") for number in range(MANY)]
    assert len(sent(spread.on_message(A, Have(ids(*many)), 1.0), Want)) == 1
    assert sent(spread.on_message(B, Have(ids(ITEM)), 1.0 + SOON)) == []
    assert (B, Want(ids(ITEM))) in sent(spread.on_deadline(1.0 + 2 * SOON), Want)
    assert len(sent(spread.on_message(A, Delta(tuple(many)), 2.0), Have)) == 1
    assert spread.on_message(A, Delta((NEW,)), 2.0 + SOON) == []
    assert sent(spread.on_deadline(2.0 + 2 * SOON), Have) == [(B, Have(ids(NEW)))]


def test_what_was_superseded_or_refused_is_not_asked_for():
    spread = make([OLD, NEW], admit=lambda item: item.body != b"bad")
    bad = Item(b"bad", 1, b"bad")
    spread.on_message(A, Delta((bad,)), 1.0)
    assert spread.on_message(A, Have(ids(OLD, bad)), 1.1) == []
    assert spread.store.refused == 1


def test_an_offer_is_confirmed_when_nothing_of_it_is_lacking():
    spread = make([OLD, NEW], admit=lambda item: item.body != b"bad")
    bad, other = Item(b"bad", 1, b"bad"), Item(b"other", 1, b"")
    have = Have(ids(OLD, NEW), confirm=True)
    assert sent(spread.on_message(A, have, 1.0)) == [(A, Want(b""))]
    spread.on_message(A, Delta((bad,)), 1.0)
    have = Have(ids(bad, other), confirm=True)
    assert sent(spread.on_message(A, have, 1.0)) == [(A, Want(ids(bad, other)))]


def test_one_want_cannot_pull_more_than_a_turn():
    items = [Item(b"%d" % number, 1, bytes(20_000)) for number in range(100)]
    spread = make(items)
    said = sent(spread.on_message(A, Want(ids(*items, *items)), 1.0))
    assert len(said) == MESSAGES_PER_TURN


# -- comparing -------------------------------------------------------------------------------------


def test_equal_roots_end_it_and_others_are_answered_with_details():
    spread = make([ITEM])
    equal = Summary(spread.store.root(), 1, bytes(8))
    assert spread.on_summary(A, equal) == []
    other = Summary(bytes(ROOT_SIZE), 0, bytes(8))
    assert sent(spread.on_summary(A, other)) == [(A, Ids(b"", ids(ITEM)))]


def test_a_list_of_ids_is_answered_with_what_is_wanted_and_what_there_is_more():
    spread = make([ITEM])
    other = Item(b"other", 1, b"")
    said = sent(spread.on_message(A, Ids(b"", ids(other)), 1.0))
    assert said == [(A, Want(ids(other))), (A, Have(ids(ITEM)))]


def test_a_node_that_lacks_nearly_everything_compares_with_one_at_a_time():
    everything = make([Item(b"%d" % number, 1, b"") for number in range(300)])
    buckets = buckets_of(everything.store)
    spread = make()
    ((_, listed),) = sent(spread.on_message(A, buckets, 1.0))
    assert isinstance(listed, Ids)
    assert spread.on_message(B, buckets, 1.1) == []
    assert spread.on_message(B, buckets, 1.0 + COMPARE_FOR) != []
    assert spread.on_message(A, Buckets(bytes(2048)), 9.0) == []


def test_one_that_compares_without_end_leaves_others_their_turn():
    spread = make([ITEM])
    other = Ids(b"", ids(NEW, LARGE))
    heard = []
    for second in range(20):
        spread.on_message(A, Ids(b"", b""), float(second))
        heard.append(bool(spread.on_message(B, other, second + 0.5)))
        spread.on_message(A, Delta(()), second + 0.6)
        spread.on_deadline(second + 0.7)
    assert heard.count(True) >= 20 / 4


def turns_of(honest, liars, seconds=120):
    """Comparisons that were begun with each of `honest`, who ask every second."""
    spread, begun = make([ITEM]), dict.fromkeys(honest, 0)
    for second in range(seconds):
        for part in range(10):  # the liars ask all the time, and first
            for node in liars:
                spread.on_message(node, Ids(b"", ids(NEW, LARGE)), second + part / 10)
        for node in honest:
            begun[node] += bool(spread.on_message(node, Ids(b"", ids(NEW)), second + 0.95))
            spread.on_message(node, Delta(()), second + 0.96)
        spread.on_deadline(second + 0.97)
    return begun


@pytest.mark.parametrize("liars", [1, 2, 3, 4])
def test_liars_that_take_turns_leave_others_theirs(liars):
    nodes = [node_id(number) for number in range(10, 18)]
    begun = turns_of(nodes[liars:], nodes[:liars])
    assert all(turns >= 3 for turns in begun.values())


def test_who_wants_everything_all_the_time_gets_so_much_and_is_named():
    items = [Item(b"%d" % number, 1, bytes(20_000)) for number in range(100)]
    spread = make(items)
    sizes = 0
    for turn in range(600):
        said = sent(spread.on_message(A, Want(ids(*items)), 1.0 + turn / 10))
        sizes += sum(len(item.body) for _, delta in said for item in delta.items)
    assert sizes <= ANSWERS * (60 + ANSWERS_AHEAD) * 1.1
    assert spread.on_message(B, Want(ids(items[0])), 61.0) != []
    ((complaint, _),) = spread._complaints.entries.items()
    assert complaint == Complaint(A, Fault.GOSSIP_FLOOD)


def test_who_comes_back_may_have_all_there_is_however_much():
    body = bytes(40_000)
    items = [Item(b"%d" % number, 1, body) for number in range(2000)]
    spread, got = make(items), 0
    assert spread.store.size > 2 * ANSWERS * ANSWERS_AHEAD
    for _ in range(2):
        for item in items:
            got += len(sent(spread.on_message(A, Want(ids(item)), 1.0)))
    assert got == 2 * len(items)
    assert not spread._complaints.entries
    for _ in range(2):
        spread.on_message(A, Want(ids(items[0])), 1.0)
    assert spread._complaints.entries, "but not over and over"


def test_a_node_alone_may_compare_again_at_once():
    spread = make([ITEM])
    for second in range(5):
        assert spread.on_message(A, Ids(b"", b""), float(second)) != []


def test_a_large_difference_is_offered_in_bounded_messages():
    spread = make([Item(b"%d" % number, 1, b"") for number in range(2 * CHUNK // 8)])
    said = sent(spread.on_message(A, Ids(b"", b""), 1.0), Have)
    assert len(said) == 2
    assert sum(len(message.ids) for _, message in said) == 2 * CHUNK


# -- muted -----------------------------------------------------------------------------------------


def test_while_muted_nothing_own_is_spoken_of():
    spread = make()
    spread.publish([ITEM], 0.0)
    spread.muted = True
    other = Item(b"other", 1, b"")
    assert sent(spread.on_message(A, Delta((other,)), 1.0)) == [
        (node, Have(ids(other))) for node in (B, C)
    ]
    own = Item(b"k", 2, b"")
    assert spread.publish([own], 1.0) == []
    assert spread.store.get(b"k") == own
    said = spread.on_summary(A, Summary(bytes(8), 0, bytes(8)))
    said += spread.on_message(A, Ids(b"", b""), 1.0)
    said += spread.on_message(A, Want(ids(own, other)), 1.0)
    said += spread.on_message(A, Delta((Item(b"k", 3, b""),)), 1.0)
    assert sent(said) == [
        (A, Ids(b"", ids(other))),
        (A, Have(ids(other))),
        (A, Delta((other,))),
    ]
    spread.muted = False
    assert sent(spread.on_message(A, Want(ids(Item(b"k", 3, b""))), 1.0), Delta)
