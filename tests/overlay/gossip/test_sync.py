"""Anti-entropy: what is asked and answered, in how many bytes, and that stores become equal."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from overlay.config import Limits
from overlay.gossip import sync
from overlay.gossip.store import Store, bucket_of
from overlay.wire.control import decode_untrusted, encode
from overlay.wire.items import Item, item_id
from overlay.wire.messages import BUCKETS, Buckets, Delta, Ids

ITEMS = st.lists(
    st.builds(
        Item,
        st.integers(0, 30).map(lambda number: b"k%d" % number),
        st.integers(0, 2),
        st.sampled_from([b"", b"x"]),
    ),
    max_size=12,
)


def make_store(items=()):
    store = Store(lambda item: True, Limits())
    store.merge(items)
    return store


def many(count, prefix=b"k", size=10):
    return [Item(prefix + b"%05d" % number, 1, bytes(size)) for number in range(count)]


def exchange(one, other):
    """Both learn from each other what one comparison brings to light."""
    details = sync.details_of(other)
    if isinstance(details, Buckets):
        details = sync.ids_of(one, sync.differing(one, details))
        one, other = other, one
    lacking, surplus = sync.compare(one, details)
    one.merge(sync.wanted_items(other, b"".join(lacking)))
    other.merge(sync.wanted_items(one, b"".join(surplus)))


@settings(max_examples=60)
@given(ITEMS, ITEMS)
def test_stores_that_compared_are_equal(left, right):
    one, other = make_store(left), make_store(right)
    exchange(one, other)
    assert one.items() == other.items()
    assert one.root() == other.root()


def test_large_stores_that_differ_by_one_exchange_one_bucket():
    one, other = make_store(many(2000)), make_store(many(2000))
    extra = Item(b"extra", 1, b"")
    one.put(extra)
    details = sync.details_of(other)
    assert isinstance(details, Buckets)
    assert sync.differing(one, details) == [bucket_of(b"extra")]
    ids = sync.ids_of(one, [bucket_of(b"extra")])
    assert len(ids.ids) < 40 * 8
    assert sync.compare(other, ids) == ([item_id(extra)], [])
    exchange(one, other)
    assert one.root() == other.root()
    assert sync.differing(one, sync.buckets_of(other)) == []


def test_a_small_store_says_all_at_once():
    store = make_store(many(20))
    details = sync.details_of(store)
    assert isinstance(details, Ids)
    assert (details.buckets, len(details.ids)) == (b"", 20 * 8)
    assert isinstance(sync.details_of(make_store(many(BUCKETS))), Buckets)


def test_what_was_superseded_or_refused_is_not_asked_for_again():
    store = make_store([Item(b"k", 1, b""), Item(b"k", 2, b"")])
    theirs = Ids(b"", item_id(Item(b"k", 1, b"")))
    lacking, surplus = sync.compare(store, theirs)
    assert lacking == []
    assert surplus == [item_id(Item(b"k", 2, b""))]


def test_hidden_keys_are_not_spoken_of():
    store = make_store([Item(b"own", 1, b""), Item(b"other", 1, b"")])
    own, other = item_id(Item(b"own", 1, b"")), item_id(Item(b"other", 1, b""))
    hidden = {b"own"}
    assert sync.details_of(store, hidden) == Ids(b"", other)
    assert sync.ids_of(store, range(BUCKETS), hidden).ids == other
    assert sync.compare(store, Ids(b"", b""), hidden) == ([], [other])
    assert sync.wanted_items(store, own + other, hidden) == [Item(b"other", 1, b"")]


def test_nothing_that_differs_is_nothing_to_say():
    assert sync.ids_of(make_store(many(3)), []) is None


def test_every_message_is_within_its_bounds_however_much_there_is():
    store = make_store(many(12_000, size=40))
    details = sync.ids_of(store, range(BUCKETS))
    assert len(details.ids) <= sync.CHUNK
    assert 0 < len(details.buckets) < BUCKETS
    assert decode_untrusted(encode(details)) == details
    blobs = sync.blobs_of(one for bucket in range(BUCKETS) for one in store.ids_in(bucket))
    assert sum(map(len, blobs)) == 12_000 * 8
    assert max(map(len, blobs)) <= sync.CHUNK
    deltas = sync.deltas_of(store.items())
    assert len(deltas) == sync.MESSAGES_PER_TURN
    assert all(len(encode(delta)) <= sync.CHUNK for delta in deltas)


def test_few_items_go_in_small_messages():
    deltas = sync.deltas_of(many(10, size=1600))
    assert [len(delta.items) for delta in deltas] == [2] * 5
    assert all(len(encode(delta)) <= sync.SMALL_CHUNK + 10 for delta in deltas)
    assert [item for delta in deltas for item in delta.items] == many(10, size=1600)


def test_a_turns_worth_of_items_goes_out_whole():
    items = many(300, size=500)
    deltas = sync.deltas_of(items)
    assert [item for delta in deltas for item in delta.items] == items
    large = Item(b"large", 1, bytes(50_000))
    assert sync.deltas_of([large]) == [Delta((large,))]
    assert sync.deltas_of([]) == []
