"""Gossip items."""

from __future__ import annotations

from hashlib import blake2s

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.errors import WireError
from overlay.wire.items import (
    BODY_LIMIT,
    ID_SIZE,
    KEY_LIMIT,
    Item,
    item_id,
    item_untrusted,
)
from overlay.wire.packing import U64, pack, unpack_untrusted

ITEMS = st.builds(
    Item,
    key=st.binary(min_size=1, max_size=KEY_LIMIT),
    version=st.integers(0, U64),
    body=st.binary(max_size=100),
)


@given(ITEMS)
def test_items_survive_packing(item):
    assert item_untrusted(unpack_untrusted(pack(item), 1000)) == item


def test_item_is_these_bytes():
    assert pack(Item(b"b\0\0\0\1", 3, b"xyz")).hex() == "93c405620000000103c40378797a"


def test_the_id_is_a_hash_of_key_version_and_body():
    item = Item(b"key", 258, b"body")
    expected = blake2s(b"\3\0\0\0\0\0\0\1\2keybody", digest_size=ID_SIZE).digest()
    assert item_id(item) == expected


@given(ITEMS, ITEMS)
def test_ids_agree_exactly_when_items_do(one, other):
    assert (item_id(one) == item_id(other)) is (one == other)


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        [b"k", 1],
        [b"", 1, b""],
        [bytes(KEY_LIMIT + 1), 1, b""],
        ["k", 1, b""],
        [b"k", -1, b""],
        [b"k", True, b""],
        [b"k", 1, "text"],
        [b"k", 1, bytes(BODY_LIMIT + 1)],
    ],
)
def test_malformed_item_is_refused(value):
    with pytest.raises(WireError):
        item_untrusted(value)


def test_largest_item_is_read():
    assert KEY_LIMIT == 40
    item = Item(bytes(40), U64, bytes(BODY_LIMIT))
    assert item_untrusted(list(item)) == item


def test_later_fields_are_ignored():
    assert item_untrusted([b"k", 1, b"", "new"]) == Item(b"k", 1, b"")
