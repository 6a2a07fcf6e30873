"""msgpack and the checks around it."""

from __future__ import annotations

import tracemalloc
from contextlib import suppress
from pathlib import Path

import msgpack
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from overlay.errors import StateError, WireError
from overlay.wire.packing import MAX_DEPTH, U64, Fields, pack, unpack_untrusted
from tests.support.pcap import all_frames

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), U64)
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=8,
)


def nested(depth: int) -> bytes:
    return b"\x91" * (depth - 1) + b"\x90"


@given(VALUES)
def test_values_survive_packing(value):
    packed = pack([value])
    with suppress(WireError):  # nested deeper than allowed
        assert unpack_untrusted(packed, len(packed)) == [value]


def test_tuples_are_packed_as_arrays():
    assert pack((1, (b"k", 2))) == pack([1, [b"k", 2]])


@pytest.mark.parametrize("value", [object(), 2**64, -(2**63) - 1, {1, 2}, "\ud800"])
def test_unpackable_value_is_the_callers_mistake(value):
    with pytest.raises(StateError, match="cannot be packed"):
        pack([value])


@pytest.mark.parametrize(
    ("data", "clause"),
    [
        (b"", "not a packed value"),
        (b"\xc1", "not a packed value"),
        (b"\x92\x01", "not a packed value"),
        (b"\x01\x02", "1 bytes behind"),
        (b"\xa2\xff\xfe", "not a packed value"),
        (b"\x81\x01\x02", "not a packed value"),
        (b"\x81\x90\x02", "not a packed value"),
        (b"\xd6\xff\x00\x00\x00\x00", "not a packed value"),  # a timestamp
        (b"\xd4\x05\x00", "not a packed value"),  # extension type 5
        (b"\xc7\x00\x05", "extension type 5"),  # the same, empty
        (b"\xdd\xff\xff\xff\xff", "not a packed value"),
        (b"\xdf\xff\xff\xff\xff", "not a packed value"),
        (b"\xdb\xff\xff\xff\xff", "not a packed value"),
        (b"\xc6\xff\xff\xff\xff", "not a packed value"),
        (nested(MAX_DEPTH + 1), "nested deeper"),
        (nested(1000), "nested deeper"),
        (nested(5000), "not a packed value"),
        (b"\x81\xa1a" * (MAX_DEPTH + 1) + b"\x01", "nested deeper"),
    ],
)
def test_bytes_that_are_no_value_are_refused(data, clause):
    with pytest.raises(WireError, match=clause):
        unpack_untrusted(data, 10_000)


def test_deepest_allowed_nesting_is_allowed():
    assert unpack_untrusted(nested(MAX_DEPTH), 100) == [[[[[[[[]]]]]]]]


def test_size_limit_is_exact():
    packed = pack(b"12345678")
    assert unpack_untrusted(packed, len(packed)) == b"12345678"
    with pytest.raises(WireError, match="over the limit of 9"):
        unpack_untrusted(packed, len(packed) - 1)


def test_false_claims_of_size_cost_no_memory():
    claim = b"\xdd\x00\x00\xea\x60"  # an array of 60,000 elements
    attack = claim * 1000 + bytes(55_000)
    tracemalloc.start()
    try:
        with pytest.raises(WireError):
            unpack_untrusted(attack, 60_000)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


@given(st.binary(max_size=200))
@example(b"\xc7\x0c\xff" + b"\xff" * 12)
def test_random_bytes_are_decoded_or_refused(data):
    try:
        value = unpack_untrusted(data, 200)
    except WireError:
        return
    assert repr(msgpack.unpackb(data)) == repr(value)  # text, because NaN differs from itself


def test_captures_are_decoded_or_refused(vectors: Path):
    for frame in all_frames(vectors / "pcaps"):
        with suppress(WireError):
            unpack_untrusted(frame, 70_000)


def test_fields_give_typed_values():
    fields = Fields([7, b"ab", "name", True, [1, 2], [9]], "thing", 6)
    assert len(fields) == 6
    assert fields.integer(0, 0, 7) == 7
    assert fields.bytes(1, 2) == fields.bytes(1, limit=2, least=2) == b"ab"
    assert fields.text(2, 4) == "name"
    assert fields.boolean(3) is True
    assert fields.sequence(4, 2) == [1, 2]
    assert fields.fields(5, "part", 1).integer(0) == 9


@pytest.mark.parametrize(
    ("value", "read", "clause"),
    [
        (True, lambda f: f.integer(0), "is not an integer"),
        (1.0, lambda f: f.integer(0), "is not an integer"),
        (-1, lambda f: f.integer(0), "is -1, not between 0 and"),
        (6, lambda f: f.integer(0, 7, 9), "is 6, not between 7 and 9"),
        (10, lambda f: f.integer(0, 7, 9), "is 10, not between 7 and 9"),
        ("ab", lambda f: f.bytes(0), "is not a byte string"),
        (b"abc", lambda f: f.bytes(0, 2), "has 3 bytes instead of 2"),
        (b"abc", lambda f: f.bytes(0, limit=2), "has 3 bytes, over the limit of 2"),
        (b"", lambda f: f.bytes(0, limit=2, least=1), "has 0 bytes, under the least of 1"),
        (b"ab", lambda f: f.text(0, 9), "is not text"),
        ("abc", lambda f: f.text(0, 2), "has 3 characters, over the limit of 2"),
        ("a\nb", lambda f: f.text(0, 9), "has control characters"),
        ("\x1b[2J", lambda f: f.text(0, 9), "has control characters"),
        (1, lambda f: f.boolean(0), "is not a boolean"),
        (b"ab", lambda f: f.sequence(0, 2), "is not an array"),
        ([1, 2, 3], lambda f: f.sequence(0, 2), "has 3 elements, over the limit of 2"),
        ([1], lambda f: f.fields(0, "part", 2), "thing: part: 1 fields where 2 are needed"),
        (5, lambda f: f.fields(0, "part"), "thing: part: an array is needed"),
    ],
)
def test_wrong_field_is_refused_with_its_name(value, read, clause):
    with pytest.raises(WireError, match=clause) as caught:
        read(Fields([value], "thing"))
    assert str(caught.value).startswith("thing")


@pytest.mark.parametrize("index", [-1, 1])
def test_missing_field_is_refused(index):
    with pytest.raises(WireError, match="is missing"):
        Fields([1], "thing").integer(index)


def test_arrays_with_too_few_fields_are_refused():
    with pytest.raises(WireError, match="thing: 1 fields where 2 are needed"):
        Fields([1], "thing", 2)
    with pytest.raises(WireError, match="thing: an array is needed"):
        Fields({"a": 1}, "thing")


def test_unknown_version_is_refused():
    assert Fields.unpack_untrusted(pack([1, 2]), 9, "thing", version=1, count=2).integer(1) == 2
    with pytest.raises(WireError, match="thing: version 2 is not known"):
        Fields.unpack_untrusted(pack([2, 2]), 9, "thing", version=1)
    with pytest.raises(WireError, match="thing: 3 bytes are over the limit of 2"):
        Fields.unpack_untrusted(pack([2, 2]), 2, "thing", version=1)
