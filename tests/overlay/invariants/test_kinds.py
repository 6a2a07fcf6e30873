"""Tests of what an invariant is: evidence becomes breaches, and a check never stops the node."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from overlay.errors import WireError
from overlay.invariants import INVARIANTS, Breach, Invariant, Scope, find
from overlay.invariants.kinds import Subject


def odd(number: int) -> Iterator[str]:
    if number % 2:
        yield f"{number} is odd"


EVEN = Invariant("even", "Numbers are even.", Scope.NODE, Subject.BOOKS, odd)


def test_what_a_check_yields_is_a_breach_under_the_name_of_the_invariant():
    assert EVEN.breaches(2) == []
    assert EVEN.breaches(3) == [Breach("even", "3 is odd")]


@pytest.mark.parametrize(
    "error",
    [KeyError("x"), ValueError("x"), AssertionError("x"), AttributeError("x"), WireError("x")],
)
def test_a_check_that_fails_on_damaged_tables_is_a_breach(error):
    def fails(number: int) -> Iterator[str]:
        raise error
        yield ""

    (breach,) = Invariant("even", "Numbers are even.", Scope.NODE, Subject.BOOKS, fails).breaches(1)
    assert breach.name == "even"
    assert "x" in breach.evidence


def test_names_are_unique_dashed_and_found_and_claims_are_sentences():
    names = [one.name for one in INVARIANTS]
    assert len(set(names)) == len(names)
    for name in names:
        one = find(name)
        assert one.name == name == name.lower().replace("_", "-")
        assert one.claim.endswith(".")
        assert one.claim.count(".") == 1
