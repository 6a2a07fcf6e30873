"""Which of many things is due next, without looking at all of them.

    set(key, at) --> heap of (at, key), oldest first --> take_due(now)
                     and key -> at: what is said last counts, older entries are passed over

A machine that keeps a thousand sessions is asked for its next deadline after every burst, and has
something to do for one of them every tenth of a second: both must not cost a thousand looks.

References:
    Python's heapq documentation, "Priority queue implementation notes": entries that were
    overtaken stay in the heap, marked, until they come to the front.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from typing import Final, Generic, TypeVar

Key = TypeVar("Key", bound=bytes)

SLACK: Final = 64
"""Overtaken entries that are tolerated beside as many as there are keys, before all are dropped."""


def earliest(*deadlines: float | None) -> float | None:
    """The first of some deadlines; None if there is none. Asked after every datagram.

    >>> earliest(3.0, None, 1.0)
    1.0
    """
    soonest = None
    for at in deadlines:
        if at is not None and (soonest is None or at < soonest):
            soonest = at
    return soonest


class Agenda(Generic[Key]):
    """Deadlines in monotonic seconds, at most one for each key."""

    __slots__ = ("_at", "_heap")

    def __init__(self) -> None:
        self._at: dict[Key, float] = {}
        self._heap: list[tuple[float, Key]] = []

    def __len__(self) -> int:
        return len(self._at)

    def set(self, key: Key, at: float | None) -> None:
        """`key` is due at `at`, whatever was said before; None: it is not."""
        if at is None:
            self._at.pop(key, None)
        elif self._at.get(key) != at:
            self._at[key] = at
            heappush(self._heap, (at, key))
        if len(self._heap) > 2 * len(self._at) + SLACK:
            self._heap = [(due, one) for one, due in self._at.items()]
            heapify(self._heap)

    def next_deadline(self) -> float | None:
        """When the first key is due."""
        heap, at = self._heap, self._at
        while heap and at.get(heap[0][1]) != heap[0][0]:
            heappop(heap)
        return heap[0][0] if heap else None

    def take_due(self, now: float) -> list[Key]:
        """The keys that are due at `now`, in that order; they are not due any more then."""
        due: list[Key] = []
        while (at := self.next_deadline()) is not None and at <= now:
            _, key = heappop(self._heap)
            del self._at[key]
            due.append(key)
        return due
