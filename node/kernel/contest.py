"""Tells repairs from a fight: another program that changes the same thing again and again.

Whoever wins such a fight depends on who does less; what matters is that it is named, and that it
costs little. A thing that was put right `LIMIT` times within `WINDOW` is contested. While anything
is, looks are `PAUSE` apart: things are still put right within that time.

Pure: what was repaired comes in, a problem and a pause come out.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Final

from overlay.views import Problem

LIMIT: Final = 8
WINDOW: Final = 30.0
"""Seconds. After so long without a repair it is over."""

PAUSE: Final = 1.0
"""Seconds between two looks at a kernel that somebody else changes as well."""

_NAMED: Final = 3
"""So many things are told by name."""


class Contest:
    """What was repaired lately, and how often."""

    def __init__(self) -> None:
        self._times: dict[str, deque[float]] = {}

    def on_repaired(self, repaired: Iterable[str], now: float) -> None:
        """These things were put right.

        Args:
            repaired: what, in words; the same words for the same thing.
            now: monotonic seconds.
        """
        self._forget(now)
        for what in repaired:
            self._times.setdefault(what, deque(maxlen=LIMIT)).append(now)

    def contested(self, now: float) -> list[str]:
        """What is put right again and again, sorted."""
        self._forget(now)
        return sorted(
            what
            for what, times in self._times.items()
            if len(times) == LIMIT and times[-1] - times[0] <= WINDOW
        )

    def pause(self, now: float) -> float:
        """Seconds to wait at least between two looks."""
        return PAUSE if self.contested(now) else 0.0

    def problem(self, now: float) -> Problem | None:
        """What to say of it; None while there is no fight."""
        contested = self.contested(now)
        if not contested:
            return None
        more = len(contested) - _NAMED
        named = ", ".join(contested[:_NAMED]) + (f" and {more} more" if more > 0 else "")
        return Problem(
            "kernel-contested",
            "another program keeps changing this node's part of the network",
            f"put right again and again: {named}",
            "find what else manages links, routes or packet filters here, "
            "and have it leave Muslin's alone",
        )

    def _forget(self, now: float) -> None:
        over = [what for what, times in self._times.items() if now - times[-1] > WINDOW]
        for what in over:
            del self._times[what]
