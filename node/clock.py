"""The wall clock: notices when somebody sets it.

The engine's clock is monotonic, which nobody sets. Wall-clock time is that plus an epoch, and the
epoch jumps when the clock is set: by hand, by a time server, when a suspended machine wakes up (the
monotonic clock stands still meanwhile). Small corrections are slewed; what they add up to is
followed, too.

References:
    clock_gettime(2) on CLOCK_MONOTONIC; adjtimex(2) on slewing and stepping.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

STEP: Final = 1.0
"""Seconds of drift that count as a step. Reading two clocks one after the other is never that far
apart, and nothing that the wall clock decides is finer."""


class WallWatch:
    """Follows the wall clock.

    Args:
        monotonic, wall: the two clocks, in seconds.

    Attributes:
        epoch: Unix seconds at monotonic zero.
    """

    def __init__(
        self,
        monotonic: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._monotonic = monotonic
        self._wall = wall
        self.epoch = wall() - monotonic()

    def step(self) -> float | None:
        """By how many seconds the clock was set since the last step; None if it was not."""
        epoch = self._wall() - self._monotonic()
        drift = epoch - self.epoch
        if abs(drift) <= STEP:
            return None
        self.epoch = epoch
        return drift
