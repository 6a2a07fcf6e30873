"""The store is a semilattice, and root and digest describe it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from overlay.config import Limits
from overlay.errors import CapacityError
from overlay.gossip.store import Store
from overlay.wire.items import Item, fingerprint
from overlay.wire.messages import DigestEntry

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
    store.check_invariants()


@given(BATCH, BATCH)
def test_merge_is_commutative(left, right):
    one = make_store(left)
    one.merge(right)
    other = make_store(right)
    other.merge(left)
    assert one.items() == other.items()
    assert one.root() == other.root()
    assert one.digest() == other.digest()


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


@settings(max_examples=50)
@given(BATCH, BATCH)
def test_stores_that_exchange_what_their_digests_differ_by_are_equal(left, right):
    one, other = make_store(left), make_store(right)
    digest = one.digest()
    for_one = other.newer_than(digest)
    wanted = other.lacking(digest)
    other.merge(one.get(key) for key in wanted)
    one.merge(for_one)
    assert one.items() == other.items()
    assert one.root() == other.root()
    assert one.newer_than(other.digest()) == []
    assert one.lacking(other.digest()) == []


def test_equal_versions_with_different_bodies_are_sent_and_wanted():
    item = Item(b"k", 1, b"x")
    store = make_store([item])
    theirs = fingerprint(Item(b"k", 1, b"y"))
    entries = [DigestEntry(b"k", 1, theirs)]
    assert store.newer_than(entries) == [item]
    assert store.lacking(entries) == [b"k"]


def test_an_incomplete_digest_says_nothing_about_other_keys():
    store = make_store([Item(b"a", 1, b""), Item(b"b", 1, b"")])
    older = [DigestEntry(b"a", 0, bytes(8)), DigestEntry(b"c", 1, bytes(8))]
    assert store.newer_than(older, complete=False) == [Item(b"a", 1, b"")]
    assert store.newer_than(older) == [Item(b"a", 1, b""), Item(b"b", 1, b"")]
    assert store.lacking(older) == [b"c"]


def test_what_is_not_admitted_leaves_only_a_count():
    store = make_store(admit=lambda item: item.body != b"bad")
    root = store.root()
    assert store.merge([Item(b"k", 1, b"bad")]) == []
    assert (store.root(), store.items(), store.refused) == (root, [], 1)


def test_digest_and_root_follow_every_change():
    store = make_store([Item(b"k", 1, b"")])
    digest, root = store.digest(), store.root()
    store.put(Item(b"k", 2, b""))
    assert store.digest() == (DigestEntry(b"k", 2, fingerprint(Item(b"k", 2, b""))),)
    assert store.root() != root
    assert digest != store.digest()


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


def test_a_full_store_does_not_ask_for_what_it_cannot_keep():
    store = make_store([Item(b"k", 1, b"")], limit=1)
    assert store.lacking([DigestEntry(b"other", 1, bytes(8))]) == []


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
    assert [entry.key for entry in store.describe(store.items(b"n"))] == [b"na", b"nb"]


def test_the_root_has_known_bytes():
    store = make_store()
    assert store.root() == bytes(8)
    store.put(Item(b"b" + bytes(4), 1, b"deeds"))
    assert store.root().hex() == "2ed1bab016133a0c"
    store.put(Item(b"n" + bytes(32), 1 << 32, b"record"))
    assert store.root().hex() == "88c49d9afc297481"


def test_a_full_store_has_room_for_the_keys_it_holds_and_no_others():
    store = make_store([Item(b"k", 1, b"")], limit=1)
    assert store.fits(b"k")
    assert not store.fits(b"other")
