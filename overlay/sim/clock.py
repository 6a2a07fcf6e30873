"""Virtual time: what happens next, and nothing in between.

The simulator has one clock for all machines. Time stands still while an action runs and then
jumps to the next one; a minute in which nothing happens costs nothing.

    heap    (0.020, 7, deliver)  (0.020, 9, deliver)  (1.000, 2, wake node1) ...
              ^ time  ^ number: actions of one instant run in the order they were asked for

The number makes the order total: two runs that ask for the same actions run them in the same
order, which is half of what makes a simulation repeatable (seeded randomness is the other half).

References:
    Discrete-event simulation with a future event list: Banks et al., Discrete-Event System
    Simulation, section 3.1.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush


class Alarm:
    """One action that waits for its time."""

    __slots__ = ("_action",)

    def __init__(self, action: Callable[[], None]) -> None:
        self._action: Callable[[], None] | None = action

    def cancel(self) -> None:
        """It will not happen. Nothing changes if it has happened already."""
        self._action = None

    def _ring(self) -> bool:
        action, self._action = self._action, None
        if action is None:
            return False
        action()
        return True


class Clock:
    """Runs actions in order of their time.

    Error contract: what an action raises reaches the caller of `run`; the clock then stands at
    that action's time, the action counts as done, and the run can go on.

    >>> clock, seen = Clock(), []
    >>> _ = clock.at(2.0, lambda: seen.append(clock.now))
    >>> clock.run(until=5.0)
    1
    >>> seen, clock.now
    ([2.0], 5.0)
    """

    __slots__ = ("_heap", "_number", "now")

    def __init__(self) -> None:
        self.now = 0.0
        self._heap: list[tuple[float, int, Alarm]] = []
        self._number = 0

    def at(self, when: float, action: Callable[[], None]) -> Alarm:
        """Run `action` at `when`, or next if that is past: time does not go back."""
        alarm = Alarm(action)
        self._number += 1
        heappush(self._heap, (max(when, self.now), self._number, alarm))
        return alarm

    def after(self, delay: float, action: Callable[[], None]) -> Alarm:
        """Run `action` in `delay` seconds."""
        return self.at(self.now + delay, action)

    def run(self, until: float) -> int:
        """Run everything up to and including `until`, then stand there.

        Returns:
            How many actions ran.
        """
        ran = 0
        heap = self._heap
        while heap and heap[0][0] <= until:
            self.now, _, alarm = heappop(heap)
            ran += alarm._ring()  # noqa: SLF001  # an alarm and its clock are one machine
        self.now = max(self.now, until)
        return ran
