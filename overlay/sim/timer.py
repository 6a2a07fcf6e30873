"""The one timer of a machine: it follows the engine's next deadline, in the machine's own time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from overlay.errors import StateError
from overlay.sim.clock import Alarm, Clock
from overlay.sim.localtime import LocalTime

MAX_IDLE_WAKES: Final = 1000
"""Deadlines in a row at one instant. An engine whose deadline does not move would stop time."""


class Timer:
    """Calls `wake` at a deadline.

    Args:
        clock: the world's.
        time: the machine's, in which deadlines are given.
        wake: called when a deadline has come; usually sets the next one.
    """

    __slots__ = ("_alarm", "_at", "_clock", "_idle", "_time", "_wake")

    def __init__(self, clock: Clock, time: LocalTime, wake: Callable[[], None]) -> None:
        self._clock = clock
        self._time = time
        self._wake = wake
        self._alarm: Alarm | None = None
        self._at: float | None = None
        self._idle = 0

    def arm(self, deadline: float | None) -> None:
        """Ring at `deadline`, or next if that is past; None: not at all."""
        if deadline == self._at:
            return
        if self._alarm is not None:
            self._alarm.cancel()
        self._at = deadline
        if deadline is None:
            self._alarm = None
        else:
            self._alarm = self._clock.at(self._time.world(deadline), self._ring)

    def _ring(self) -> None:
        due, self._at, self._alarm = self._at, None, None
        late = due is not None and due < self._time.now
        if due is not None:
            self._time.reach(due)
        self._wake()
        stuck = self._at is not None and self._at <= self._time.now
        self._idle = self._idle + 1 if stuck or late else 0
        if self._idle > MAX_IDLE_WAKES:
            raise StateError(f"an engine wants to be woken at {self._at} over and over")
