"""Tests of when a machine runs."""

from __future__ import annotations

import pytest

from overlay.errors import ConfigError
from overlay.sim.clock import Clock
from overlay.sim.faults import Starvation
from overlay.sim.processor import Processor


class Watched:
    """A processor, and what its driver is told."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.told: list[tuple[float, str]] = []
        self.processor = Processor(
            self.clock,
            lambda: self.told.append((self.clock.now, "stop")),
            lambda: self.told.append((self.clock.now, "go")),
        )


def test_a_starved_machine_runs_for_its_share_of_each_period():
    one = Watched()
    one.processor.starve(Starvation(share=0.5, period=2.0))
    one.clock.run(until=4.2)
    assert one.told == [(0.0, "stop"), (1.5, "go"), (2.0, "stop"), (3.5, "go"), (4.0, "stop")]
    one.processor.starve(None)
    one.clock.run(until=99.0)
    assert one.told[5:] == [(4.2, "go")]


def test_it_runs_only_when_nothing_holds_it():
    one = Watched()
    one.processor.pause(True)
    one.processor.starve(Starvation(share=0.5, period=2.0))
    one.clock.run(until=2.5)
    one.processor.pause(False)  # still between slices
    assert one.told == [(0.0, "stop")]
    one.clock.run(until=3.6)
    assert one.told == [(0.0, "stop"), (3.5, "go")]


def test_after_a_crash_nobody_is_paused_but_hunger_goes_on():
    one = Watched()
    one.processor.pause(True)
    one.processor.reset()
    assert one.processor.runs
    one.processor.starve(Starvation())
    one.processor.reset()
    assert not one.processor.runs


@pytest.mark.parametrize(("share", "period"), [(0.0, 2.0), (2.0, 2.0), (-1.0, 2.0)])
def test_a_starvation_that_is_none_is_refused(share, period):
    with pytest.raises(ConfigError):
        Starvation(share, period)
