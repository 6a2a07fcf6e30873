"""Digest exchange makes stores equal, in bounded messages."""

from __future__ import annotations

from collections import deque
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from overlay.config import Limits
from overlay.gossip import sync
from overlay.gossip.store import Store
from overlay.wire.control import decode_untrusted, encode
from overlay.wire.items import BODY_LIMIT, Item
from overlay.wire.messages import ITEMS_LIMIT, Delta, Digest, DigestEntry, Summary, Want


def make_store(items=(), limit=20_000):
    store = Store(lambda item: True, replace(Limits(), items=limit))
    store.merge(items)
    return store


def answer(store, message):
    match message:
        case Summary():
            return sync.answer_summary(store, message)
        case Digest():
            return sync.answer_digest(store, message)
        case Want():
            return sync.answer_want(store, message)
        case Delta():
            store.merge(message.items)
            return []


def run_round(asker, asked):
    """One round between two stores; returns all messages that travelled, decoded again."""
    travelling = deque([(asked, asker, sync.summary_of(asker))])
    seen = []
    while travelling:
        to, origin, message = travelling.popleft()
        seen.append(decode_untrusted(encode(message)))
        travelling += [(origin, to, reply) for reply in answer(to, seen[-1])]
    return seen


ITEM = st.builds(
    Item, st.integers(0, 12).map(lambda n: b"k%d" % n), st.integers(0, 3), st.binary(max_size=2)
)


@settings(max_examples=60)
@given(st.lists(ITEM), st.lists(ITEM))
def test_one_round_makes_two_stores_equal(left, right):
    one, other = make_store(left), make_store(right)
    run_round(one, other)
    assert one.items() == other.items() == make_store(left + right).items()
    assert run_round(one, other) == [sync.summary_of(one)]


def test_equal_stores_exchange_one_message():
    items = [Item(b"k%d" % n, 1, b"") for n in range(9)]
    assert run_round(make_store(items), make_store(reversed(items))) == [
        Summary(make_store(items).root(), 9)
    ]


def test_the_messages_of_a_round_are_the_documented_ones():
    one = make_store([Item(b"a", 1, b"A"), Item(b"c", 1, b"C")])
    other = make_store([Item(b"b", 1, b"B"), Item(b"c", 1, b"C")])
    opening, digest = sync.summary_of(one), other.digest()
    assert run_round(one, other) == [
        opening,
        Digest(digest, complete=True),
        Delta((Item(b"a", 1, b"A"),)),
        Want((b"b",)),
        Delta((Item(b"b", 1, b"B"),)),
    ]


def test_an_empty_store_learns_everything_in_one_round():
    full = make_store([Item(b"k%d" % n, 1, b"x") for n in range(20)])
    for asker, asked in ((make_store(), full), (full, make_store())):
        run_round(asker, asked)
        assert asker.items() == asked.items() == full.items()


def test_an_offer_is_acknowledged_by_an_empty_want():
    store = make_store([Item(b"a", 2, b"A")])
    known = Digest(store.digest(), complete=False)
    assert sync.answer_digest(store, known) == [Want(())]
    stale = Digest((DigestEntry(b"a", 1, bytes(8)),), complete=False)
    assert sync.answer_digest(store, stale) == [Delta((Item(b"a", 2, b"A"),)), Want(())]
    newer = Digest((DigestEntry(b"a", 3, bytes(8)),), complete=False)
    assert sync.answer_digest(store, newer) == [Want((b"a",))]


def test_a_complete_digest_that_holds_nothing_new_is_not_answered():
    store = make_store([Item(b"a", 2, b"A")])
    assert sync.answer_digest(store, Digest(store.digest(), complete=True)) == []


def test_a_large_store_is_listed_in_offers_and_both_sides_converge():
    def key(n):
        return b"n" + n.to_bytes(4, "big") * 8

    one = make_store([Item(key(n), 1, b"x" * 50) for n in range(1500)])
    other = make_store([Item(key(n), 1, b"x" * 50) for n in range(500, 2000)])
    first = run_round(one, other)
    digests = [message for message in first if isinstance(message, Digest)]
    assert len(digests) > 1
    assert not any(digest.complete for digest in digests)
    assert len(one) == 2000
    assert len(other) == 1500
    run_round(other, one)
    assert one.items() == other.items()


def test_messages_stay_within_a_chunk_and_in_order():
    items = [Item(b"n%04d" % n, 1, bytes(n)) for n in range(1, 700)]
    deltas = sync.deltas_of(items)
    assert [item for delta in deltas for item in delta.items] == items
    for message in (*deltas, *sync.digests_of(make_store(items).digest(), complete=True)):
        assert len(encode(message)) <= sync.CHUNK + 100


def test_the_largest_item_travels_alone_and_fits_a_message():
    big = Item(b"n" * 33, 2**64 - 1, bytes(BODY_LIMIT))
    small = Item(b"a", 1, b"")
    assert sync.deltas_of([small, big, small]) == [Delta((small,)), Delta((big,)), Delta((small,))]
    for delta in sync.deltas_of([big]):
        assert decode_untrusted(encode(delta)) == delta


def test_no_list_is_longer_than_a_decoder_accepts():
    entries = [DigestEntry(b"b", n, bytes(8)) for n in range(2 * ITEMS_LIMIT)]
    for digest in sync.digests_of(entries, complete=True):
        assert decode_untrusted(encode(digest)) == digest


def test_one_message_cannot_pull_more_than_a_turn():
    store = make_store([Item(b"k%04d" % n, 1, bytes(20_000)) for n in range(100)])
    everything = Want(tuple(entry.key for entry in store.digest()))
    assert len(sync.answer_want(store, everything)) == sync.MESSAGES_PER_TURN
    assert len(sync.answer_digest(store, Digest((), complete=True))) == sync.MESSAGES_PER_TURN
    claims = tuple(DigestEntry(b"%040d" % n, 1, bytes(8)) for n in range(ITEMS_LIMIT))
    wants = sync.answer_digest(store, Digest(claims, complete=False))
    assert [key for want in wants for key in want.keys] == [entry.key for entry in claims]


def test_wanting_a_key_twice_or_an_absent_one_brings_nothing_more():
    store = make_store([Item(b"a", 1, b"")])
    assert sync.answer_want(store, Want((b"a", b"a", b"b"))) == [Delta((Item(b"a", 1, b""),))]
    assert sync.answer_want(store, Want(())) == []


def test_hidden_keys_are_not_spoken_of():
    store = make_store([Item(b"a", 1, b""), Item(b"own", 1, b"")])
    hidden = {b"own"}
    shown = tuple(entry for entry in store.digest() if entry.key == b"a")
    assert sync.answer_summary(store, Summary(bytes(8), 0), hidden) == [Digest(shown, True)]
    assert sync.answer_digest(store, Digest((), True), hidden) == [Delta((Item(b"a", 1, b""),))]
    assert sync.answer_want(store, Want((b"own",)), hidden) == []
