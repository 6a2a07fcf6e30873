"""Tests of a machine's timer."""

from __future__ import annotations

import pytest

from overlay.errors import StateError
from overlay.sim.clock import Clock
from overlay.sim.localtime import Clocks, LocalTime
from overlay.sim.timer import Timer


def test_it_rings_at_the_last_deadline_by_the_machines_own_clock():
    clock, rang = Clock(), []
    time = LocalTime(clock, 0.0, Clocks(start=10.0, rate=2.0))
    timer = Timer(clock, time, lambda: rang.append((clock.now, time.now)))
    timer.arm(14.0)
    timer.arm(16.0)
    clock.run(until=10.0)
    assert rang == [(3.0, 16.0)]
    timer.arm(40.0)
    timer.arm(None)
    clock.run(until=99.0)
    assert len(rang) == 1


def test_the_machine_has_reached_its_deadline_despite_rounding():
    clock = Clock()
    time = LocalTime(clock, 0.0, Clocks(start=1 / 3, rate=1.1))
    deadlines = [number / 7 for number in range(3, 2000)]
    timer = Timer(clock, time, lambda: ring())

    def ring() -> None:
        assert time.now >= deadlines.pop(0)
        timer.arm(deadlines[0] if deadlines else None)

    timer.arm(deadlines[0])
    clock.run(until=999.0)
    assert deadlines == []


def test_a_deadline_that_does_not_move_is_a_defect_and_does_not_hang():
    clock = Clock()
    time = LocalTime(clock, 0.0)
    timer = Timer(clock, time, lambda: timer.arm(1.0))
    timer.arm(1.0)
    with pytest.raises(StateError, match="over and over"):
        clock.run(until=2.0)
