"""When a simulated machine runs: not while paused, not between its slices.

    paused       somebody stopped it (SIGSTOP, a suspended VM)
    starved      it gets a slice of each period (`Starvation`), starting with none

It runs when neither holds. Whoever drives the machine is told when it stops and when it
goes on; what came meanwhile is for the driver to keep.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from overlay.sim.clock import Alarm, Clock
from overlay.sim.faults import Starvation

Action = Callable[[], None]


class Processor:
    """The processor of one machine.

    Args:
        clock: the world's.
        on_stop: called when the machine stops running.
        on_go: called when it goes on.

    Attributes:
        clock: the world's.
        runs: whether the machine runs now.
        paused: whether somebody stopped it.
        starvation: how little it gets; None if it has a processor to itself.
    """

    __slots__ = (
        "_alarm",
        "_between",
        "_on_go",
        "_on_stop",
        "clock",
        "paused",
        "runs",
        "starvation",
    )

    def __init__(self, clock: Clock, on_stop: Action, on_go: Action) -> None:
        self.runs = True
        self.paused = False
        self.starvation: Starvation | None = None
        self.clock = clock
        self._on_stop = on_stop
        self._on_go = on_go
        self._between = False  # starved, and not its turn
        self._alarm: Alarm | None = None

    def pause(self, paused: bool) -> None:
        """Stop the machine, or let it go on."""
        self.paused = paused
        self._changed()

    def starve(self, starvation: Starvation | None) -> None:
        """Give it slices only from now on; None gives it a processor to itself."""
        if self._alarm is not None:
            self._alarm.cancel()
        self.starvation = starvation
        if starvation is None:
            self._between = False
            self._changed()
        else:
            self._end_slice(starvation)

    def reset(self) -> None:
        """The daemon is gone: nobody is paused. Starvation goes on."""
        self.paused = False
        self.runs = not self._between

    def _end_slice(self, starvation: Starvation) -> None:
        self._between = True
        begin = partial(self._begin_slice, starvation)
        self._alarm = self.clock.after(starvation.period - starvation.share, begin)
        self._changed()

    def _begin_slice(self, starvation: Starvation) -> None:
        self._between = False
        self._alarm = self.clock.after(starvation.share, partial(self._end_slice, starvation))
        self._changed()

    def _changed(self) -> None:
        ran, self.runs = self.runs, not (self.paused or self._between)
        if self.runs and not ran:
            self._on_go()
        elif ran and not self.runs:
            self._on_stop()
