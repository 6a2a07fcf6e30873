"""Tests of the search for the highest rate that gets through."""

from __future__ import annotations

import pytest

from bench.parse import Datagrams
from bench.search import MOST_LOSS, highest_rate


class Line:
    """A way that carries `capacity` datagrams per second and loses the rest."""

    def __init__(self, capacity: float) -> None:
        self.capacity = capacity
        self.tried: list[float] = []

    def __call__(self, rate: float) -> Datagrams:
        self.tried.append(rate)
        delivered = min(rate, self.capacity)
        return Datagrams(delivered, 1 - delivered / rate)


@pytest.mark.parametrize("capacity", [30.0, 55.0, 99.0, 100.0, 130.0, 400.0])
def test_it_comes_close_from_above_and_from_below(capacity):
    line = Line(capacity)
    found = highest_rate(line, 100.0)
    assert 0.8 * capacity <= found <= capacity
    assert len(line.tried) == 6


def test_it_goes_down_in_equal_ratios_until_one_gets_through_then_halves_the_gap():
    line = Line(60.0)
    highest_rate(line, 100.0, tries=5)
    assert line.tried[:3] == pytest.approx([100, 70, 49])
    assert line.tried[3:] == pytest.approx([(49 * 70) ** 0.5, (58.57 * 70) ** 0.5], abs=0.01)


def test_it_returns_what_arrived_not_what_was_sent():
    found = highest_rate(lambda rate: Datagrams(rate * 0.995, 0.005), 100.0, tries=1)
    assert found == 99.5


def test_the_limit_itself_passes():
    assert highest_rate(lambda rate: Datagrams(rate, MOST_LOSS), 100.0, tries=1) == 100.0


def test_a_way_that_always_loses_has_no_rate():
    assert highest_rate(lambda rate: Datagrams(rate / 2, 0.5), 100.0) == 0.0


def test_a_lucky_try_is_not_forgotten():
    answers = iter([Datagrams(100.0, 0.0), Datagrams(50.0, 0.5), Datagrams(40.0, 0.5)])
    assert highest_rate(lambda _: next(answers), 100.0, tries=3) == 100.0
