"""The store is a semilattice, and roots, buckets and ids describe it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.config import Limits
from overlay.errors import CapacityError
from overlay.gossip.store import Store, bucket_of
from overlay.wire.items import Item, item_id
from overlay.wire.messages import BUCKETS

ITEMS = st.builds(
    Item,
    st.sampled_from([b"na", b"nb", b"b\0\0\0\1", b"b\0\0\0\2"]),
    st.integers(0, 3),
    st.sampled_from([b"", b"x", b"y"]),
)
BATCH = st.lists(ITEMS, max_size=8)


def make_store(items=(), admit=lambda item: True, limit=100):
    store = Store(admit, replace(Limits(), items=limit))
    store.merge(items)
    return store


def winners(items):
    """The oracle: the greatest (version, body) of each key."""
    best = {}
    for item in items:
        best[item.key] = max(best.get(item.key, item), item)
    return sorted(best.values())


@given(BATCH)
def test_the_highest_version_and_body_of_each_key_wins(items):
    store = make_store(items)
    assert store.items() == winners(items)
    assert sorted(store.unsorted()) == store.items()
    assert [store.name(item) for item in items] == [item_id(item) for item in items]
    store.check_invariants()


@given(BATCH, BATCH)
def test_merge_is_commutative(left, right):
    one = make_store(left)
    one.merge(right)
    other = make_store(right)
    other.merge(left)
    assert one.items() == other.items()
    assert one.root() == other.root()
    assert one.bucket_roots() == other.bucket_roots()


@given(BATCH, BATCH, BATCH)
def test_merge_is_associative(first, second, third):
    left = make_store(make_store(first + second).items())
    left.merge(third)
    right = make_store(first)
    right.merge(make_store(second + third).items())
    assert left.items() == right.items()
    assert left.root() == right.root()


@given(BATCH)
def test_merge_is_idempotent(items):
    store = make_store(items)
    before = store.items(), store.root()
    assert store.merge(items) == []
    assert (store.items(), store.root()) == before


@given(BATCH, BATCH)
def test_merge_returns_exactly_what_was_new(held, arriving):
    store = make_store(held)
    before = store.items()
    delta = store.merge(arriving)
    assert sorted(delta) == [item for item in winners(held + arriving) if item not in before]
    assert len({item.key for item in delta}) == len(delta)


@given(BATCH, BATCH)
def test_buckets_differ_exactly_where_the_items_do(left, right):
    one, other = make_store(left), make_store(right)
    for bucket in range(BUCKETS):
        same = [
            {item for item in store.items() if bucket_of(item.key) == bucket}
            for store in (one, other)
        ]
        assert (one.bucket_roots()[bucket] == other.bucket_roots()[bucket]) is (same[0] == same[1])
        assert set(one.ids_in(bucket)) == set(map(item_id, same[0]))


def test_an_id_names_one_version_of_an_item():
    old, new = Item(b"k", 1, b"x"), Item(b"k", 2, b"x")
    store = make_store([old])
    assert store.by_id(item_id(old)) == old
    store.put(new)
    assert (store.by_id(item_id(old)), store.by_id(item_id(new))) == (None, new)
    assert (store.id_of(b"k"), store.key_of(item_id(new))) == (item_id(new), b"k")
    assert store.holds(item_id(new))
    assert not store.holds(item_id(old))


def test_what_was_superseded_or_refused_or_found_no_room_is_not_asked_for():
    store = make_store([Item(b"k", 1, b"")], admit=lambda item: item.body != b"bad", limit=1)
    unknown, bad, extra = Item(b"k", 9, b""), Item(b"k", 3, b"bad"), Item(b"other", 1, b"")
    store.merge([bad, extra, Item(b"k", 2, b""), Item(b"k", 0, b"late")])
    assert store.lacks(item_id(unknown))
    for item in (bad, extra, Item(b"k", 1, b""), Item(b"k", 2, b""), Item(b"k", 0, b"late")):
        assert not store.lacks(item_id(item))
    assert item_id(Item(b"k", 1, b"")) in store.superseded
    assert item_id(bad) in store.unwelcome


def test_what_is_not_admitted_leaves_only_a_count():
    store = make_store(admit=lambda item: item.body != b"bad")
    root = store.root()
    assert store.merge([Item(b"k", 1, b"bad")]) == []
    assert (store.root(), store.items(), store.refused) == (root, [], 1)


def test_admit_is_not_asked_about_what_would_lose_anyway():
    asked = []
    store = make_store(admit=lambda item: not asked.append(item))
    store.merge([Item(b"k", 2, b"")])
    store.merge([Item(b"k", 2, b""), Item(b"k", 1, b"zzz")])
    assert asked == [Item(b"k", 2, b"")]


def test_a_full_store_counts_new_keys_and_still_takes_newer_versions():
    store = make_store([Item(b"k", 1, b"")], limit=1)
    assert store.merge([Item(b"other", 1, b""), Item(b"k", 2, b"")]) == [Item(b"k", 2, b"")]
    assert (store.overflowed, len(store)) == (1, 1)
    with pytest.raises(CapacityError) as caught:
        store.put(Item(b"other", 1, b""))
    assert caught.value.limit == "items"


def test_own_items_are_not_checked_but_an_older_one_is_ignored():
    store = make_store(admit=lambda item: False)
    assert store.put(Item(b"k", 2, b"new"))
    assert not store.put(Item(b"k", 2, b"new"))
    assert not store.put(Item(b"k", 1, b"old"))
    assert store.get(b"k") == Item(b"k", 2, b"new")
    assert store.get(b"absent") is None


def test_items_are_found_by_prefix_in_order_of_keys():
    store = make_store([Item(b"nb", 1, b""), Item(b"b1", 1, b""), Item(b"na", 1, b"")])
    assert [item.key for item in store.items(b"n")] == [b"na", b"nb"]


def test_the_root_has_known_bytes():
    store = make_store()
    assert store.root() == bytes(8)
    store.put(Item(b"b" + bytes(4), 1, b"deeds"))
    assert store.root().hex() == "1daf8ff8aab8449c"
    store.put(Item(b"n" + bytes(32), 1 << 32, b"record"))
    assert store.root().hex() == "ca5c991101e71f1b"


def test_a_full_store_has_room_for_the_keys_it_holds_and_no_others():
    store = make_store([Item(b"k", 1, b"")], limit=1)
    assert store.fits(b"k")
    assert not store.fits(b"other")


def test_two_keys_whose_items_have_one_id_do_not_disturb_each_other():
    store = Store(lambda item: True, Limits(), lambda item: item_id(item._replace(key=b"k")))
    first, second = Item(b"na", 1, b"same"), Item(b"nb", 1, b"same")
    assert store.merge([first, second]) == [first]
    assert not store.put(second)
    assert (store.items(), len(store), store.refused) == ([first], 1, 1)
    newer = Item(b"na", 2, b"same")
    assert store.merge([newer, second]) == [newer, second]
    assert store.items() == [newer, second]


def test_what_is_discarded_is_gone_and_not_asked_for_again_at_once():
    store = Store(lambda _item: True, Limits())
    kept, gone = Item(b"a", 1, b"kept"), Item(b"b", 1, b"gone")
    store.merge([kept])
    root = store.root()
    store.merge([gone])
    store.unstored.clear()
    store.discard(gone.key)
    store.check_invariants()
    assert (store.root(), store.get(gone.key), len(store)) == (root, None, 1)
    assert store.unstored == {gone.key}, "the disk is to forget it too"
    assert not store.lacks(item_id(gone))
    store.discard(gone.key)
    assert store.merge([gone._replace(version=2)])
