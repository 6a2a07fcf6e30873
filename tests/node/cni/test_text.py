"""JSON without the package: the same values and texts, the same refusals."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as some

from node.cni import text

VALUES = some.recursive(
    some.none()
    | some.booleans()
    | some.integers()
    | some.floats(allow_nan=False, allow_infinity=False)
    | some.text(),
    lambda inner: some.lists(inner, max_size=4) | some.dictionaries(some.text(), inner, max_size=4),
    max_leaves=12,
)


@given(VALUES)
def test_values_are_written_and_read_as_the_package_does(value) -> None:
    written = text.encode(value)
    assert written.isascii()
    assert json.loads(written) == value == text.decode(written)
    assert text.decode(f"\n {json.dumps(value, indent=1)} ") == value


@given(some.text(alphabet=' {}[]",:0123456789truefalsnN-.e\\u\n', max_size=12))
def test_what_the_package_refuses_is_refused(given) -> None:
    def constant(name: str) -> object:
        raise ValueError(name)

    try:
        value = json.loads(given, parse_constant=constant)
    except ValueError:
        with pytest.raises(ValueError, match=r"."):
            text.decode(given)
    else:
        assert text.decode(given) == value


@pytest.mark.parametrize("wrong", ["", " ", "{} x", "NaN", "[Infinity]", "[" * 100_000, '"\n"'])
def test_what_is_not_json_is_refused(wrong) -> None:
    with pytest.raises(ValueError, match=r"."):
        text.decode(wrong)


@pytest.mark.parametrize("wrong", [math.nan, [math.inf]])
def test_numbers_without_json_are_not_written(wrong) -> None:
    with pytest.raises(ValueError, match=r"."):
        text.encode(wrong)


def test_the_package_is_the_other_way(monkeypatch) -> None:
    def absent() -> None:
        raise ImportError

    monkeypatch.setattr(text, "_from_core", absent)
    scan, write = text._ways()
    assert scan('[1, "a"] ', 0)[0] == [1, "a"]
    assert json.loads("".join(write({"a": [None]}))) == {"a": [None]}
