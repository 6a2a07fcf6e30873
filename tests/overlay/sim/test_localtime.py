"""Tests of clocks that are wrong."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.errors import ConfigError
from overlay.sim.clock import Clock
from overlay.sim.localtime import Clocks, LocalTime


def test_true_clocks_show_the_worlds_time_exactly():
    world = Clock()
    local = LocalTime(world, 1000.0)
    world.run(until=0.1 + 0.2)
    assert local.now == world.now
    assert local.world(7.3) == 7.3


@given(
    st.floats(0.0, 1e6),
    st.floats(0.5, 2.0),
    st.lists(st.tuples(st.floats(0.0, 100.0), st.floats(0.5, 2.0)), max_size=5),
)
def test_time_never_goes_back_and_deadlines_are_met_whatever_the_rate(start, rate, changes):
    world = Clock()
    local = LocalTime(world, 0.0, Clocks(start, rate))
    before = local.now
    for wait, other in changes:
        deadline = local.now + wait
        world.run(until=local.world(deadline))
        local.reach(deadline)
        assert local.now >= deadline
        assert local.now == pytest.approx(deadline)
        local.set_rate(other)
        assert local.now >= before
        before = local.now


def test_a_step_moves_the_wall_clock_and_not_the_monotonic_one():
    world = Clock()
    local = LocalTime(world, 1000.0, Clocks(start=5.0, skew=-2.0))
    assert local.epoch + local.now == 998.0
    local.step(3600.0)
    assert local.now == 5.0
    assert local.epoch + local.now == 4598.0


def test_a_clock_that_stands_still_is_refused():
    with pytest.raises(ConfigError):
        LocalTime(Clock(), 0.0, Clocks(rate=0.0))
    with pytest.raises(ConfigError):
        LocalTime(Clock(), 0.0).set_rate(-1.0)
