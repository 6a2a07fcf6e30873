"""Tests of overlay.wire.handed: what is read is what was written, and nothing else is."""

from __future__ import annotations

from collections import Counter
from enum import Enum
from ipaddress import ip_network
from typing import ClassVar, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.errors import WireError
from overlay.types import Endpoint, NodeId
from overlay.wire.claims import Claim, ClaimState
from overlay.wire.handed import (
    BOOL,
    BYTES,
    CLAIM,
    ENDPOINT,
    FLAGS,
    INT,
    PREFIX,
    SECONDS,
    TEXT,
    YES,
    Handed,
    each,
    fresh,
    keys,
    later,
    many,
    maybe,
    member,
    pair,
    part,
    row,
    table,
)
from overlay.wire.packing import pack, unpack_untrusted


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Point(NamedTuple):
    x: int
    y: int


class Inner:
    __slots__ = ("count",)
    HANDED: ClassVar = Handed(count=INT)

    def __init__(self) -> None:
        self.count = 0


class Watcher(Inner):
    __slots__ = ("seen",)

    def inherit(self, values) -> None:
        self.HANDED.put(self, values)
        self.seen = True


class Outer:
    HANDED: ClassVar = Handed(
        name=TEXT, inner=part(Inner), watcher=part(Watcher), _at=maybe(SECONDS)
    )

    def __init__(self) -> None:
        self.name = ""
        self.inner, self.watcher = Inner(), Watcher()
        self._at: float | None = None
        self.own = "untouched"


ENDPOINTS = st.builds(
    Endpoint, st.sampled_from(["192.0.2.1", "2001:db8::1"]), st.integers(0, 65535)
)
CLAIMS = st.builds(
    Claim,
    st.binary(min_size=32, max_size=32).map(NodeId),
    st.integers(0, 9),
    st.integers(0, 9),
    st.sampled_from(ClaimState),
    st.booleans(),
    st.binary(max_size=64),
)
VALUES = {
    "integer": (INT, st.integers(-1, 2**64 - 1)),
    "boolean": (BOOL, st.booleans()),
    "text": (TEXT, st.text()),
    "bytes": (BYTES, st.binary()),
    "seconds": (SECONDS, st.floats(allow_nan=False)),
    "maybe": (maybe(INT), st.none() | st.integers(0, 9)),
    "list": (many(TEXT), st.lists(st.text())),
    "set": (many(BYTES, set), st.sets(st.binary())),
    "ordered set": (keys(INT), st.lists(st.integers(0, 9)).map(dict.fromkeys)),
    "dictionary": (table(INT, many(TEXT)), st.dictionaries(st.integers(0, 9), st.lists(st.text()))),
    "counter": (table(TEXT, INT, Counter), st.lists(st.text()).map(Counter)),
    "tuple": (row(Point, INT, INT), st.builds(Point, st.integers(0, 9), st.integers(0, 9))),
    "pair": (row(pair, INT, TEXT), st.tuples(st.integers(0, 9), st.text())),
    "member": (member(Colour), st.sampled_from(Colour)),
    "endpoint": (ENDPOINT, ENDPOINTS),
    "claim": (CLAIM, CLAIMS),
    "prefix": (PREFIX, st.sampled_from(list(map(ip_network, ["10.0.0.0/8", "fd00::/48"])))),
    "flags": (FLAGS, st.lists(st.sampled_from([0, 1])).map(lambda bits: bytearray(bits * 8))),
}


def through(codec, value):
    """As it comes out at the other process."""
    return codec.read(unpack_untrusted(pack(codec.write(value)), 1 << 20))


@pytest.mark.parametrize("name", VALUES)
@given(data=st.data())
def test_what_is_read_is_what_was_written(name, data):
    codec, values = VALUES[name]
    value = data.draw(values)
    read = through(codec, value)
    assert read == value
    assert type(read) is type(value)
    if isinstance(value, dict):
        assert list(read) == list(value)


@pytest.mark.parametrize("name", VALUES)
@given(value=st.sampled_from([None, True, 1.5, -7, "x", b"\x00", [], [1], [[1, 2]], {}]))
def test_what_was_not_written_is_refused_or_read_as_what_it_is(name, value):
    codec, _ = VALUES[name]
    try:
        read = codec.read(value)
    except WireError:
        return
    assert codec.read(unpack_untrusted(pack(codec.write(read)), 1 << 20)) == read


def test_a_time_that_is_none_is_refused():
    with pytest.raises(WireError):
        SECONDS.read(float("nan"))


def outer(name: str = "a", count: int = 3) -> Outer:
    one = Outer()
    one.name, one.inner.count, one.watcher.count, one._at = name, count, count + 1, 2.5
    return one


def test_an_object_is_put_in_place_with_all_its_parts():
    new = Outer()
    parts = new.inner, new.watcher
    new.HANDED.put(new, new.HANDED.read(outer().HANDED.write(outer())))
    assert (new.name, new.inner.count, new.watcher.count, new._at) == ("a", 3, 4, 2.5)
    assert (new.inner, new.watcher) == parts
    assert new.watcher.seen
    assert new.own == "untouched"


def test_reading_puts_nothing():
    written = outer().HANDED.write(outer())
    written[-1] = "no time"
    new = Outer()
    with pytest.raises(WireError):
        new.HANDED.read(written)
    assert new.name == ""
    assert new.inner.count == 0


def test_an_object_may_be_made_or_its_values_kept():
    one = outer().inner
    made = fresh(Inner, Inner)
    assert through(made, one).count == 3
    assert through(each(Inner.HANDED, lambda values: values["count"]), one) == 3
    assert through(later(Inner.HANDED), one) == {"count": 3}


def test_what_is_to_be_computed_anew_is_so_whatever_it_was():
    assert [through(YES, value) for value in (False, None, True)] == [True, True, True]


def test_another_number_of_fields_is_refused():
    with pytest.raises(WireError):
        Inner.HANDED.read([1, 2])
