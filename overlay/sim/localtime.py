"""A machine's own clocks: what its engine is told, which need not be what the world knows.

    monotonic   local = at + (world - since) * rate        never goes back, may run fast or slow
    wall        epoch + local                              may be wrong, and may be stepped

The engine sees nothing but these two: two machines whose monotonic clocks began at different
moments, or drift apart, must work together all the same.

Turning a deadline into world time and back may miss it by a rounding error; a wake-up that came a
hair early would be asked for again at the same instant, for ever. So whoever wakes a machine says
with `reach` what time it must have become.
"""

from __future__ import annotations

from typing import NamedTuple

from overlay.errors import ConfigError
from overlay.sim.clock import Clock


class Clocks(NamedTuple):
    """How the clocks of a machine differ from the world's."""

    start: float = 0.0
    """Monotonic seconds at virtual time zero, 0 or more: how long the machine had been up."""
    rate: float = 1.0
    """Monotonic seconds per virtual second; 1.0001 is 100 ppm fast."""
    skew: float = 0.0
    """Seconds by which its wall clock is ahead."""


TRUE = Clocks()
"""Clocks that are right."""


class LocalTime:
    """The clocks of one machine.

    Args:
        clock: the world's.
        epoch: Unix seconds at virtual time zero, as it truly is.
        clocks: how this machine's differ.

    >>> world = Clock()
    >>> local = LocalTime(world, 1000.0, Clocks(start=50.0, rate=2.0, skew=3.0))
    >>> world.run(until=10.0), local.now, local.epoch + local.now, local.world(80.0)
    (0, 70.0, 1023.0, 15.0)
    """

    __slots__ = ("_at", "_clock", "_least", "_rate", "_since", "epoch")

    def __init__(self, clock: Clock, epoch: float, clocks: Clocks = TRUE) -> None:
        _check_rate(clocks.rate)
        self._clock = clock
        self._since = 0.0
        self._at = clocks.start
        self._least = 0.0
        self._rate = clocks.rate
        self.epoch = epoch + clocks.skew - clocks.start
        """Unix seconds at monotonic zero, as this machine believes."""

    @property
    def now(self) -> float:
        """Monotonic seconds of this machine."""
        return max(self._at + (self._clock.now - self._since) * self._rate, self._least)

    def world(self, local: float) -> float:
        """The virtual time at which this machine's monotonic clock shows `local`."""
        return self._since + (local - self._at) / self._rate

    def reach(self, local: float) -> None:
        """It is `local` at least: a wake-up for that moment has come."""
        self._least = max(self._least, local)

    def set_rate(self, rate: float) -> None:
        """Run at another rate from now on.

        Raises:
            ConfigError: the rate is not above zero. Nothing else.
        """
        _check_rate(rate)
        self._at, self._since = self.now, self._clock.now
        self._rate = rate

    def step(self, seconds: float) -> None:
        """Somebody sets the wall clock `seconds` ahead, or back if negative."""
        self.epoch += seconds


def _check_rate(rate: float) -> None:
    if not rate > 0.0:
        raise ConfigError("a clock's rate is above zero", "rate")
