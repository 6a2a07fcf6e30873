"""Tests of virtual time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.sim.clock import Clock


@given(st.lists(st.sampled_from([0.0, 0.5, 1.0, 1.5, 2.0]), max_size=20))
def test_actions_run_by_time_and_within_one_instant_in_the_order_they_were_asked_for(times):
    clock, ran = Clock(), []
    for number, when in enumerate(times):
        clock.at(when, lambda entry=(when, number): ran.append(entry))
    assert clock.run(until=2.0) == len(times)
    assert ran == sorted((when, number) for number, when in enumerate(times))


def test_time_stands_at_the_action_and_afterwards_at_the_end_of_the_run():
    clock, seen = Clock(), []
    clock.at(0.25, lambda: seen.append(clock.now))
    clock.run(until=1.0)
    assert (seen, clock.now) == ([0.25], 1.0)


def test_an_action_later_than_the_run_waits_for_the_next():
    clock, ran = Clock(), []
    clock.at(1.0, lambda: ran.append("end"))
    clock.at(1.5, lambda: ran.append("later"))
    assert clock.run(until=1.0) == 1
    assert clock.run(until=2.0) == 1
    assert ran == ["end", "later"]


def test_an_action_may_ask_for_more_and_the_past_is_now():
    clock, ran = Clock(), []

    def first() -> None:
        clock.at(0.1, lambda: ran.append(clock.now))
        clock.at(2.0, lambda: ran.append(clock.now))

    clock.at(1.0, first)
    clock.run(until=3.0)
    assert ran == [1.0, 2.0]


def test_a_cancelled_action_does_not_run():
    clock, ran = Clock(), []
    clock.at(1.0, lambda: ran.append("kept"))
    clock.at(1.0, lambda: ran.append("cancelled")).cancel()
    assert clock.run(until=2.0) == 1
    assert ran == ["kept"]


def test_time_does_not_go_back():
    clock = Clock()
    clock.run(until=5.0)
    clock.run(until=1.0)
    assert clock.now == 5.0


def test_what_an_action_raises_reaches_the_caller_and_the_run_can_go_on():
    clock, ran = Clock(), []

    def fail() -> None:
        raise ValueError("broken")

    clock.at(1.0, fail)
    clock.at(2.0, lambda: ran.append(clock.now))
    with pytest.raises(ValueError, match="broken"):
        clock.run(until=3.0)
    assert clock.now == 1.0
    clock.run(until=3.0)
    assert ran == [2.0]
