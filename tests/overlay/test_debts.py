"""Tests of overlay.debts: what is spent is bounded, for each by itself, and forgotten once paid."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from overlay.debts import Debts


@given(st.lists(st.tuples(st.floats(0, 2), st.floats(0.01, 3))), st.floats(0.5, 5))
def test_over_any_time_no_more_is_spent_than_that_time_and_what_may_be_owed(
    steps: list[tuple[float, float]], ahead: float
) -> None:
    debts, now, spent = Debts[str](ahead), 100.0, 0.0
    largest = max((cost for _, cost in steps), default=0.0)
    for wait, cost in steps:
        now += wait
        if debts.spend("one", cost, now):
            spent += cost
    assert spent <= now - 100.0 + ahead + largest + 1e-6


def test_each_key_owes_for_itself() -> None:
    debts = Debts[str](1.0)
    assert debts.spend("a", 2.0, 0.0)
    assert not debts.spend("a", 0.1, 0.5)
    assert debts.is_spent("a", 0.5)
    assert debts.spend("b", 0.1, 0.5)


def test_who_owes_nothing_is_forgotten() -> None:
    debts = Debts[int](1.0)
    for key in range(100):
        debts.spend(key, 0.5, float(key))
    debts.expire(99.1)
    assert len(debts) == 1
