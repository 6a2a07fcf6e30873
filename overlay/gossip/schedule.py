"""When each member is probed next: everyone once per interval, never all at once.

Every member has its own time, drawn anew around the interval after each probe. So the probes of
one node spread over the interval by themselves, and nodes that started together drift apart.
"""

from __future__ import annotations

import random
from heapq import heappop, heappush
from typing import Final

from overlay.types import NodeId

# -- implementation --------------------------------------------------------------------------------

FIRST_WITHIN: Final = 0.25
"""Share of the interval within which a new member gets its first probe: soon, because until then
it is suspect and has no session, but not the whole cluster in one instant."""

JITTER: Final = 0.1
"""Each wait is the interval, give or take this share of it."""

SLACK: Final = 0.05
"""A probe may go out early by this share of the interval, to share a wake-up with another. It
bounds the wake-ups per interval, however many members there are."""


class ProbeSchedule:
    """The next probe time of each member.

    Args:
        interval: seconds between two probes of one member, on average.
        rng: draws the jitter.
    """

    __slots__ = ("_added", "_due", "_heap", "_interval", "_rng")

    def __init__(self, interval: float, rng: random.Random) -> None:
        self._interval = interval
        self._rng = rng
        # The heap may hold entries of members that are gone or were added again; only the one
        # whose number is in `_due` counts.
        self._heap: list[tuple[float, int, NodeId]] = []
        self._due: dict[NodeId, int] = {}
        self._added = 0

    def add(self, node: NodeId, now: float) -> None:
        """Probe `node` from now on."""
        self._push(node, now + self._rng.uniform(0.0, self._interval * FIRST_WITHIN))
        self._drop_stale()

    def remove(self, node: NodeId) -> None:
        """Probe `node` no longer; nothing happens if it was not."""
        self._due.pop(node, None)
        self._drop_stale()

    def due(self, now: float) -> list[NodeId]:
        """Who is to be probed now, in order of their times; each has its next time afterwards."""
        nodes = []
        limit = now + self._interval * SLACK
        while self._heap and self._heap[0][0] <= limit:
            _, number, node = heappop(self._heap)
            if self._due.get(node) == number:
                nodes.append(node)
        for node in nodes:
            self._push(node, now + self._interval * self._rng.uniform(1 - JITTER, 1 + JITTER))
        self._drop_stale()
        return nodes

    def next_deadline(self) -> float | None:
        """When to call `due` again; None without members."""
        return self._heap[0][0] if self._heap else None

    def _push(self, node: NodeId, at: float) -> None:
        self._added += 1
        self._due[node] = self._added
        heappush(self._heap, (at, self._added, node))

    def _drop_stale(self) -> None:
        # So that the top is always a live entry and `next_deadline` needs no search.
        while self._heap and self._due.get(self._heap[0][2]) != self._heap[0][1]:
            heappop(self._heap)
